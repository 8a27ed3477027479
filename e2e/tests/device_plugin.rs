//! The plugin against a kubelet made of its two protocols: a registration server on a unix socket, a client on the plugin's.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::{path::PathBuf, time::Duration};

use e2e::device_plugin::{
    args, decide,
    run::run,
    source,
    v1beta1::{
        AllocateRequest, ContainerAllocateRequest, Device, Empty, ListAndWatchResponse, RegisterRequest,
        device_plugin_client::DevicePluginClient,
        registration_server::{Registration, RegistrationServer},
    },
};
use k8s_openapi::api::core::v1::ConfigMap;
use tempfile::TempDir;
use tokio::{
    net::UnixListener,
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::timeout,
};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{
    Code, Request, Response, Status, Streaming,
    transport::{Channel, Endpoint, Server},
};

const PATIENCE: Duration = Duration::from_secs(60);
const TWO_GPUS: &str = "version: 1\nnode: n1\ngpu 0-1: H200\n";

struct Introductions(mpsc::UnboundedSender<RegisterRequest>);

#[tonic::async_trait]
impl Registration for Introductions {
    async fn register(&self, request: Request<RegisterRequest>) -> Result<Response<Empty>, Status> {
        self.0
            .send(request.into_inner())
            .map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(Empty {}))
    }
}

/// A node's folders, a kubelet that can be restarted, and the plugin beside it.
struct Node {
    root: TempDir,
    tasks: JoinSet<()>,
    introductions: mpsc::UnboundedReceiver<RegisterRequest>,
    introduce: mpsc::UnboundedSender<RegisterRequest>,
    stop_kubelet: Option<oneshot::Sender<()>>,
}

impl Node {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("plugins")).unwrap();
        std::fs::create_dir(root.path().join("gpus")).unwrap();
        let (introduce, introductions) = mpsc::unbounded_channel();
        Self {
            root,
            tasks: JoinSet::new(),
            introductions,
            introduce,
            stop_kubelet: None,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn write_gpus(&self, text: &str) {
        std::fs::write(self.path("gpus/next"), text).unwrap();
        std::fs::rename(self.path("gpus/next"), self.path("gpus/gpus.yaml")).unwrap();
    }

    fn start_plugin(&mut self) {
        let args = args::Run {
            node_name: "n1".into(),
            folder: self.path("gpus"),
            container_folder: "/usr/lib/gonka-simulated".into(),
            plugins_folder: self.path("plugins"),
            resource: "nvidia.com/gpu".into(),
            config_map: None,
            poll_millis: 10,
        };
        self.tasks
            .spawn(async move { run(args, None, std::future::pending()).await.unwrap() });
    }

    /// As the kubelet starts: every socket in its folder goes, its own is made anew.
    fn start_kubelet(&mut self) {
        for entry in std::fs::read_dir(self.path("plugins")).unwrap() {
            std::fs::remove_file(entry.unwrap().path()).unwrap();
        }
        let listener = UnixListener::bind(self.path("plugins/kubelet.sock")).unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let server = Server::builder()
            .add_service(RegistrationServer::new(Introductions(self.introduce.clone())))
            .serve_with_incoming(UnixListenerStream::new(listener));
        self.tasks.spawn(async move {
            tokio::select! { result = server => result.unwrap(), _ = stopped => {} }
        });
        self.stop_kubelet = Some(stop);
    }

    async fn introduction(&mut self) -> RegisterRequest {
        timeout(PATIENCE, self.introductions.recv())
            .await
            .expect("the plugin registers")
            .unwrap()
    }

    async fn plugin(&self, endpoint: &str) -> DevicePluginClient<Channel> {
        let address = format!("unix://{}", self.path("plugins").join(endpoint).display());
        DevicePluginClient::new(Endpoint::from_shared(address).unwrap().connect().await.unwrap())
    }
}

async fn watch(plugin: &mut DevicePluginClient<Channel>) -> Streaming<ListAndWatchResponse> {
    plugin.list_and_watch(Empty {}).await.unwrap().into_inner()
}

/// Reads lists until one is as wanted.
async fn list_until(lists: &mut Streaming<ListAndWatchResponse>, wanted: impl Fn(&[Device]) -> bool) -> Vec<Device> {
    let found = async {
        loop {
            let devices = lists.message().await.unwrap().expect("the stream goes on").devices;
            if wanted(&devices) {
                return devices;
            }
        }
    };
    timeout(PATIENCE, found).await.expect("the list becomes as wanted")
}

fn request(ids: &[String]) -> AllocateRequest {
    AllocateRequest {
        container_requests: vec![ContainerAllocateRequest {
            devices_ids: ids.to_vec(),
        }],
    }
}

#[tokio::test]
async fn registers_lists_and_allocates() {
    let mut node = Node::new();
    node.write_gpus(TWO_GPUS);
    node.start_kubelet();
    node.start_plugin();
    let introduction = node.introduction().await;
    assert_eq!(
        (introduction.version.as_str(), introduction.resource_name.as_str()),
        ("v1beta1", "nvidia.com/gpu")
    );
    let mut plugin = node.plugin(&introduction.endpoint).await;
    assert_eq!(
        plugin.get_device_plugin_options(Empty {}).await.unwrap().into_inner(),
        introduction.options.unwrap()
    );
    let mut lists = watch(&mut plugin).await;
    let devices = lists.message().await.unwrap().expect("a first list").devices;
    assert_eq!(devices.len(), 2, "nothing is registered before the GPUs are known");
    assert!(
        devices
            .iter()
            .all(|device| device.id.starts_with("GPU-") && device.health == "Healthy")
    );

    let second = [devices[1].id.clone()];
    let response = plugin.allocate(request(&second)).await.unwrap().into_inner();
    let container = &response.container_responses[0];
    assert_eq!(container.envs["NVIDIA_VISIBLE_DEVICES"], second[0]);
    assert_eq!(container.mounts[0].host_path, node.path("gpus").display().to_string());

    let unknown = plugin.allocate(request(&["GPU-none".into()])).await.unwrap_err();
    assert_eq!(unknown.code(), Code::FailedPrecondition);
    assert!(unknown.message().contains("GPU-none"));
}

#[tokio::test]
async fn a_lost_gpu_turns_unhealthy_and_is_not_allocated_until_it_is_repaired() {
    let mut node = Node::new();
    node.write_gpus(TWO_GPUS);
    node.start_kubelet();
    node.start_plugin();
    let endpoint = node.introduction().await.endpoint;
    let mut plugin = node.plugin(&endpoint).await;
    let mut lists = watch(&mut plugin).await;
    let devices = list_until(&mut lists, |devices| devices.len() == 2).await;

    node.write_gpus(&format!("{TWO_GPUS}gpu 1:\n  state: lost\n  xid: 79\n"));
    list_until(&mut lists, |devices| {
        devices[1].health == "Unhealthy" && devices[0].health == "Healthy"
    })
    .await;
    let refused = plugin.allocate(request(&[devices[1].id.clone()])).await.unwrap_err();
    assert!(refused.message().contains("lost"));

    node.write_gpus("version: 1\ngpu 0: nonsense\n");
    node.write_gpus(&format!("{TWO_GPUS}gpu 0:\n  state: absent\n"));
    let left = list_until(&mut lists, |devices| devices.len() == 1).await;
    assert_eq!((&left[0].id, left[0].health.as_str()), (&devices[1].id, "Healthy"));
}

#[tokio::test]
async fn registers_again_when_the_kubelet_restarts() {
    let mut node = Node::new();
    node.write_gpus(TWO_GPUS);
    node.start_plugin();
    node.start_kubelet();
    let first = node.introduction().await;
    for _ in 0..3 {
        node.stop_kubelet.take().unwrap().send(()).unwrap();
        node.start_kubelet();
        let again = node.introduction().await;
        assert_eq!(again, first);
        let mut plugin = node.plugin(&again.endpoint).await;
        let mut lists = watch(&mut plugin).await;
        assert_eq!(list_until(&mut lists, |devices| !devices.is_empty()).await.len(), 2);
    }
}

#[tokio::test]
async fn a_config_map_becomes_the_node_s_file_unless_it_is_malformed() {
    let node = Node::new();
    let config_map = |entries: &[(&str, &str)]| ConfigMap {
        data: Some(
            entries
                .iter()
                .map(|&(key, text)| (key.to_owned(), text.to_owned()))
                .collect(),
        ),
        ..Default::default()
    };
    let folder = node.path("gpus");
    let read = || std::fs::read_to_string(node.path("gpus/gpus.yaml")).unwrap();
    let write = async |entries: &[(&str, &str)]| source::write_entry(&config_map(entries), &folder, "n1").await;

    write(&[("n1", "version: 1\ngpu 0: H200\n"), ("n2", "nonsense")])
        .await
        .unwrap();
    assert_eq!(read(), "version: 1\ngpu 0: H200\nnode: \"n1\"\n");
    let malformed = write(&[("n1", "version: 1\ngpu 0: H900\n")]).await.unwrap_err();
    assert_eq!(
        format!("{malformed:#}"),
        "entry n1 of the ConfigMap: line 2: unknown product \"H900\""
    );
    assert_eq!(read(), "version: 1\ngpu 0: H200\nnode: \"n1\"\n");
    write(&[("n2", "version: 1\ngpu 0: H200\n")]).await.unwrap();
    assert_eq!(read(), decide::no_gpus("n1"));

    let library = node.path("library");
    std::fs::write(&library, b"one").unwrap();
    source::install(&library, &folder).await.unwrap();
    std::fs::write(&library, b"two").unwrap();
    source::install(&library, &folder).await.unwrap();
    assert_eq!(std::fs::read(folder.join("libnvidia-ml.so.1")).unwrap(), b"two");
    assert!(
        !std::fs::read_dir(&folder).unwrap().any(|entry| entry
            .unwrap()
            .path()
            .extension()
            .is_some_and(|end| end == "next"))
    );
}
