//! Worlds for tests: a small network, and a virtual clock that runs it without sockets.

use crate::{
    dapi::nodes,
    event::{Answer, Call, Effect, Event, Origin, Work},
    network::Network,
    scenario,
    step::step,
};
use kernels::scheme::Artifact;
use serde_json::json;
use std::{collections::BTreeMap, sync::Arc};

pub const MODEL: &str = "gonka-fleet/tiny_qwen3_dense";

/// A scenario with one external host and three rivals, epochs of 84 blocks, the first Sprint at 61.
pub const SCENARIO: &str = "
version: 1
network: {blockMillis: 1000, epochs: 2, parameters: {epoch_length: 84, epoch_shift: 23, validation_sample_size: 8}}
models: [{id: gonka-fleet/tiny_qwen3_dense, recipe: tiny_qwen3_dense}]
hosts:
  - {name: ours, driver: external}
  - {name: rival, count: 3, driver: simulated, nodes: 2, noncesPerSecond: 5}
exams: {preserve: false}
";

pub fn network() -> Network {
    network_of(SCENARIO)
}

pub fn network_of(scenario: &str) -> Network {
    let scenario = scenario::parse(scenario).unwrap_or_else(|invalid| panic!("{invalid}"));
    let mut net = Network::new(Arc::new(scenario), 1_795_000_000_000);
    net.dapi.callback_base = "http://127.0.0.1:9100".to_owned();
    net
}

/// Registers a node by the admin API's rules.
pub fn register(net: &mut Network, id: &str) -> Vec<Effect> {
    let port = 5000 + 10 * net.dapi.highest_num;
    let body = json!({
        "id": id, "host": "10.0.0.9", "inference_port": port, "poc_port": port + 1, "max_concurrent": 500,
        "models": {MODEL: {"args": []}}, "hardware": [{"type": "NVIDIA H200 | 140GB", "count": 8}],
    });
    let (reply, effects) = nodes::upsert(net, body.to_string().as_bytes());
    assert_eq!(reply.status, 200, "{reply:?}");
    effects
}

/// Makes blocks up to a height; effects are dropped.
pub fn run_to(net: &mut Network, height: i64) {
    while net.height() < height {
        let now_ms = net.now_ms + net.scenario.network.block_millis;
        step(net, now_ms, Event::Block);
    }
}

/// A request of the DAPI to an ML node.
#[derive(Debug, Clone, PartialEq)]
pub struct Sent {
    pub height: i64,
    pub node: String,
    /// On the inference port; else on that of management.
    pub inference: bool,
    pub method: &'static str,
    pub path: String,
    pub body: Option<serde_json::Value>,
}

/// An ML node that is always well: generates ten nonces per commit interval and finds no fraud.
#[derive(Debug, Default)]
pub struct World {
    pub net: Option<Network>,
    queue: BTreeMap<(u64, u64), Event>,
    sequence: u64,
    /// Requests to ML nodes as `height method path`.
    pub calls: Vec<(i64, String, Option<String>)>,
    /// The same, with whom they went to.
    pub sent: Vec<Sent>,
    /// Answers init requests of these nodes so.
    pub init_status: BTreeMap<String, u16>,
    generating: BTreeMap<String, (i64, u32, u32, i64)>,
    /// The model the nodes serve.
    pub model: String,
}

impl World {
    pub fn new(net: Network) -> Self {
        let first = net.now_ms + net.scenario.network.block_millis;
        let mut world = Self {
            net: Some(net),
            model: MODEL.to_owned(),
            ..Self::default()
        };
        world.at(first, Event::Block);
        world
    }

    pub fn net(&mut self) -> &mut Network {
        self.net.as_mut().expect("a world has a network")
    }

    pub fn at(&mut self, ms: u64, event: Event) {
        self.sequence += 1;
        self.queue.insert((ms, self.sequence), event);
    }

    pub fn effects(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            self.effect(effect);
        }
    }

    /// Runs until the chain has this height and what its newest block set off is done.
    pub fn run_to(&mut self, height: i64) {
        while self.net().height() < height {
            self.next();
        }
        let until = self.net().now_ms + self.net().scenario.network.block_millis / 2;
        while self.queue.first_key_value().is_some_and(|((ms, _), _)| *ms < until) {
            self.next();
        }
    }

    fn next(&mut self) {
        let ((ms, _), event) = self.queue.pop_first().expect("the clock always has a next block");
        let is_block = matches!(event, Event::Block);
        let effects = step(self.net(), ms, event);
        self.effects(effects);
        if is_block {
            let next = ms + self.net().scenario.network.block_millis;
            self.deliver();
            self.at(next, Event::Block);
        }
    }

    fn effect(&mut self, effect: Effect) {
        let now = self.net().now_ms;
        match effect {
            Effect::After { ms, timer } => self.at(now + ms, Event::Timer(timer)),
            Effect::Call(call) => {
                self.note(&call);
                let answer = self.answer(&call.origin, &call.path, call.body.as_deref());
                self.at(
                    now + 2,
                    Event::Reply {
                        to: call.origin,
                        result: Ok(answer),
                    },
                );
            }
            Effect::Compute(Work::Generate {
                exam,
                host,
                node,
                enumeration,
                places,
                ..
            }) => {
                let artifacts = places
                    .filter_map(|place| enumeration.nonce(place))
                    .map(|nonce| Artifact {
                        nonce,
                        vector: vec![1; 24],
                    })
                    .collect();
                self.at(
                    now + 5,
                    Event::Produced {
                        exam,
                        host,
                        node,
                        artifacts,
                    },
                );
            }
            Effect::Compute(Work::Judge {
                exam,
                host,
                model,
                sample,
                ..
            }) => {
                let total = sample.len() as u32;
                self.at(
                    now + 5,
                    Event::Judged {
                        exam,
                        host,
                        model,
                        total,
                        fraud: false,
                    },
                );
            }
            Effect::Compute(Work::Count { .. })
            | Effect::Listen { .. }
            | Effect::Save
            | Effect::Survey { .. }
            | Effect::Node(_)
            | Effect::NodeUndo(_)
            | Effect::Finish => {}
        }
    }

    fn note(&mut self, call: &Call) {
        let height = self.net().height();
        self.calls
            .push((height, format!("{} {}", call.method, call.path), call.body.clone()));
        let mut known = self.net().dapi.nodes.iter().map(|node| &node.spec);
        let (node, inference) = known
            .find_map(|spec| {
                let here = spec.host == call.host && [spec.inference_port, spec.poc_port].contains(&call.port);
                here.then(|| (spec.id.clone(), spec.inference_port == call.port))
            })
            .expect("requests go to registered nodes");
        self.sent.push(Sent {
            height,
            node,
            inference,
            method: call.method,
            path: call.path.clone(),
            body: call
                .body
                .as_ref()
                .map(|text| serde_json::from_str(text).expect("bodies are JSON")),
        });
    }

    fn answer(&mut self, origin: &Origin, path: &str, body: Option<&str>) -> Answer {
        let json = |value: serde_json::Value| Answer::bytes(200, value.to_string());
        let body: serde_json::Value = body
            .and_then(|text| serde_json::from_str(text).ok())
            .unwrap_or_default();
        if path.ends_with("/state") {
            json(json!({"state": "INFERENCE", "version": "3.0.16", "poc_validation_inference": true}))
        } else if path.ends_with("/models") {
            json(json!({"data": [{"id": self.model}]}))
        } else if path.ends_with("/init/generate") {
            let Origin::Job { node_id, .. } = origin else {
                panic!("init is a job")
            };
            let status = self.init_status.get(node_id).copied().unwrap_or(200);
            if status == 200 {
                let number = |name: &str| body[name].as_i64().expect("a number");
                let run = (
                    number("block_height"),
                    number("node_id") as u32,
                    number("node_count") as u32,
                    0,
                );
                self.generating.insert(node_id.clone(), run);
            }
            Answer::bytes(status, b"{}")
        } else if path.ends_with("/pow/stop") {
            if let Origin::Job { node_id, .. } = origin {
                self.generating.remove(node_id);
            }
            json(json!({"status": "OK"}))
        } else if path.ends_with("/pow/generate") {
            let verdict = json!({
                "block_height": body["block_height"], "public_key": body["public_key"], "node_id": body["node_id"],
                "n_total": body["nonces"].as_array().map_or(0, Vec::len), "fraud_detected": false,
            });
            let model = self.model.clone();
            crate::dapi::callbacks::validated(self.net(), &model, verdict.to_string().as_bytes());
            json(json!({"status": "queued"}))
        } else {
            let Origin::Job { node_id, .. } = origin else {
                panic!("status is asked by a job")
            };
            let generating = self.generating.contains_key(node_id);
            json(json!({"status": if generating { "GENERATING" } else { "IDLE" }}))
        }
    }

    /// Every generating node posts ten artifacts.
    fn deliver(&mut self) {
        let runs: Vec<(String, (i64, u32, u32, i64))> =
            self.generating.iter().map(|(id, run)| (id.clone(), *run)).collect();
        for (id, (height, num, count, index)) in runs {
            let artifacts: Vec<serde_json::Value> = (index..index + 10)
                .map(|at| json!({"nonce": i64::from(num) + at * i64::from(count), "vector_b64": "5jCatAY0FTU7s7m2pjfhrkg0g6VqNnwx"}))
                .collect();
            let body = json!({"block_height": height, "node_id": num, "artifacts": artifacts});
            let model = self.model.clone();
            crate::dapi::callbacks::generated(self.net(), &model, body.to_string().as_bytes());
            self.generating.insert(id, (height, num, count, index + 10));
        }
    }
}
