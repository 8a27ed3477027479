//! The chain readers over real sockets: three endpoints that answer as recorded, one of which lies, stops or lags.

#![expect(clippy::panic, reason = "a helper of tests ends the test with what it saw")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Query, State};
use axum::http::{Response, StatusCode};
use axum::routing::get;
use crds::references::Window;
use crds::sprint_schedule::{Endpoint, EndpointState, Margins, SprintScheduleSpec};
use operator::chain::{Readers, ReadersSettings};
use operator::context::Book;
use operator::facts::Facts;
use operator::metrics::Metrics;
use prometheus::Registry;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{interval, timeout};
use tokio_util::sync::CancellationToken;

const CHAIN: &str = "gonka-testnet-1";
const INFERENCE: &str = "/productscience/inference/inference";
const BLOCK: Duration = Duration::from_millis(100);

/// How an endpoint misbehaves.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Fault {
    #[default]
    None,
    Stopped,
    Forked,
    OtherShape,
}

#[derive(Debug)]
struct Node {
    height: watch::Receiver<i64>,
    fault: Mutex<Fault>,
    subscribers: Mutex<usize>,
}

impl Node {
    fn fault(&self) -> Fault {
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, fault: Fault) {
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = fault;
    }

    fn block(&self, height: i64) -> Value {
        let fork = u8::from(self.fault() == Fault::Forked);
        let seconds = 1_795_345_000_000 + height * 100;
        let time = k8s_openapi::jiff::Timestamp::from_millisecond(seconds).expect("in range");
        json!({
            "block_id": {"hash": format!("{fork:02X}{height:062X}")},
            "block": {"header": {"chain_id": CHAIN, "height": height.to_string(), "time": time.to_string()}},
        })
    }
}

fn recorded(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../e2e/network-simulator/tests/recorded")
        .join(name);
    let text = std::fs::read_to_string(path).expect("a recording");
    serde_json::from_str::<Value>(&text).expect("JSON")["body"].clone()
}

/// Answers carry no content type: nothing may depend on one.
fn answer(node: &Node, value: &Value) -> Response<Body> {
    let mut response = Response::new(Body::from(value.to_string()));
    if node.fault() == Fault::Stopped {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    response
}

async fn status(State(node): State<Arc<Node>>) -> Response<Body> {
    let height = *node.height.borrow();
    let block = node.block(height);
    let value = json!({"result": {
        "node_info": {"network": CHAIN},
        "sync_info": {
            "latest_block_height": height.to_string(),
            "latest_block_hash": block["block_id"]["hash"],
            "latest_block_time": block["block"]["header"]["time"],
            "catching_up": false,
        },
    }});
    answer(&node, &value)
}

async fn block(State(node): State<Arc<Node>>, Query(query): Query<BTreeMap<String, String>>) -> Response<Body> {
    let height = query.get("height").and_then(|height| height.parse().ok()).unwrap_or(1);
    answer(
        &node,
        &json!({"jsonrpc": "2.0", "id": -1, "result": node.block(height)}),
    )
}

async fn epoch_info(State(node): State<Arc<Node>>) -> Response<Body> {
    let height = *node.height.borrow();
    let mut body = recorded("rest-epoch_info__145.json");
    let epoch = (height + 55) / 100;
    body["block_height"] = json!(height.to_string());
    body["latest_epoch"] =
        json!({"index": epoch.to_string(), "poc_start_block_height": (epoch * 100 - 55).to_string()});
    if node.fault() == Fault::OtherShape {
        body["params"]["epoch_params"]["epoch_length"] = json!({"blocks": "100"});
    }
    answer(&node, &body)
}

fn fixed(node: &Node, name: &'static str) -> Response<Body> {
    answer(node, &recorded(name))
}

async fn websocket(State(node): State<Arc<Node>>, upgrade: WebSocketUpgrade) -> Response<Body> {
    upgrade.on_upgrade(move |socket| notices(node, socket))
}

async fn notices(node: Arc<Node>, mut socket: WebSocket) {
    if socket.recv().await.is_none() {
        return;
    }
    *node.subscribers.lock().unwrap_or_else(PoisonError::into_inner) += 1;
    let mut heights = node.height.clone();
    while heights.changed().await.is_ok() && node.fault() != Fault::Stopped {
        let height = *heights.borrow_and_update();
        let event = json!({"result": {"data": {"type": "tendermint/event/NewBlock", "value": node.block(height)}}});
        if socket.send(Message::text(event.to_string())).await.is_err() {
            return;
        }
    }
}

struct Network {
    nodes: Vec<Arc<Node>>,
    spec: SprintScheduleSpec,
    tasks: JoinSet<()>,
}

/// Three endpoints of one chain that begins at `first` and makes ten blocks a second.
async fn network(first: i64) -> Network {
    let (sender, height) = watch::channel(first);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut tick = interval(BLOCK);
        loop {
            tick.tick().await;
            sender.send_modify(|height| *height += 1);
        }
    });
    let mut nodes = Vec::new();
    let mut endpoints = Vec::new();
    for name in ["own", "node-2", "node-3"] {
        let node = Arc::new(Node {
            height: height.clone(),
            fault: Mutex::default(),
            subscribers: Mutex::default(),
        });
        let preserved = async |State(node): State<Arc<Node>>| fixed(&node, "rest-preserved_nodes_snapshot__162.json");
        let last = async |State(node): State<Arc<Node>>| fixed(&node, "rest-last_upgrade_height__162.json");
        let plan = async |State(node): State<Arc<Node>>| fixed(&node, "rest-cosmos_upgrade_current_plan__162.json");
        let app = Router::new()
            .route("/status", get(status))
            .route("/block", get(block))
            .route("/websocket", get(websocket))
            .route(&format!("{INFERENCE}/epoch_info"), get(epoch_info))
            .route(&format!("{INFERENCE}/preserved_nodes_snapshot"), get(preserved))
            .route(&format!("{INFERENCE}/last_upgrade_height"), get(last))
            .route("/cosmos/upgrade/v1beta1/current_plan", get(plan))
            .with_state(Arc::clone(&node));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        tasks.spawn(async move {
            axum::serve(listener, app).await.expect("served");
        });
        nodes.push(node);
        endpoints.push(Endpoint {
            name: name.to_owned(),
            rpc_url: url.clone(),
            rest_url: url,
            ..Endpoint::default()
        });
    }
    Network {
        nodes,
        spec: SprintScheduleSpec {
            chain_id: CHAIN.to_owned(),
            endpoints,
            quorum: 2,
            margins: Margins {
                ready_by_seconds: 1,
                drain_seconds: 0,
                ..Margins::default()
            },
        },
        tasks,
    }
}

struct Running {
    book: Arc<Book>,
    readers: Arc<Readers>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

fn running(cache_dir: PathBuf) -> Running {
    drop(rustls::crypto::ring::default_provider().install_default());
    let book = Arc::new(Book::default());
    let stop = CancellationToken::new();
    let settings = ReadersSettings {
        cache_dir,
        book: Arc::clone(&book),
        metrics: Arc::new(Metrics::new(&Registry::new()).expect("metrics")),
        http: reqwest::Client::new(),
    };
    let (readers, task) = Readers::start(settings, stop.clone());
    let mut tasks = JoinSet::new();
    tasks.spawn(task);
    Running {
        book,
        readers,
        stop,
        tasks,
    }
}

impl Running {
    async fn until(&self, what: &str, holds: impl Fn(&Facts) -> bool) -> Arc<Facts> {
        let waiting = async {
            loop {
                let facts = self.book.facts("test");
                if holds(&facts) {
                    return facts;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let found = timeout(Duration::from_secs(20), waiting).await;
        found.unwrap_or_else(|_| panic!("{what} did not happen: {:?}", self.book.facts("test")))
    }

    async fn end(mut self) {
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            ended.expect("no panic");
        }
    }
}

fn state(facts: &Facts, index: usize) -> Option<EndpointState> {
    facts.endpoints.get(index).map(|endpoint| endpoint.state)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_endpoint_is_named_and_a_lost_quorum_is_unknown() {
    let network = network(181).await;
    let folder = tempfile::tempdir().expect("a folder");
    let running = running(folder.path().to_owned());
    running.readers.set("test", &network.spec);

    let facts = running
        .until("agreement of three", |facts| {
            facts.agreeing == 3 && facts.window != Window::Unknown
        })
        .await;
    assert_eq!((facts.epoch, facts.chain_id.as_str()), (2, CHAIN));
    assert_eq!(
        facts.heights.as_ref().map(|heights| heights.poc_start_height),
        Some(145)
    );
    let listening = network
        .nodes
        .iter()
        .all(|node| *node.subscribers.lock().unwrap_or_else(PoisonError::into_inner) == 1);
    assert!(listening, "each endpoint's notices are listened to");

    network.nodes[0].set(Fault::Forked);
    let facts = running
        .until("the fork", |facts| state(facts, 0) == Some(EndpointState::Disagrees))
        .await;
    assert!(facts.quorum && facts.height > 181, "{facts:?}");

    network.nodes[1].set(Fault::Stopped);
    let facts = running
        .until("the loss of the quorum", |facts| {
            state(facts, 1) == Some(EndpointState::Unreachable) && facts.window == Window::Unknown
        })
        .await;
    assert!(
        facts.problems[0].contains("own (Disagrees), node-2 (Unreachable)"),
        "{:?}",
        facts.problems
    );

    network.nodes[0].set(Fault::None);
    network.nodes[1].set(Fault::OtherShape);
    let facts = running
        .until("recovery with a strange endpoint", |facts| {
            state(facts, 1) == Some(EndpointState::ShapeUnknown) && facts.window != Window::Unknown
        })
        .await;
    assert!(
        facts.endpoints[1].message.contains("epoch_length"),
        "{:?}",
        facts.endpoints
    );
    running.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sprint_is_seen_with_its_seed() {
    let network = network(240).await;
    let folder = tempfile::tempdir().expect("a folder");
    let running = running(folder.path().to_owned());
    running.readers.set("test", &network.spec);
    let facts = running
        .until("the Sprint", |facts| facts.window == Window::Sprint)
        .await;
    let exam = facts.exam.clone().expect("an exam");
    assert_eq!((exam.generation_start_height, exam.validation_start_height), (245, 260));
    assert_eq!(exam.seed, format!("{:064X}", 245));
    running.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_without_the_api_server_reads_on_from_the_cache() {
    let network = network(181).await;
    let folder = tempfile::tempdir().expect("a folder");
    let first = running(folder.path().to_owned());
    first.readers.set("test", &network.spec);
    let before = first.until("facts", |facts| facts.heights.is_some()).await;
    first.end().await;

    // Nobody tells the second process of any schedule.
    let second = running(folder.path().to_owned());
    let after = second
        .until("facts again", |facts| {
            facts.height > before.height && facts.window != Window::Unknown
        })
        .await;
    assert_eq!(after.parameters_hash, before.parameters_hash);
    assert_eq!(second.readers.spec("test"), Some(network.spec.clone()));
    // Deleted and made anew: the second reader waits for the first to end.
    second.readers.remove("test");
    second.readers.set("test", &network.spec);
    let again = second
        .until("facts of the new one", |facts| facts.height > after.height)
        .await;
    assert!(again.quorum);
    second.readers.remove("test");
    second.until("the end of reading", |facts| facts.height == 0).await;
    let file = folder.path().join("schedules/test.json");
    timeout(Duration::from_secs(5), async {
        while file.exists() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("a deleted schedule is not cached");
    second.end().await;
    drop(network.tasks);
}
