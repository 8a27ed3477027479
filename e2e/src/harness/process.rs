//! The only file that starts programs: with a time limit while they are waited for, with a record when they are not.
//!
//! A record is a process id together with its start time, so that a number which meanwhile belongs to another process
//! is never signalled.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde::{Deserialize, Serialize};
use tokio::{io::AsyncWriteExt, process::Child, time::Instant};

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);
/// Enough of what a program said to see why it failed.
const SHOWN: usize = 2000;

#[derive(Debug, Clone, Default)]
enum Stdin {
    #[default]
    Null,
    Bytes(Vec<u8>),
    File(PathBuf),
}

/// A command line that has not been run yet.
#[derive(Debug, Clone)]
pub struct Cmd {
    argv: Vec<OsString>,
    env: Vec<(String, OsString)>,
    clear_env: bool,
    cwd: Option<PathBuf>,
    stdin: Stdin,
    timeout: Duration,
}

/// What a finished program left.
#[derive(Debug, Clone)]
pub struct Finished {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Cmd {
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Self {
            argv: vec![program.as_ref().into()],
            env: Vec::new(),
            clear_env: false,
            cwd: None,
            stdin: Stdin::Null,
            timeout: DEFAULT_TIMEOUT,
        }
    }

    #[must_use]
    pub fn args<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(mut self, args: I) -> Self {
        self.argv.extend(args.into_iter().map(|a| a.as_ref().into()));
        self
    }

    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name.into(), value.as_ref().into()));
        self
    }

    /// Nothing inherited: only what [`Cmd::env`] names.
    #[must_use]
    pub fn clear_env(mut self) -> Self {
        self.clear_env = true;
        self
    }

    #[must_use]
    pub fn cwd(mut self, directory: &Path) -> Self {
        self.cwd = Some(directory.into());
        self
    }

    #[must_use]
    pub fn stdin_bytes(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = Stdin::Bytes(bytes.into());
        self
    }

    #[must_use]
    pub fn stdin_file(mut self, path: &Path) -> Self {
        self.stdin = Stdin::File(path.into());
        self
    }

    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The same command line behind another program that ends by running it.
    #[must_use]
    pub fn inside<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(mut self, wrapper: I) -> Self {
        let wrapper = wrapper.into_iter().map(|a| a.as_ref().to_os_string());
        self.argv = wrapper.chain(self.argv).collect();
        self
    }

    /// The command line for people, arguments separated by blanks.
    pub fn shown(&self) -> String {
        self.argv
            .iter()
            .map(|a| a.to_string_lossy())
            .collect::<Vec<_>>()
            .join(" ")
    }

    fn prepare(&self) -> Result<tokio::process::Command> {
        let mut command = tokio::process::Command::new(&self.argv[0]);
        command.args(&self.argv[1..]);
        if self.clear_env {
            command.env_clear();
        }
        command.envs(self.env.iter().map(|(k, v)| (k, v)));
        if let Some(directory) = &self.cwd {
            command.current_dir(directory);
        }
        command.stdin(match &self.stdin {
            Stdin::Null => Stdio::null(),
            Stdin::Bytes(_) => Stdio::piped(),
            Stdin::File(path) => {
                Stdio::from(File::open(path).with_context(|| format!("cannot open {}", path.display()))?)
            }
        });
        Ok(command)
    }

    /// Runs to the end, whatever the exit status.
    pub async fn finish(self) -> Result<Finished> {
        let mut command = self.prepare()?;
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command
            .spawn()
            .with_context(|| format!("cannot start {}", self.shown()))?;
        let stdin = child.stdin.take();
        let feed = async {
            if let (Some(mut pipe), Stdin::Bytes(bytes)) = (stdin, &self.stdin) {
                // A program that ends without reading its input says so by its exit status.
                pipe.write_all(bytes).await.ok();
            }
        };
        let both = async { tokio::join!(feed, child.wait_with_output()).1 };
        let output = tokio::time::timeout(self.timeout, both)
            .await
            .with_context(|| format!("{} did not end within {:?}", self.shown(), self.timeout))?
            .with_context(|| format!("cannot wait for {}", self.shown()))?;
        Ok(Finished {
            status: output.status,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Runs to the end and returns what it printed; any exit status but 0 is an error that shows what it said.
    pub async fn text(self) -> Result<String> {
        let shown = self.shown();
        let done = self.finish().await?;
        if !done.status.success() {
            let said = if done.stderr.trim().is_empty() {
                &done.stdout
            } else {
                &done.stderr
            };
            bail!("{shown}: {}: {}", done.status, tail(said.trim(), SHOWN));
        }
        Ok(done.stdout)
    }

    /// Runs in front of the person who called: their terminal, no time limit.
    pub async fn foreground(self) -> Result<ExitStatus> {
        let mut command = self.prepare()?;
        if matches!(self.stdin, Stdin::Null) {
            command.stdin(Stdio::inherit());
        }
        command
            .kill_on_drop(true)
            .status()
            .await
            .with_context(|| format!("cannot run {}", self.shown()))
    }

    /// Starts a child of the caller, output appended to `log`; it dies when the handle is dropped.
    pub fn spawn_logged(self, log: &Path) -> Result<Child> {
        let mut command = self.prepare()?;
        let (out, err) = open_log(log)?;
        command.stdout(out).stderr(err).kill_on_drop(true).process_group(0);
        command
            .spawn()
            .with_context(|| format!("cannot start {}", self.shown()))
    }

    /// Starts a process that outlives the caller, in a session of its own, output appended to `log`.
    pub fn detach(mut self, log: &Path) -> Result<ProcessRecord> {
        // A child that leads no group is turned by setsid(1) into PROGRAM itself, so the id stays the same.
        self.argv.insert(0, "setsid".into());
        let mut command = self.prepare()?;
        let (out, err) = open_log(log)?;
        command.stdout(out).stderr(err);
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {}", self.shown()))?;
        let pid = child
            .id()
            .with_context(|| format!("{} ended at once; see {}", self.shown(), log.display()))?;
        ProcessRecord::of(pid.cast_signed(), self.shown(), log)
    }
}

fn open_log(log: &Path) -> Result<(File, File)> {
    let file = File::options().create(true).append(true).open(log);
    let file = file.with_context(|| format!("cannot open log {}", log.display()))?;
    let twin = file
        .try_clone()
        .with_context(|| format!("cannot duplicate log {}", log.display()))?;
    Ok((file, twin))
}

/// The last `limit` bytes of a text, at a character boundary.
pub fn tail(text: &str, limit: usize) -> &str {
    let start = text.len().saturating_sub(limit);
    let start = (start..=text.len())
        .find(|i| text.is_char_boundary(*i))
        .unwrap_or(text.len());
    &text[start..]
}

/// A process that may outlive whoever started it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessRecord {
    pub pid: i32,
    /// Clock ticks since boot; with the id it names one process for ever.
    pub start_ticks: u64,
    pub command: String,
    pub log: PathBuf,
}

impl ProcessRecord {
    fn of(pid: i32, command: String, log: &Path) -> Result<Self> {
        let start_ticks =
            start_ticks(pid).with_context(|| format!("{command} ended at once; see {}", log.display()))?;
        Ok(Self {
            pid,
            start_ticks,
            command,
            log: log.into(),
        })
    }

    pub fn of_this_process() -> Result<Self> {
        Self::of(std::process::id().cast_signed(), "this process".into(), Path::new(""))
    }

    pub fn is_alive(&self) -> bool {
        start_ticks(self.pid) == Some(self.start_ticks)
    }

    pub fn signal(&self, signal: Signal) {
        if self.is_alive() {
            // The process may end between the look and the signal; then there is nothing to do.
            kill(Pid::from_raw(self.pid), signal).ok();
        }
    }

    pub async fn gone_within(&self, limit: Duration) -> bool {
        until(limit, async || !self.is_alive()).await
    }

    pub fn save(&self, path: &Path) -> Result<()> {
        write_json(path, self)
    }

    pub fn load(path: &Path) -> Result<Self> {
        read_json(path)
    }

    /// The processes it started itself, for programs such as nsenter that wait for a child.
    pub fn children(&self) -> Vec<i32> {
        let list = fs::read_to_string(format!("/proc/{0}/task/{0}/children", self.pid)).unwrap_or_default();
        if self.is_alive() {
            list.split_whitespace().filter_map(|p| p.parse().ok()).collect()
        } else {
            Vec::new()
        }
    }
}

/// When a live process started; none when it is gone or only waits to be reaped.
pub fn start_ticks(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    parse_stat(&stat)
}

/// Field 22 of /proc/PID/stat; the name in field 2 may itself hold blanks and brackets.
fn parse_stat(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// Looks again and again until `condition` holds; false when `limit` passes first.
pub async fn until(limit: Duration, mut condition: impl AsyncFnMut() -> bool) -> bool {
    let end = Instant::now() + limit;
    loop {
        if condition().await {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        tokio::time::sleep(POLL).await;
    }
}

pub fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    let text = serde_json::to_vec_pretty(value).with_context(|| format!("cannot write {} as JSON", path.display()))?;
    write_whole(path, &text)
}

pub fn read_json<T: for<'a> Deserialize<'a>>(path: &Path) -> Result<T> {
    let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("{} is not what the harness writes", path.display()))
}

/// Readers see the old file or the new one, never a part.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let part = path.with_extension("part");
    fs::write(&part, bytes).with_context(|| format!("cannot write {}", part.display()))?;
    fs::rename(&part, path).with_context(|| format!("cannot put {} in place", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_time_is_read_past_a_hostile_program_name() {
        let rest = (4..=30).map(|n| n.to_string()).collect::<Vec<_>>().join(" ");
        assert_eq!(parse_stat(&format!("7 (a) b (c)) S {rest}")), Some(22));
        assert_eq!(parse_stat(&format!("7 (x) Z {rest}")), None);
        assert_eq!(parse_stat("7 (x"), None);
    }

    #[test]
    fn tail_never_splits_a_character() {
        assert_eq!(tail("aé", 1), "");
        assert_eq!(tail("aé", 2), "é");
        assert_eq!(tail("abc", 9), "abc");
    }

    #[tokio::test]
    async fn a_record_knows_its_process_and_forgets_it_when_it_ends() {
        let dir = tempfile::tempdir().unwrap();
        let record = Cmd::new("sleep").args(["60"]).detach(&dir.path().join("log")).unwrap();
        assert!(record.is_alive());
        let stranger = ProcessRecord {
            start_ticks: record.start_ticks + 1,
            ..record.clone()
        };
        assert!(!stranger.is_alive(), "same number, other process");
        record.signal(Signal::SIGKILL);
        assert!(record.gone_within(Duration::from_secs(5)).await);
    }

    #[tokio::test]
    async fn a_failing_program_is_quoted() {
        let error = Cmd::new("sh")
            .args(["-c", "echo why >&2; exit 3"])
            .text()
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains("why") && error.contains('3'), "{error}");
    }

    #[tokio::test]
    async fn a_program_that_takes_too_long_is_an_error() {
        let error = Cmd::new("sleep")
            .args(["60"])
            .timeout(Duration::from_millis(50))
            .text()
            .await
            .unwrap_err();
        assert!(error.to_string().contains("did not end"), "{error}");
    }
}
