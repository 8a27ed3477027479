//! Apply: brings the journal from memory to disk, now and then, where a slow or broken disk hurts nobody.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    path::Path,
};

/// Rounds kept on disk.
const KEPT_ROUNDS: usize = 256;

/// Free bytes of the file system a folder lies on; 0 when it cannot be asked.
pub fn free_bytes(folder: &Path) -> u64 {
    nix::sys::statvfs::statvfs(folder).map_or(0, |stat| stat.blocks_available().saturating_mul(stat.fragment_size()))
}

/// Copies what the disk lacks; blocking.
pub fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for source in super::files(from)? {
        let Some(name) = source.file_name() else { continue };
        copy_file(&source, &to.join(name))?;
    }
    let kept = super::files(to)?;
    for old in kept.iter().take(kept.len().saturating_sub(KEPT_ROUNDS)) {
        fs::remove_file(old)?;
    }
    Ok(())
}

fn copy_file(source: &Path, target: &Path) -> io::Result<()> {
    let mut source = File::open(source)?;
    let mut target = OpenOptions::new().create(true).append(true).open(target)?;
    let (wanted, present) = (source.metadata()?.len(), target.metadata()?.len());
    // A writer without room cuts half lines off; the copy follows.
    let from = present.min(wanted);
    if present > wanted {
        target.set_len(wanted)?;
    }
    source.seek(SeekFrom::Start(from))?;
    let mut fresh = Vec::new();
    source.take(wanted - from).read_to_end(&mut fresh)?;
    target.write_all(&fresh)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_copy_follows_its_source_as_it_grows_and_shrinks() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("memory"), folder.path().join("disk"));
        fs::create_dir_all(&from).unwrap();
        let (source, target) = (from.join("1.journal"), to.join("1.journal"));
        for text in ["one\n", "one\ntwo\nthr", "one\ntwo\n"] {
            fs::write(&source, text).unwrap();
            copy(&from, &to).unwrap();
            assert_eq!(fs::read_to_string(&target).unwrap(), text);
        }
        fs::remove_file(&source).unwrap();
        copy(&from, &to).unwrap();
        assert!(target.exists(), "the disk remembers longer than the memory");
    }

    #[test]
    fn free_room_is_known_and_its_absence_is_none() {
        assert!(free_bytes(Path::new("/proc/self")) < u64::MAX);
        assert_eq!(free_bytes(Path::new("/nowhere/at/all")), 0);
    }
}
