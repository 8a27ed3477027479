//! Wrong specs and wrong endpoints: every reason is told, and what runs goes on.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use crds::SprintSchedule;
use crds::conditions::{ConditionStatus, ConditionType, Reason};
use crds::references::Window;
use crds::sprint_schedule::EndpointState;
use e2e::fleet::conditions::{holds, says};
use e2e::fleet::{objects, until};
use e2e::harness::Machine;
use kube::api::Api;
use serde_json::{Value, json};

use crate::quiet::{Kind, versions};
use crate::world::{World, conditions_of_deployment, conditions_of_host, conditions_of_schedule};

/// Time for a reconcile to be seen in status.
const TOLD: Duration = Duration::from_secs(20);
/// How long children are watched while their owner's spec is wrong.
const WATCHED: Duration = Duration::from_secs(4);

/// A deployment, a host and a schedule whose specs pass the schema and are wrong all the same.
pub async fn specs_are_refused_with_every_reason(world: &World<'_>) -> Result<()> {
    let (deployment, host, schedule) = tokio::join!(
        a_wrong_deployment_leaves_its_children_alone(world),
        a_wrong_host_leaves_dapi_alone(world),
        a_wrong_schedule_is_told(world),
    );
    deployment?;
    host?;
    schedule?;
    world.say("wrong specs: Accepted=False with every reason, children untouched");
    Ok(())
}

/// Every part of a text that must be there.
fn tells(text: &str, parts: &[&str]) -> Result<()> {
    for part in parts {
        ensure!(text.contains(part), "{part:?} is missing in {text:?}");
    }
    Ok(())
}

/// What a deployment made: an update of any of them is an act upon a spec nobody accepted.
async fn children(world: &World<'_>) -> Result<BTreeMap<String, String>> {
    let mut all = BTreeMap::new();
    for kind in [Kind::POD, Kind::SERVICE, Kind::SLICE, Kind::BUDGET] {
        all.extend(versions(&world.client, &kind).await?);
    }
    Ok(all)
}

async fn a_wrong_deployment_leaves_its_children_alone(world: &World<'_>) -> Result<()> {
    let right = world.deployment().await?.spec;
    let right = serde_json::to_value(right.pod_overlay).context("an overlay is no JSON")?;
    let before = children(world).await?;
    let wrong = json!({"spec": {
        "engine": {"native": {"scheme": "prefill_v9"}},
        "podOverlay": {
            "labels": {"fleet.gonka.ai/slot": "7"},
            "env": [{"name": "POD_UID", "value": "stolen"}],
            "resources": {"requests": {"cpu": "100m"}},
        },
    }});
    objects::patch(world.cluster, "modeldeployment/tiny", &wrong).await?;
    let told = until("a refused deployment", TOLD, async || {
        let deployment = world.deployment().await?;
        Ok(says(
            conditions_of_deployment(&deployment),
            ConditionType::Accepted,
            ConditionStatus::False,
            Reason::InvalidSpec,
        ))
    })
    .await?;
    tells(
        &told,
        &[
            "prefill_v9 is not known",
            "fleet.gonka.ai/slot is the operator's own",
            "POD_UID is the operator's own",
            "limits.cpu",
        ],
    )?;
    let deployment = world.deployment().await?;
    says(
        conditions_of_deployment(&deployment),
        ConditionType::Stalled,
        ConditionStatus::True,
        Reason::InvalidSpec,
    )
    .map_err(anyhow::Error::msg)?;
    tokio::time::sleep(WATCHED).await;
    let after = children(world).await?;
    ensure!(
        before == after,
        "children of a refused deployment changed: {:?}",
        difference(&before, &after)
    );
    let mut overlay = right;
    // A merge patch keeps what it does not name.
    overlay["labels"] = Value::Null;
    overlay["env"] = Value::Null;
    let back = json!({"spec": {"engine": {"native": {"scheme": "prefill_v2"}}, "podOverlay": overlay}});
    objects::patch(world.cluster, "modeldeployment/tiny", &back).await?;
    until("an accepted deployment", TOLD, async || {
        Ok(holds(
            conditions_of_deployment(&world.deployment().await?),
            ConditionType::Accepted,
        ))
    })
    .await?;
    let after = children(world).await?;
    ensure!(
        before == after,
        "a spec that is as it was changed children: {:?}",
        difference(&before, &after)
    );
    Ok(())
}

fn difference<'a>(before: &'a BTreeMap<String, String>, after: &'a BTreeMap<String, String>) -> Vec<&'a String> {
    let changed = |name: &&String| before.get(*name) != after.get(*name);
    let mut names: Vec<&String> = before.keys().chain(after.keys()).filter(changed).collect();
    names.sort();
    names.dedup();
    names
}

async fn a_wrong_host_leaves_dapi_alone(world: &World<'_>) -> Result<()> {
    let url = |public: &str, external: &str| json!({"spec": {"publicURL": public, "networkNode": {"external": {"publicURL": external}}}});
    let host = world.host().await?.spec;
    let external = host.network_node.external.context("the host has no external node")?;
    let writes = world.writes_of_operator().await?.len();
    objects::patch(
        world.cluster,
        "gonkahost/ours",
        &url("http://", "http://me:secret@10.0.0.1:9000"),
    )
    .await?;
    let told = until("a refused host", TOLD, async || {
        world
            .host_says(ConditionType::Accepted, ConditionStatus::False, Reason::InvalidSpec)
            .await
    })
    .await?;
    tells(
        &told,
        &[
            "spec.publicURL",
            "spec.networkNode.external.publicURL: it carries credentials",
        ],
    )?;
    ensure!(!told.contains("secret"), "a password was repeated: {told}");
    ensure!(
        world.writes_of_operator().await?.len() == writes,
        "a refused host was acted upon"
    );
    objects::patch(
        world.cluster,
        "gonkahost/ours",
        &url(&host.public_url, &external.public_url),
    )
    .await?;
    until("an accepted host", TOLD, async || {
        Ok(holds(conditions_of_host(&world.host().await?), ConditionType::Accepted))
    })
    .await?;
    ensure!(
        world.writes_of_operator().await?.len() == writes,
        "a host that is as it was wrote to DAPI"
    );
    Ok(())
}

fn schedule_object(name: &str, endpoints: &[(&str, String, String)]) -> Value {
    let endpoints: Vec<Value> = endpoints
        .iter()
        .map(|(name, rpc, rest)| json!({"name": name, "rpcURL": rpc, "restURL": rest}))
        .collect();
    json!({
        "apiVersion": "fleet.gonka.ai/v1alpha1", "kind": "SprintSchedule", "metadata": {"name": name},
        "spec": {"chainID": "gonka-testnet-1", "quorum": 2, "endpoints": endpoints},
    })
}

async fn forget(world: &World<'_>, name: &str) -> Result<()> {
    world
        .cluster
        .kubectl(&["delete", "sprintschedule", name])
        .await
        .map(drop)
}

async fn a_wrong_schedule_is_told(world: &World<'_>) -> Result<()> {
    let same = "http://10.0.0.1:26657".to_owned();
    let twins = schedule_object(
        "twins",
        &[
            ("one", same.clone(), "http://10.0.0.1:1317".to_owned()),
            ("two", same, "http://me:secret@10.0.0.1:1317".to_owned()),
        ],
    );
    objects::apply(world.cluster, &[twins]).await?;
    let told = until("a refused schedule", TOLD, async || {
        let schedule: SprintSchedule = Api::all(world.client.clone()).get("twins").await?;
        Ok(says(
            conditions_of_schedule(&schedule),
            ConditionType::Accepted,
            ConditionStatus::False,
            Reason::InvalidSpec,
        ))
    })
    .await?;
    tells(&told, &["one node is one witness", "must not carry credentials"])?;
    forget(world, "twins").await
}

/// Endpoints that do not answer, that contradict the others, or that serve another chain: each by its name, and `Unknown`
/// once fewer are left than the quorum.
pub async fn endpoints_that_fail_are_named(world: &World<'_>) -> Result<()> {
    let (unreachable, disagreeing) = tokio::join!(
        unreachable_endpoints_are_unknown(world),
        disagreeing_endpoints_are_unknown(world)
    );
    unreachable?;
    disagreeing?;
    world.say("endpoints: unreachable, disagreeing and foreign ones named, Unknown without a quorum");
    Ok(())
}

fn states(schedule: &SprintSchedule) -> BTreeMap<String, EndpointState> {
    let endpoints = schedule.status.iter().flat_map(|status| &status.endpoints);
    endpoints
        .map(|endpoint| (endpoint.name.clone(), endpoint.state))
        .collect()
}

/// A schedule without a quorum: nothing is permitted, the endpoints to blame are named in status, and conditions say why.
fn blind(
    schedule: &SprintSchedule,
    blamed: &[(&str, EndpointState)],
    reasons: &[Reason],
) -> std::result::Result<(), String> {
    let found = states(schedule);
    if let Some((name, state)) = blamed.iter().find(|(name, state)| found.get(*name) != Some(state)) {
        return Err(format!("{name} is not {state}: {found:?}"));
    }
    let window = schedule.status.as_ref().map(|status| status.window);
    if window != Some(Window::Unknown) {
        return Err(format!("the window is {window:?}"));
    }
    let conditions = conditions_of_schedule(schedule);
    let disagree = |reason: &Reason| {
        says(
            conditions,
            ConditionType::EndpointsAgree,
            ConditionStatus::False,
            *reason,
        )
        .is_ok()
    };
    if !reasons.iter().any(disagree) {
        return Err(format!("EndpointsAgree has none of {reasons:?}: {conditions:?}"));
    }
    says(
        conditions,
        ConditionType::Ready,
        ConditionStatus::False,
        Reason::ChainUnknown,
    )
    .map(drop)
}

async fn unreachable_endpoints_are_unknown(world: &World<'_>) -> Result<()> {
    let address = world.cluster.options()?.id.address(Machine::Network);
    let closed = |port: u16| format!("http://{address}:{port}");
    let names = ["gone-1", "gone-2"];
    let nowhere = schedule_object(
        "nowhere",
        &[(names[0], closed(1), closed(2)), (names[1], closed(3), closed(4))],
    );
    objects::apply(world.cluster, &[nowhere]).await?;
    let blamed = names.map(|name| (name, EndpointState::Unreachable));
    until("a schedule without endpoints", TOLD, async || {
        let schedule: SprintSchedule = Api::all(world.client.clone()).get("nowhere").await?;
        Ok(blind(&schedule, &blamed, &[Reason::QuorumLost]))
    })
    .await?;
    forget(world, "nowhere").await
}

async fn disagreeing_endpoints_are_unknown(world: &World<'_>) -> Result<()> {
    let fault = async |fault: Value| world.control.fault(&fault).await;
    fault(json!({"verb": "fork", "target": "rpc/3"})).await?;
    until("rpc-3 to be found out", TOLD, async || {
        let schedule = world.schedule().await?;
        let told = holds(conditions_of_schedule(&schedule), ConditionType::EndpointsAgree);
        Ok(match states(&schedule).get("rpc-3") {
            Some(EndpointState::Disagrees) if told.as_ref().is_ok_and(|told| told.contains("rpc-3")) => Ok(()),
            other => Err(format!("rpc-3 is {other:?}: {told:?}")),
        })
    })
    .await?;
    // In the answer about the node and in the header of every block.
    for field in ["network", "chain_id"] {
        fault(json!({"verb": "lie", "target": "rpc/2", "field": field, "value": "another-chain"})).await?;
    }
    let blamed = [
        ("rpc-2", EndpointState::WrongChain),
        ("rpc-3", EndpointState::Disagrees),
    ];
    until("a schedule without a quorum", TOLD, async || {
        let reasons = [Reason::EndpointsDisagree, Reason::WrongChainID];
        Ok(blind(&world.schedule().await?, &blamed, &reasons))
    })
    .await?;
    for target in ["rpc/2", "rpc/3"] {
        fault(json!({"verb": "start", "target": target})).await?;
    }
    until("all endpoints up again", Duration::from_secs(40), async || {
        let schedule = world.schedule().await?;
        let found = states(&schedule);
        Ok(if found.values().all(|state| *state == EndpointState::Up) {
            holds(conditions_of_schedule(&schedule), ConditionType::Ready)
        } else {
            Err(format!("{found:?}"))
        })
    })
    .await?;
    Ok(())
}
