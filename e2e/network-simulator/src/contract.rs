//! Whether this network is the recorded one, and whether our clients understand both.
//!
//! | module | what |
//! |---|---|
//! | [`sequence`] | one recorded epoch with a Sprint and a confirmation, request by request |
//! | [`recording`] | the recorded answers, one file each |
//! | [`stage`] | the recorded network's twin at a height, answering |
//! | [`shape`] | what differs between two answers in keys and kinds of values |
//! | [`readers`] | which recorded answer our clients read with what |
//! | [`releases`] | neighbouring releases: their rows, what they add that nobody knows, what is no shape at all |
//! | [`suite`] | every case: read, served in shape, read as served |

mod readers;
mod recording;
mod releases;
mod sequence;
mod shape;
mod stage;
mod suite;

use crate::{
    dapi::{job, nodes},
    scenario::Preserve,
    testing::{self, World},
};
use serde_json::json;
use std::{path::PathBuf, sync::Arc};

const MODEL: &str = "Qwen/Qwen2.5-7B-Instruct";

/// The network of the recordings: its epochs, one host, a confirmation announced at 180.
const SCENARIO: &str = "
version: 1
network: {blockMillis: 1250, epochs: 9, parameters: {epoch_length: 100, epoch_shift: 55}}
models:
  - id: Qwen/Qwen2.5-7B-Instruct
    recipe: tiny_qwen3_dense
    seqLen: 1024
    statTest: {dist_milli: 400, p_mismatch_bp: 1000}
    weightScaleFactor: 0.3024
hosts: [{name: ours, driver: external, publicKey: 03c8286877441fe7a263dc848dea1aa364c1d399f187435e7b35a2e94bf52e67bd}]
exams: {preserve: false}
dapi: {commitIntervalMillis: 1250, idlePollMillis: 60000, publicUrl: 'http://host-a.gonka.test:9000'}
steps: [{at: height 179, do: triggerConfirmation}]
";

/// Where the recordings are.
fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/recorded")
}

/// The recorded network's twin before its first block: two nodes that serve their model, and a third that was
/// registered and deleted before, as the recorded `node_count` of 4 tells.
fn twin() -> World {
    let mut net = testing::network_of(SCENARIO);
    for (id, port) in [("ml-a", 15001), ("ml-b", 15002), ("ml-c", 15003)] {
        let body = json!({
            "id": id, "host": "127.0.0.1", "inference_port": port, "poc_port": port + 3080, "max_concurrent": 500,
            "models": {MODEL: {"args": ["--max-model-len", "32768"]}},
            "hardware": [{"type": "NVIDIA H200 | 140GB", "count": 2}],
        });
        nodes::upsert(&mut net, body.to_string().as_bytes());
    }
    nodes::delete(&mut net, "ml-c");
    let mut world = World::new(net);
    world.model = MODEL.to_owned();
    for id in ["ml-a", "ml-b"] {
        let effects = job::begin(world.net(), id, job::Purpose::ToInference);
        world.effects(effects);
    }
    world
}

/// When ml-b's status had last changed: the recorded epoch begins in the middle of DAPI's life, sixty seconds later with
/// the look that silence earns.
const SILENT_SINCE: i64 = 140 - 48;

/// Brings the twin to a height, prepared as the recorded network was: one node long silent, the same one left on
/// inference in the confirmation. By which draw the chain chose it is its own matter.
fn advance(world: &mut World, to: i64) {
    let from = world.net().height();
    for next in from + 1..=to {
        world.run_to(next);
        let net = world.net();
        if next == SILENT_SINCE {
            let now_ms = net.now_ms;
            net.dapi.node_mut("ml-b").expect("ml-b").status_ms = now_ms;
        }
        if next == 179 {
            Arc::make_mut(&mut net.scenario).exams.preserve = Preserve::Ids(vec!["ml-b".to_owned()]);
        }
    }
}
