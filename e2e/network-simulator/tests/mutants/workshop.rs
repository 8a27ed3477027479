//! A copy of `kernels` under `target/`, with the versions and profile of the workspace: changed, built, run.

use crate::mutants::Mutant;
use anyhow::{Context as _, Result, bail, ensure};
use std::{
    ffi::OsStr,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

/// A program to be started.
#[expect(
    clippy::disallowed_methods,
    reason = "programs of this repository, started once and waited for"
)]
pub fn command(program: impl AsRef<OsStr>) -> Command {
    Command::new(program)
}

/// The copy.
#[derive(Debug)]
pub struct Workshop {
    repository: PathBuf,
    home: PathBuf,
    target: PathBuf,
}

impl Workshop {
    /// Makes the copy, or brings it up to date.
    pub fn open() -> Result<Self> {
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize()?;
        // Tests lie in `<target>/<profile>/deps`.
        let program = std::env::current_exe()?;
        let target = program.ancestors().nth(3).context("a test has no target directory")?;
        let home = target.join("mutants");
        let workshop = Self {
            // Its own: a program of the copy must never be taken for one of the repository.
            target: home.join("target"),
            home,
            repository,
        };
        workshop.furnish()?;
        Ok(workshop)
    }

    fn furnish(&self) -> Result<()> {
        for folder in ["kernels", "vectors", "ledger"] {
            let folder = self.home.join(folder);
            if folder.exists() {
                fs::remove_dir_all(folder)?;
            }
        }
        for folder in ["kernels/benches", "vectors"] {
            fs::create_dir_all(self.home.join(folder))?;
        }
        let manifest = fs::read_to_string(self.repository.join("Cargo.toml"))?;
        let members = manifest
            .lines()
            .find(|line| line.starts_with("members = "))
            .context("the workspace lists no members on a line of its own")?;
        fs::write(
            self.home.join("Cargo.toml"),
            manifest.replacen(members, "members = [\"kernels\"]", 1),
        )?;
        for file in ["Cargo.lock", "kernels/Cargo.toml", "kernels/benches/growth.rs"] {
            fs::copy(self.repository.join(file), self.home.join(file))?;
        }
        // What the reference's neighbour includes: no mistake is planted there.
        let cubins = "kernels/cuda/cubin";
        copy_tree(&self.repository.join(cubins), &self.home.join(cubins))?;
        // Vectors of the retired scheme say nothing about these mistakes.
        for entry in fs::read_dir(self.repository.join("kernels/vectors"))? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with("v2_") {
                fs::copy(entry.path(), self.vectors().join(entry.file_name()))?;
            }
        }
        Ok(())
    }

    pub fn repository(&self) -> &Path {
        &self.repository
    }

    pub fn vectors(&self) -> PathBuf {
        self.home.join("vectors")
    }

    pub fn ledger(&self) -> PathBuf {
        self.home.join("ledger")
    }

    /// The reference with one mistake, or with none.
    pub fn build(&self, mutant: Option<&Mutant>) -> Result<()> {
        copy_tree(&self.repository.join("kernels/src"), &self.home.join("kernels/src"))?;
        if let Some(mutant) = mutant {
            let path = self.home.join("kernels/src").join(mutant.file);
            let mut text = fs::read_to_string(&path).with_context(|| format!("there is no {}", mutant.file))?;
            for (from, to) in mutant.swaps {
                let found = text.matches(from).count();
                ensure!(
                    found == 1,
                    "{} has {from:?} {found} times: mend the mutant",
                    mutant.file
                );
                text = text.replacen(from, to, 1);
            }
            fs::write(&path, text)?;
        }
        let built = command(env!("CARGO"))
            .current_dir(&self.home)
            .env("CARGO_TARGET_DIR", &self.target)
            // A mistake changes one function: a fifth of the time.
            .env("CARGO_INCREMENTAL", "1")
            .args([
                "build",
                "--release",
                "--offline",
                "--quiet",
                "--package",
                "kernels",
                "--bins",
            ])
            .stdin(Stdio::null())
            .output()?;
        ensure!(
            built.status.success(),
            "it does not compile: {}",
            String::from_utf8_lossy(&built.stderr)
        );
        Ok(())
    }

    /// Runs a program of the copy.
    pub fn run(&self, program: &str, arguments: &[&Path], input: &[u8]) -> Result<Output> {
        let mut child = command(self.target.join("release").join(program))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("{program} cannot be started"))?;
        // Its end is the end of the input.
        child.stdin.take().context("no standard input")?.write_all(input)?;
        Ok(child.wait_with_output()?)
    }
}

fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let place = to.join(entry.file_name());
        let kind = entry.file_type()?;
        if kind.is_dir() {
            copy_tree(&entry.path(), &place)?;
        } else if kind.is_file() {
            // A file that stays the same keeps its time, and is not compiled again for nothing.
            let wanted = fs::read(entry.path())?;
            if fs::read(&place).ok().as_ref() != Some(&wanted) {
                fs::write(&place, wanted)?;
            }
        } else {
            bail!("{} is neither file nor folder", entry.path().display());
        }
    }
    Ok(())
}
