//! The contract: every recorded answer is read by our clients where they read it, served here in its shape, and read by
//! them as it is served. What is neither served nor read is a list of its own.

use super::{
    directory, readers,
    recording::{self, Recording},
    releases, shape,
    stage::{self, Stage},
};
use crate::{
    faults::Port,
    release::Evidence,
    views::{admin, dapi},
};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Write as _,
};

/// Known and meant: what the simulator leaves out or adds.
pub const KNOWN: [(&str, &str); 6] = [
    // Nothing on this chain pays inflation, so there are no events to show; nothing is proven by IAVL.
    ("rpc-block_results", ".result.finalize_block_events"),
    ("ws-newblock", ".result.data.value.result_finalize_block.events"),
    ("dapi-epochs-current-participants", ".proof_ops"),
    ("dapi-epochs-current-participants", ".block"),
    // What the real binary was built from.
    (
        "rest-cosmos_base_tendermint_node_info",
        ".application_version.build_deps",
    ),
    // There only while a job is under way.
    ("admin-nodes", "[].state.reconcile_info"),
];

/// Answers that tell our clients nothing, and rightly so.
const NOTHING: [&str; 6] = [
    "rest-active_confirmation_poc_event__145",
    "rest-confirmation_poc_events_2__162",
    "rest-cosmos_upgrade_current_plan__162",
    "rest-last_upgrade_height__162",
    "rest-cosmos_gov_v1_proposals_proposal_status_2__162",
    // Asked for before it was taken.
    "rest-poc_validation_snapshot_180__184",
];

/// Reads a body; says what is wrong, also when a body full of things is read as nothing.
fn read(recording: &Recording, body: &Value, address: &str) -> Option<String> {
    let reader = readers::of(&recording.endpoint)?;
    let name = &recording.name;
    let told = match reader(body, address) {
        Ok(told) => told,
        Err(error) => return Some(format!("{name}: not read: {error}")),
    };
    let is_nothing = reader(&json!({}), address).as_ref() == Ok(&told);
    (is_nothing != NOTHING.contains(&name.as_str())).then(|| format!("{name}: read as {told}"))
}

/// What is wrong with a case.
async fn judge(stage: &Stage, recording: &Recording, met: &mut BTreeSet<usize>) -> Vec<String> {
    let name = &recording.name;
    let mut wrong: Vec<String> = read(recording, &recording.body, stage::COLD).into_iter().collect();
    let (status, served) = stage.serve(recording).await;
    if recording.status.is_some_and(|recorded| recorded != status) {
        wrong.push(format!(
            "{name}: status {status}, recorded {:?}: {served}",
            recording.status
        ));
        return wrong;
    }
    for line in shape::differences(&recording.body, &served) {
        let known = |(of, path): &(&str, &str)| recording.endpoint == *of && line.starts_with(path);
        match KNOWN.iter().position(known) {
            Some(place) => drop(met.insert(place)),
            None => wrong.push(format!("{name}: {line}")),
        }
    }
    if let Some(reader) = readers::of(&recording.endpoint)
        && let Err(error) = reader(&served, &stage.address())
    {
        wrong.push(format!("{name}: not read as served: {error}"));
    }
    wrong
}

/// Says how many cases there were; there may not be fewer without somebody saying so in `tests/contract.txt`.
fn count(observed: usize) {
    let of = |evidence| {
        releases::cases()
            .iter()
            .filter(|(row, _)| row.evidence == evidence)
            .count()
    };
    let (source, prose) = (of(Evidence::Source), of(Evidence::Prose));
    let all = observed + source + prose;
    let line = format!("contract: {all} cases: {observed} observed, {source} source, {prose} prose");
    // Past the harness, which keeps what tests print to itself.
    writeln!(std::io::stderr(), "{line}").expect("stderr takes a line");
    assert_eq!(
        line,
        include_str!("../../tests/contract.txt").trim(),
        "cases came or went"
    );
}

fn by_height(recordings: &[Recording]) -> BTreeMap<i64, Vec<&Recording>> {
    let mut sorted: BTreeMap<i64, Vec<&Recording>> = BTreeMap::new();
    for recording in recordings {
        sorted.entry(recording.height).or_default().push(recording);
    }
    sorted
}

#[tokio::test]
async fn every_recorded_answer_is_read_served_in_its_shape_and_read_as_served() {
    let recordings = recording::all();
    let (mut wrong, mut met) = (Vec::new(), BTreeSet::new());
    for (height, recordings) in by_height(&recordings) {
        let stage = Stage::at(height);
        for recording in recordings {
            wrong.extend(judge(&stage, recording, &mut met).await);
        }
    }
    assert!(wrong.is_empty(), "{} differences:\n{}", wrong.len(), wrong.join("\n"));
    let gone: Vec<_> = (0..KNOWN.len())
        .filter(|place| !met.contains(place))
        .map(|place| KNOWN[place])
        .collect();
    assert!(gone.is_empty(), "no difference any more: {gone:?}");
    count(recordings.len());
    let recorded: BTreeSet<&str> = recordings.iter().map(|recording| recording.endpoint.as_str()).collect();
    let lonely: Vec<&str> = readers::names()
        .into_iter()
        .filter(|name| !recorded.contains(name))
        .collect();
    assert!(lonely.is_empty(), "nothing is recorded of {lonely:?}");
}

/// Endpoints that were recorded elsewhere: the simulator does not serve them and nothing of ours reads them. Whoever
/// serves one here gives it a recording.
#[tokio::test]
async fn what_is_neither_served_nor_read_is_listed() {
    let text = fs::read_to_string(directory().join("neither-served-nor-read.jsonl")).expect("the list");
    let rows: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(rows.len(), 25);
    let stage = Stage::at(162);
    for row in rows {
        let text = |key: &str| row[key].as_str().expect("a text");
        let (status, body) = stage
            .ask(text("door"), text("method"), text("path"), String::new())
            .await;
        let refusal = match text("door") {
            "rest" => (501, json!("Not Implemented"), body["message"].clone()),
            _ => (404, json!("Not Found"), body["error"].clone()),
        };
        assert_eq!((status, refusal.2), (refusal.0, refusal.1), "{row}");
    }
}

#[test]
fn stages_and_phases_are_those_recorded_value_by_value() {
    for recording in recording::all()
        .iter()
        .filter(|recording| recording.endpoint == "dapi-epochs-latest")
    {
        let (name, stage) = (&recording.name, Stage::at(recording.height));
        let served = stage.shared.view(Port::DapiPublic, dapi::epochs_latest);
        for field in [
            "block_height",
            "latest_epoch",
            "phase",
            "epoch_stages",
            "next_epoch_stages",
            "epoch_params",
        ] {
            assert_eq!(served[field], recording.body[field], "{name} {field}");
        }
        let event = |value: &Value| value["active_confirmation_poc_event"]["phase"].clone();
        assert_eq!(event(&served), event(&recording.body), "{name}");
    }
}

/// Those of the recorded epoch; height 32 was recorded while nodes were being registered.
#[test]
fn node_states_are_those_recorded() {
    for recording in recording::all()
        .iter()
        .filter(|recording| recording.endpoint == "admin-nodes" && recording.height > 100)
    {
        let stage = Stage::at(recording.height);
        let served = stage.shared.view(Port::DapiAdmin, |view| admin::nodes(view, 0));
        let states = |body: &Value, id: &str| -> Vec<Value> {
            let rows = body.as_array().expect("a list");
            let row = rows.iter().find(|row| row["node"]["id"] == id).expect("the node");
            let names = [
                "intended_status",
                "current_status",
                "poc_intended_status",
                "poc_current_status",
                "failure_reason",
                "preserved_models",
            ];
            names.map(|field| row["state"][field].clone()).to_vec()
        };
        for id in ["ml-a", "ml-b"] {
            assert_eq!(
                states(&served, id),
                states(&recording.body, id),
                "{} {id}",
                recording.name
            );
        }
    }
}
