//! Unix sockets between the processes of a slot pod.

use std::{
    io,
    path::{Path, PathBuf},
};
use thiserror::Error;
use tokio::net::UnixListener;
use tonic::transport::{Channel, Endpoint};

/// Why a socket could not be used.
#[derive(Debug, Error)]
pub enum Error {
    /// The socket cannot be made.
    #[error("cannot listen on {path}: check that the folder exists and may be written")]
    Listen {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Nobody answers.
    #[error("nothing answers on {path}")]
    Connect {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: tonic::transport::Error,
    },
}

/// Name of hold's socket in the run folder.
pub fn hold_path(run_dir: &Path) -> PathBuf {
    run_dir.join("hold.sock")
}

/// Name of a replica group's socket in the run folder.
pub fn engine_path(run_dir: &Path, group: u32) -> PathBuf {
    run_dir.join(format!("engine-{group}.sock"))
}

/// Listens, after removing what an earlier life of this process left.
pub fn listen(path: &Path) -> Result<UnixListener, Error> {
    let error = |source| Error::Listen {
        path: path.to_owned(),
        source,
    };
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(error)?;
    }
    match std::fs::remove_file(path) {
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => {}
        removed => removed.map_err(error)?,
    }
    UnixListener::bind(path).map_err(error)
}

/// Connects now.
pub async fn connect(path: &Path) -> Result<Channel, Error> {
    let error = |source| Error::Connect {
        path: path.to_owned(),
        source,
    };
    Endpoint::from_shared(format!("unix://{}", path.display()))
        .map_err(error)?
        .connect()
        .await
        .map_err(error)
}
