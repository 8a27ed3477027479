//! Apply: what must happen though nobody asks: rounds that are overdue end, the journal reaches the disk, room is
//! measured.

use super::{journal::copier, state::Core};
use crate::slot::clock::{self, now_ms};
use std::{path::PathBuf, sync::Arc, time::Duration};

/// Between two looks at what is overdue.
const TICK: Duration = Duration::from_millis(200);
/// Between two copies of the journal.
const COPY: Duration = Duration::from_secs(1);

/// Goes on for ever.
pub async fn run(core: Arc<Core>) {
    let ticking = async {
        loop {
            if core.plan(|state| state.tick(core.config.stage_ms, now_ms())) {
                core.ring();
            }
            follow_wall(&core);
            tokio::time::sleep(TICK).await;
        }
    };
    tokio::join!(ticking, copying(&core));
}

/// In a round the clock goes on as it was; between two, stamps are to be those of everybody else.
fn follow_wall(core: &Core) {
    core.plan(|state| {
        let step_ms = if state.is_quiet(clock::now_ms()) {
            clock::follow_wall()
        } else {
            0
        };
        if step_ms != 0 {
            tracing::warn!(step_ms, "the wall clock was set");
            if let Some(view) = &mut state.signal {
                view.shift(step_ms);
            }
        }
    });
}

/// A disk that hangs holds up nothing but this loop.
async fn copying(core: &Core) {
    let folder = core.read(|state| state.journal.folder().to_owned());
    let mut was_failing = false;
    loop {
        let (from, to) = (folder.clone(), core.config.journal_dir.clone());
        let measured = tokio::task::spawn_blocking(move || copy_and_measure(&from, to)).await;
        if let Ok((free, copied)) = measured {
            if let Err(error) = &copied
                && !was_failing
            {
                tracing::error!(%error, "the journal does not reach the disk");
            }
            was_failing = copied.is_err();
            let free = if was_failing { 0 } else { free };
            if core.read(|state| state.journal_free != free) {
                core.update(|state| state.journal_free = free);
            }
        }
        tokio::time::sleep(COPY).await;
    }
}

/// Copies, then measures the smaller of both rooms.
fn copy_and_measure(from: &std::path::Path, to: Option<PathBuf>) -> (u64, std::io::Result<()>) {
    let free = copier::free_bytes(from);
    match to {
        None => (free, Ok(())),
        Some(to) => {
            let copied = copier::copy(from, &to);
            (free.min(copier::free_bytes(&to)), copied)
        }
    }
}
