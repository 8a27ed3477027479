//! What a dynamically linked program needs beside itself, copied from this machine into an image's base layer.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use anyhow::{Result, bail};

use super::{Files, add};
use crate::harness::process::Cmd;

/// glibc loads these by name when a host is looked up, so `ldd` does not see them.
const LOADED_BY_NAME: [&str; 2] = ["libnss_files.so.2", "libnss_dns.so.2"];
const CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Adds the libraries of all programs, at the paths they have here, and the machine's certificate authorities.
pub async fn add_libraries(files: &mut Files, programs: &[PathBuf]) -> Result<()> {
    let mut libraries = BTreeSet::new();
    for program in programs {
        let done = Cmd::new("ldd").args([program]).finish().await?;
        if done.stderr.contains("not a dynamic executable") || done.stdout.contains("statically linked") {
            continue;
        }
        if !done.status.success() || done.stdout.contains("not found") {
            bail!(
                "ldd cannot resolve the libraries of {}: {}{}",
                program.display(),
                done.stdout,
                done.stderr
            );
        }
        libraries.extend(parse(&done.stdout));
    }
    let beside: BTreeSet<PathBuf> = libraries
        .iter()
        .filter_map(|l| l.parent().map(Path::to_path_buf))
        .collect();
    for name in LOADED_BY_NAME {
        libraries.extend(beside.iter().map(|folder| folder.join(name)).filter(|l| l.exists()));
    }
    for library in libraries {
        add(files, &library, &library.to_string_lossy(), 0o755)?;
    }
    if Path::new(CERTIFICATES).exists() {
        add(files, Path::new(CERTIFICATES), CERTIFICATES, 0o644)?;
    }
    Ok(())
}

/// `libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x…)`, and the loader's line without an arrow.
fn parse(ldd: &str) -> impl Iterator<Item = PathBuf> {
    ldd.lines().filter_map(|line| {
        let path = line.split_once("=>").map_or(line, |(_, right)| right).trim();
        let path = path.split(" (").next().unwrap_or(path);
        path.starts_with('/').then(|| PathBuf::from(path))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_and_loader_are_found_and_the_kernels_own_is_not() {
        let text = "\tlinux-vdso.so.1 (0x00007ffc)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let found: Vec<_> = parse(text).map(|p| p.display().to_string()).collect();
        assert_eq!(
            found,
            ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"]
        );
    }

    #[tokio::test]
    async fn a_program_of_this_machine_gets_its_libc_and_loader() {
        let mut files = Files::new();
        add_libraries(&mut files, &[PathBuf::from("/bin/sh")]).await.unwrap();
        assert!(files.keys().any(|k| k.contains("libc.so")), "{:?}", files.keys());
        assert!(files.keys().any(|k| k.contains("ld-linux")), "{:?}", files.keys());
    }
}
