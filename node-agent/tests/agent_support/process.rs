//! What the tests of the running agent share: the simulated NVML library, the agent as a child process, its doors.

#![expect(clippy::disallowed_methods, reason = "a child process is what is tested")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Longest that anything here may take; the machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Folder with `libnvidia-ml.so.1`, built once per test binary with make and cc.
pub fn library() -> &'static Path {
    static BUILT: OnceLock<tempfile::TempDir> = OnceLock::new();
    BUILT
        .get_or_init(|| {
            let folder = tempfile::tempdir().expect("a temporary folder");
            let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../e2e/simulated-nvml");
            let made = Command::new("make")
                .arg("-C")
                .arg(source)
                .arg(format!("OUT={}", folder.path().display()))
                .output()
                .expect("make can be run: install make and cc");
            assert!(
                made.status.success(),
                "the simulated library does not build: {}",
                String::from_utf8_lossy(&made.stderr)
            );
            folder
        })
        .path()
}

/// A machine of the test's own: a file of GPUs, a state folder.
pub struct Machine {
    pub folder: tempfile::TempDir,
}

impl Machine {
    pub fn new(gpus: &str) -> Self {
        let machine = Self {
            folder: tempfile::tempdir().expect("a temporary folder"),
        };
        machine.set(gpus);
        machine
    }

    /// Replaces the GPUs at once, as a reader must see them.
    pub fn set(&self, gpus: &str) {
        let next = self.folder.path().join("gpus.yaml.new");
        std::fs::write(&next, format!("version: 1\nnode: test\n{gpus}")).expect("the file can be written");
        std::fs::rename(next, self.gpus()).expect("the file can be replaced");
    }

    pub fn gpus(&self) -> PathBuf {
        self.folder.path().join("gpus.yaml")
    }

    pub fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_node-agent"));
        command
            .args(arguments)
            .env("LD_LIBRARY_PATH", library())
            .env("SIMULATED_NVML_FILE", self.gpus())
            .env_remove("NVIDIA_VISIBLE_DEVICES");
        command
    }

    pub fn output(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("node-agent can be run")
    }

    /// Starts `run` with quick intervals and without an API server.
    pub fn start(&self, more: &[&str]) -> Agent {
        let state = self.state();
        let mut command = self.command(&["run", "--no-publish", "--node-name", "test"]);
        command
            .args(["--metrics-addr", "127.0.0.1:0", "--probe-addr", "127.0.0.1:0"])
            .args([
                "--sample-interval",
                "100ms",
                "--slow-interval",
                "200ms",
                "--reopen-interval",
                "300ms",
            ])
            .arg("--state-dir")
            .arg(&state)
            .args(more);
        Agent::start(command)
    }
}

/// A running agent.
pub struct Agent {
    child: Child,
    pub metrics: SocketAddr,
    pub probes: SocketAddr,
}

impl Agent {
    pub fn start(mut command: Command) -> Self {
        let mut child = command
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("node-agent can be started");
        let mut log = BufReader::new(child.stderr.take().expect("its log is a pipe"));
        let mut seen = String::new();
        let (metrics, probes) = loop {
            let mut line = String::new();
            let length = log.read_line(&mut line).expect("its log is text");
            assert!(length > 0, "the agent ended before it listened:\n{seen}");
            seen.push_str(&line);
            if let Some(doors) = doors(&line) {
                break doors;
            }
        };
        // The pipe is emptied so that the agent never waits for a reader.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Self { child, metrics, probes }
    }

    pub fn page(&self) -> String {
        get(self.metrics, "/metrics").1
    }

    pub fn ready(&self) -> (u16, String) {
        get(self.probes, "/readyz")
    }

    /// Waits until a line of the metrics begins with this text and ends with this value.
    pub fn wait_for(&self, series: &str, value: &str) {
        self.wait_until(&format!("{series} {value}"), |page| {
            page.lines()
                .any(|line| line.starts_with(series) && line.ends_with(&format!(" {value}")))
        });
    }

    /// Waits until no line of the metrics begins with this text.
    pub fn wait_gone(&self, series: &str) {
        self.wait_until(&format!("no {series}"), |page| {
            !page.is_empty() && !page.lines().any(|line| line.starts_with(series))
        });
    }

    pub fn wait_until(&self, what: &str, holds: impl Fn(&str) -> bool) {
        let begun = Instant::now();
        loop {
            let page = self.page();
            if holds(&page) {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "waited in vain for {what} in\n{page}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// As the kubelet would: SIGTERM, and it must end by itself.
    pub fn stop(mut self) {
        let terminated = Command::new("kill")
            .arg(self.child.id().to_string())
            .status()
            .expect("kill can be run");
        assert!(terminated.success());
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                assert!(status.success(), "the agent ended with {status}");
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "the agent does not end");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn doors(line: &str) -> Option<(SocketAddr, SocketAddr)> {
    let line: serde_json::Value = serde_json::from_str(line).ok()?;
    let fields = line.get("fields")?;
    let door = |name: &str| fields.get(name)?.as_str()?.parse().ok();
    Some((door("metrics")?, door("probes")?))
}

/// One HTTP request: status and body.
pub fn get(door: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(door).expect("the door is open");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").expect("the request is sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("the answer is text");
    let (head, body) = answer.split_once("\r\n\r\n").expect("an HTTP answer");
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    (status.expect("a status code"), body.to_owned())
}
