//! One slot pod: `slot hold` and what it keeps, in a folder of its own, ended with the test.

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use proto::v1::{
    Empty, ProcState, PromoteRequest, SlotKey, SlotReport, SlotWatchRequest, hold_client::HoldClient,
    slot_client::SlotClient,
};
use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tonic::{Request, transport::Channel};

pub const MODEL: &str = "gonka-fleet/tiny_qwen3_dense";
pub const POD_UID: &str = "pod-a";
pub const DEPLOYMENT_UID: &str = "gmd-1";
/// Longest wait for anything that is to happen.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug)]
pub struct Pod {
    folder: TempDir,
    hold: Child,
    ports: Value,
    http: reqwest::Client,
}

/// An answer of the chain door.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    pub status: u16,
    pub retry_after: Option<String>,
    /// Slot and generation of the assignment that answered.
    pub assignment: [String; 2],
    /// JSON, or text where it is none.
    pub body: Value,
}

impl Pod {
    /// Two replica groups of a capped engine, callbacks three times a second.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// The same with more flags; the last of two wins.
    pub async fn start_with(flags: &[&str]) -> Self {
        Self::start_in(&[], flags).await
    }

    /// The same in another environment.
    pub async fn start_in(environment: &[(&str, &str)], flags: &[&str]) -> Self {
        drop(rustls::crypto::ring::default_provider().install_default());
        let folder = tempfile::tempdir().unwrap();
        let run_dir = folder.path().join("run");
        let usual = [
            ("--pod-uid", POD_UID.to_owned()),
            ("--deployment-uid", DEPLOYMENT_UID.to_owned()),
            ("--bind", "127.0.0.1".to_owned()),
            ("--management-port", "0".to_owned()),
            ("--inference-port", "0".to_owned()),
            ("--operator-port", "0".to_owned()),
            ("--metrics-port", "0".to_owned()),
            ("--journal-dir", folder.path().join("disk").display().to_string()),
            ("--model", MODEL.to_owned()),
            ("--weights", "recipe:tiny_qwen3_dense:public-tiny-v1".to_owned()),
            ("--dtype", "F32".to_owned()),
            ("--replicas", "2".to_owned()),
            ("--max-nonces-per-second", "40".to_owned()),
            ("--callback-interval", "300ms".to_owned()),
            ("--farewell", "100ms".to_owned()),
            ("--trust-jwks", key_path("jwks.json").display().to_string()),
        ];
        let mut command = Command::new(env!("CARGO_BIN_EXE_slot"));
        command
            .args(["--log-format", "text", "hold", "--run-dir"])
            .arg(&run_dir)
            .arg("--");
        for (flag, value) in usual {
            if !flags.contains(&flag) {
                command.args([flag, &value]);
            }
        }
        let hold = command
            .args(flags)
            .envs(environment.iter().copied())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut pod = Self {
            folder,
            hold,
            ports: Value::Null,
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
        };
        pod.learn_ports().await;
        pod
    }

    /// Starts, waits for the engines, and takes slot 0 at generation 1.
    pub async fn promoted() -> Self {
        Self::promoted_with(&[]).await
    }

    pub async fn promoted_with(flags: &[&str]) -> Self {
        let pod = Self::start_with(flags).await;
        pod.wait_until_ready().await;
        pod.promote(promotion(1)).await.unwrap();
        pod
    }

    pub fn run_dir(&self) -> PathBuf {
        self.folder.path().join("run")
    }

    pub fn disk(&self) -> PathBuf {
        self.folder.path().join("disk")
    }

    /// Reads where the doors are, after each start of serve.
    pub async fn learn_ports(&mut self) {
        let path = self.run_dir().join("ports.json");
        let read = || {
            std::fs::read(&path)
                .ok()
                .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        };
        wait("ports.json", async || read().is_some()).await;
        self.ports = read().unwrap();
    }

    fn port(&self, door: &str) -> u16 {
        self.ports[door].as_u64().unwrap() as u16
    }

    /// Address of a door.
    pub fn address(&self, door: &str) -> String {
        format!("127.0.0.1:{}", self.port(door))
    }

    /// A request as DAPI sends it: version prefix as given, no Content-Type.
    pub async fn call(&self, door: &str, method: &str, path: &str, body: Option<&Value>) -> Answer {
        self.try_call(door, method, path, body).await.unwrap()
    }

    pub async fn try_call(
        &self,
        door: &str,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Answer, reqwest::Error> {
        let url = format!("http://{}{path}", self.address(door));
        let mut request = self.http.request(method.parse().unwrap(), url);
        if let Some(body) = body {
            request = request.body(body.to_string());
        }
        let response = request.send().await?;
        let status = response.status().as_u16();
        let header = |name: &str| {
            let value = response.headers().get(name)?;
            Some(value.to_str().unwrap().to_owned())
        };
        let retry_after = header("retry-after");
        let assignment = ["x-gonka-slot", "x-gonka-slot-generation"].map(|name| header(name).unwrap_or_default());
        let text = response.text().await?;
        let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
        Ok(Answer {
            status,
            retry_after,
            assignment,
            body,
        })
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.call("management", "GET", path, None).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.call("management", "POST", path, Some(body)).await
    }

    /// The operator's client.
    pub async fn slot(&self) -> SlotClient<Channel> {
        SlotClient::connect(format!("http://{}", self.address("operator")))
            .await
            .unwrap()
    }

    pub async fn promote(&self, request: PromoteRequest) -> Result<SlotReport, tonic::Status> {
        Ok(self.slot().await.promote(signed(request)).await?.into_inner())
    }

    /// The present report.
    pub async fn report(&self) -> SlotReport {
        let request = signed(SlotWatchRequest { key: Some(key(0, 0)) });
        let mut reports = self.slot().await.watch(request).await.unwrap().into_inner();
        reports.message().await.unwrap().unwrap()
    }

    pub async fn wait_until_ready(&self) {
        wait("the engines", async || {
            let report = self.report().await;
            report.backends_ready == report.backends_expected
        })
        .await;
    }

    /// Processes as hold keeps them.
    pub async fn process(&self, name: &str) -> ProcState {
        let list = self.hold().await.list(Empty {}).await.unwrap().into_inner();
        list.processes.into_iter().find(|process| process.name == name).unwrap()
    }

    pub async fn hold(&self) -> HoldClient<Channel> {
        let socket = self.run_dir().join("hold.sock");
        HoldClient::connect(format!("unix://{}", socket.display()))
            .await
            .unwrap()
    }

    /// Process of hold itself.
    pub fn hold_pid(&self) -> i32 {
        self.hold.id().unwrap() as i32
    }

    /// `kill -9`, and the wait for its successor.
    pub async fn kill(&self, name: &str) -> ProcState {
        let before = self.process(name).await;
        kill(Pid::from_raw(before.pid), Signal::SIGKILL).unwrap();
        wait("the successor", async || {
            let now = self.process(name).await;
            now.starts > before.starts && now.pid != 0
        })
        .await;
        self.process(name).await
    }

    /// `kill -9` of serve; the doors may have moved.
    pub async fn kill_serve(&mut self) {
        std::fs::remove_file(self.run_dir().join("ports.json")).unwrap();
        self.kill("serve").await;
        self.learn_ports().await;
    }

    /// SIGTERM, as the kubelet sends it.
    pub fn terminate(&self) {
        kill(Pid::from_raw(self.hold_pid()), Signal::SIGTERM).unwrap();
    }

    /// SIGTERM and the wait for the end.
    pub async fn end(&mut self) -> std::process::ExitStatus {
        self.terminate();
        tokio::time::timeout(PATIENCE, self.hold.wait()).await.unwrap().unwrap()
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        // Its children are in groups of their own: only hold can end them all.
        let Some(pid) = self.hold.id() else { return };
        if kill(Pid::from_raw(pid as i32), Signal::SIGTERM).is_err() {
            return;
        }
        let deadline = Instant::now() + Duration::from_secs(8);
        while Instant::now() < deadline && matches!(self.hold.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

pub fn key_path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/keys").join(name)
}

/// Waits until something holds.
pub async fn wait(what: &str, holds: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < deadline, "waited for {what} in vain");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub fn key(slot: i32, generation: i64) -> SlotKey {
    SlotKey {
        deployment_uid: DEPLOYMENT_UID.into(),
        slot,
        pod_uid: POD_UID.into(),
        generation,
    }
}

/// Slot 0 at a generation.
pub fn promotion(generation: i64) -> PromoteRequest {
    PromoteRequest {
        key: Some(key(0, generation)),
        node_id: "abc123-tiny-0".into(),
        node_num: 1,
        ..PromoteRequest::default()
    }
}

/// A request with the operator's token.
pub fn signed<T>(message: T) -> Request<T> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let claims = json!({
        "aud": ["fleet-slot"], "sub": "system:serviceaccount:gonka-system:gonka-operator", "exp": now + 600,
    });
    let mut header = Header::new(Algorithm::ES256);
    header.kid = Some("ec-1".into());
    let pem = std::fs::read(key_path("es256.pem")).unwrap();
    let token = encode(&header, &claims, &EncodingKey::from_ec_pem(&pem).unwrap()).unwrap();
    let mut request = Request::new(message);
    request
        .metadata_mut()
        .insert("authorization", format!("Bearer {token}").parse().unwrap());
    request
}
