//! Objects that are deleted and made again under the same name, while nobody looks or while the watch says nothing.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use crds::{GonkaHost, ModelDeployment, labels};
use e2e::fault_proxy::{Lag, Plan, Stale, Trouble, Verb};
use e2e::fleet::until;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use serde_json::{Value, json};

use crate::fleet::{self, DEPLOYMENT, HOST, SPARES, ours};
use crate::history::Watch;
use crate::program::Operator;
use crate::state::Seen;
use crate::stories::{self, Undisturbed, rest};
use crate::table::Tried;
use crate::world::World;

/// Long enough for several passes.
const PASSES: Duration = Duration::from_secs(3);

/// All of it.
pub async fn all(world: &World<'_>, undisturbed: &Undisturbed) -> Result<Vec<Tried>> {
    let mut tried = Vec::new();
    for (what, came) in [
        (
            "a ModelDeployment is deleted and made again while no operator runs",
            deployment_while_nobody_looks(world, undisturbed).await,
        ),
        (
            "a ModelDeployment is deleted and made again while its watch says nothing",
            deployment_unseen(world, undisturbed).await,
        ),
        (
            "a GonkaHost is deleted and made again while no operator runs",
            host_while_nobody_looks(world, undisturbed).await,
        ),
        (
            "somebody's pod takes the name of a spare that is to be deleted",
            pod_unseen(world, undisturbed).await,
        ),
    ] {
        let came = came.context(what)?;
        world.say(&format!("{what}: {came}"));
        tried.push((what.to_owned(), came));
    }
    Ok(tried)
}

async fn at_rest(world: &World<'_>, undisturbed: &Undisturbed) -> Result<(Operator, Seen)> {
    stories::begin(world).await?;
    let mut operator = world.program.start(world.cluster)?;
    let seen = rest(world, &mut operator, Some(&undisturbed.lines)).await?;
    Ok((operator, seen))
}

/// Deletes an object and makes it again at once; children are left to the collector, as `kubectl delete` does.
pub async fn make_again(world: &World<'_>, kind: &str) -> Result<()> {
    let parameters = DeleteParams::background();
    match kind {
        "GonkaHost" => ours::<GonkaHost>(&world.client)
            .delete(HOST, &parameters)
            .await
            .map(drop),
        _ => ours::<ModelDeployment>(&world.client)
            .delete(DEPLOYMENT, &parameters)
            .await
            .map(drop),
    }
    .with_context(|| format!("the {kind} was not deleted"))?;
    let object = fleet::wanted(world)?.into_iter().find(|object| object["kind"] == kind);
    fleet::apply(world, &object.with_context(|| format!("no {kind}"))?).await
}

async fn deployment_while_nobody_looks(world: &World<'_>, undisturbed: &Undisturbed) -> Result<String> {
    let (operator, before) = at_rest(world, undisturbed).await?;
    operator.kill().await?;
    make_again(world, "ModelDeployment").await?;
    let watch = Watch::begin(&world.client);
    let mut operator = world.program.start(world.cluster)?;
    let after = rest(world, &mut operator, Some(&undisturbed.lines)).await?;
    let moved = watch.judge()?;
    ensure!(moved == 0, "slots moved {moved} times");
    are_taken_over(&before, &after, 0)?;
    operator.kill().await?;
    Ok("its pods, slots, Services and DAPI nodes are the new one's as they are; no slot moves".to_owned())
}

/// All pods of before are there, but for so many, and hold the slots they held. That the new deployment owns them is looked at
/// wherever the fleet is at rest.
fn are_taken_over(before: &Seen, after: &Seen, gone: usize) -> Result<()> {
    let uids = |seen: &Seen| -> BTreeSet<String> { seen.pods.iter().filter_map(kube::ResourceExt::uid).collect() };
    let lost: Vec<String> = uids(before).difference(&uids(after)).cloned().collect();
    ensure!(lost.len() == gone, "pods of the old deployment are gone: {lost:?}");
    ensure!(
        before.holders() == after.holders() && before.generations() == after.generations(),
        "slots moved: {:?}, {:?}",
        before.generations(),
        after.generations()
    );
    Ok(())
}

async fn deployment_unseen(world: &World<'_>, undisturbed: &Undisturbed) -> Result<String> {
    let (mut operator, before) = at_rest(world, undisturbed).await?;
    world
        .gate
        .set(Plan::troubles([Trouble::watch("modeldeployments", Lag::Stalled)]));
    make_again(world, "ModelDeployment").await?;
    let old = before.deployment_uid().context("there was a deployment")?;
    // A pod of the old one goes, which is a reason to make one.
    let spare = pods(world, labels::SLOT_SPARE).await?;
    let spare = spare.first().context("no spare")?;
    ours::<Pod>(&world.client)
        .delete(&spare.name_any(), &DeleteParams::default().grace_period(0))
        .await
        .context("the spare did not go")?;
    tokio::time::sleep(PASSES).await;
    let made = world.gate.writes().into_iter().filter(|written| {
        written.call.verb == Verb::Create
            && written.call.resource == "pods"
            && written.body["metadata"]["ownerReferences"][0]["uid"] == old.as_str()
    });
    let made = made.count();
    let deployment = ours::<ModelDeployment>(&world.client).get(DEPLOYMENT).await?;
    ensure!(
        deployment.status.is_none(),
        "what is known of the old deployment was written into the new one"
    );
    ensure!(made == 0, "{made} pods were made for a deployment that is gone");
    world.gate.set(Plan::default());
    let after = rest(world, &mut operator, Some(&undisturbed.lines)).await?;
    // The spare that was taken away is another one now.
    are_taken_over(&before, &after, 1)?;
    operator.kill().await?;
    Ok("nothing is made for the old one and nothing written into the new one; then as above".to_owned())
}

async fn host_while_nobody_looks(world: &World<'_>, undisturbed: &Undisturbed) -> Result<String> {
    let (operator, before) = at_rest(world, undisturbed).await?;
    operator.kill().await?;
    let requests = stories::requests(world).await?.len();
    make_again(world, "GonkaHost").await?;
    world.gate.set(Plan::default());
    let watch = Watch::begin(&world.client);
    let mut operator = world.program.start(world.cluster)?;
    let after = rest(world, &mut operator, Some(&undisturbed.lines)).await?;
    // The UID of the host is in the pods' command: they are rolled out, through the spare, each slot once.
    let moved = watch.judge()?;
    ensure!(moved <= before.holders().len(), "slots moved {moved} times");
    for (slot, generation) in before.generations() {
        let now = after.generations().get(&slot).copied().unwrap_or_default();
        ensure!(now >= generation, "{slot} went from generation {generation} to {now}");
    }
    let asked: Vec<Value> = stories::requests(world).await?.split_off(requests);
    let written: Vec<&Value> = asked
        .iter()
        .filter(|request| {
            request["path"]
                .as_str()
                .is_some_and(|path| path.starts_with("/admin/v1/nodes"))
        })
        .filter(|request| request["method"] == "POST" || request["method"] == "DELETE")
        .collect();
    ensure!(written.is_empty(), "DAPI's nodes were written: {written:?}");
    operator.kill().await?;
    Ok(format!(
        "its nodes are found in DAPI, none is made again or deleted; pods, which name the host's UID, are rolled out through the spare: {moved} slots moved, each once"
    ))
}

async fn pod_unseen(world: &World<'_>, undisturbed: &Undisturbed) -> Result<String> {
    let (operator, _) = at_rest(world, undisturbed).await?;
    let spare = pods(world, labels::SLOT_SPARE).await?;
    let spare = spare.first().context("no spare")?.name_any();
    world.api.remember().await?;
    world.gate.set(Plan::troubles([Trouble::old(
        "pods",
        Stale::Every,
        Duration::from_secs(60),
    )]));
    operator.kill().await?;
    let all: Api<Pod> = ours(&world.client);
    all.delete(&spare, &DeleteParams::default().grace_period(0)).await?;
    until("the spare's end", Duration::from_secs(20), async || {
        Ok(match all.get_opt(&spare).await? {
            None => Ok(()),
            Some(_) => Err("it is there".to_owned()),
        })
    })
    .await?;
    // Nobody's: no owner, no label, on no machine.
    let namesake: Pod = serde_json::from_value(json!({
        "metadata": {"name": spare, "namespace": "gonka"},
        "spec": {"nodeSelector": {"nowhere": "here"}, "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{"name": "a", "image": "a",
                "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}}]},
    }))?;
    let made = all
        .create(&PostParams::default(), &namesake)
        .await
        .context("no namesake")?;
    let mut operator = world.program.start(world.cluster)?;
    fleet::set_spares(world, 0).await?;
    let refused = until("a deletion of the spare", Duration::from_secs(20), async || {
        operator.check()?;
        let writes = world.gate.writes();
        let sent = writes
            .iter()
            .find(|written| written.call.verb == Verb::Delete && written.call.name == spare && written.status != 0);
        Ok(sent.map(|written| written.status).ok_or_else(|| "none yet".to_owned()))
    })
    .await?;
    ensure!(refused == 409, "the deletion of a namesake was answered with {refused}");
    let there = all.get(&spare).await.context("the namesake is gone")?;
    ensure!(there.metadata.uid == made.metadata.uid, "the namesake was made again");
    ensure!(there.metadata.deletion_timestamp.is_none(), "the namesake is leaving");
    ensure!(
        there.labels().keys().all(|key| !key.starts_with("fleet.gonka.ai/")),
        "the namesake was labelled: {:?}",
        there.labels()
    );
    all.delete(&spare, &DeleteParams::default().grace_period(0)).await?;
    fleet::set_spares(world, SPARES).await?;
    world.gate.set(Plan::default());
    operator.kill().await?;
    let mut operator = world.program.start(world.cluster)?;
    rest(world, &mut operator, Some(&undisturbed.lines)).await?;
    operator.kill().await?;
    Ok("its deletion is refused with 409 by the UID it names; the other pod stays as it is".to_owned())
}

async fn pods(world: &World<'_>, slot: &str) -> Result<Vec<Pod>> {
    let selector = format!("{}={slot}", labels::SLOT);
    let parameters = ListParams::default().labels(&selector);
    let all = ours::<Pod>(&world.client).list(&parameters).await;
    Ok(all.context("pods")?.items)
}
