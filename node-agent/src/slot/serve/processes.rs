//! Observe: what hold says about the engines' processes, as it happens. How a killed engine is noticed at once.

use super::{group::process_name, state::Core};
use crate::slot::socket;
use proto::v1::{Empty, ProcState, hold_client::HoldClient};
use std::{sync::Arc, time::Duration};

/// Between two attempts to watch.
const PAUSE: Duration = Duration::from_millis(200);

/// Watches for ever.
pub async fn run(core: Arc<Core>) {
    loop {
        if let Err(error) = watch(&core).await {
            tracing::debug!(%error, "hold is not watched");
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn watch(core: &Core) -> Result<(), tonic::Status> {
    let channel = socket::connect(&socket::hold_path(&core.config.run_dir))
        .await
        .map_err(|error| tonic::Status::unavailable(error.to_string()))?;
    let mut states = HoldClient::new(channel).watch(Empty {}).await?.into_inner();
    while let Some(process) = states.message().await? {
        take(core, &process);
    }
    Ok(())
}

fn take(core: &Core, process: &ProcState) {
    core.update(|state| {
        for (group, entry) in state.groups.iter_mut().enumerate() {
            if process_name(group as u32) == process.name {
                entry.pid = process.pid;
                (entry.starts, entry.boot_id) = (process.starts, process.boot_id);
            }
        }
    });
}
