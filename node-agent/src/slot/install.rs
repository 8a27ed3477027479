//! `slot install DIR`: puts this binary into a volume that another image's container runs it from.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};
use thiserror::Error;

/// Why the binary could not be installed.
#[derive(Debug, Error)]
#[error("cannot {what} {path}: mount a writable volume there")]
pub struct Error {
    what: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// Copies this binary to `folder/slot`, mode 0755. A reader never sees half of it.
pub fn run(folder: &Path) -> Result<(), Error> {
    let error = |what, path: &Path, source| Error {
        what,
        path: path.to_owned(),
        source,
    };
    let own = std::env::current_exe().map_err(|source| error("find", Path::new("/proc/self/exe"), source))?;
    fs::create_dir_all(folder).map_err(|source| error("create", folder, source))?;
    let temporary = folder.join(".slot.new");
    fs::copy(&own, &temporary).map_err(|source| error("copy to", &temporary, source))?;
    fs::set_permissions(&temporary, fs::Permissions::from_mode(0o755))
        .map_err(|source| error("set the mode of", &temporary, source))?;
    let target = folder.join("slot");
    fs::rename(&temporary, &target).map_err(|source| error("rename to", &target, source))?;
    tracing::info!(path = %target.display(), "installed");
    Ok(())
}
