//! A change of the pods' template on real kubelets: one slot until an exam has judged it, the rest after it, nothing in an exam; one
//! that is plainly slower goes back by itself; and a spare that takes over just before a Sprint.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use crds::ModelDeployment;
use crds::conditions::ConditionType;
use crds::labels::{BREAK_GLASS, REVISION, SLOT, SLOT_SPARE};
use crds::model_deployment::RolloutState;
use e2e::fleet::conditions::holds;
use e2e::fleet::{objects, until};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use serde_json::json;
use tokio::time::Instant;

use crate::world::{SLOTS, World};

/// Two epochs and what a busy machine needs beside them.
const LIMIT: Duration = Duration::from_secs(360);
/// Blocks before a Sprint, of a second each.
const BLOCKS_BEFORE: i64 = 20;

/// Revision of the pod that holds each slot.
type Held = BTreeMap<String, String>;

/// What was seen on the way.
#[derive(Debug, Default)]
struct Seen {
    /// By the exam's first height: how many slots had the new revision.
    exams: BTreeMap<i64, usize>,
    states: Vec<RolloutState>,
    canary_exam: Option<String>,
}

/// A slot gets the new revision and stands an exam, then the other does, and no exam sees a slot move. The exams that judged it,
/// whose records come later.
pub async fn a_rollout_goes_through_an_epoch(world: &World<'_>) -> Result<Vec<i64>> {
    let before = revision(world).await?;
    cap(world, 6).await?;
    let seen = follow(world, &before).await?;
    world.say(&format!("rolled out: {seen:?}"));
    ensure!(
        seen.exams.values().any(|slots| *slots == 1),
        "no exam judged one slot alone: {seen:?}"
    );
    ensure!(seen.canary_exam.is_some(), "no record says that the canary passed");
    world.is_ready().await?;
    Ok(seen
        .exams
        .into_iter()
        .filter(|(_, slots)| *slots > 0)
        .map(|(start, _)| start)
        .collect())
}

/// The slots' pods by the new revision, watched until all have it.
async fn follow(world: &World<'_>, before: &str) -> Result<Seen> {
    let started = Instant::now();
    let mut seen = Seen::default();
    let mut exam: Option<(i64, Held)> = None;
    loop {
        ensure!(started.elapsed() < LIMIT, "the rollout does not end: {seen:?}");
        let held = held(world).await?;
        let state = world.control.state().await?;
        let start = state["poc_start"].as_i64().context("no start")?;
        let new = held.values().filter(|revision| *revision != before).count();
        if state["phase"] == "Inference" {
            exam = None;
        } else {
            let (_, first) = exam.get_or_insert_with(|| (start, held.clone()));
            ensure!(
                *first == held,
                "slots moved in the exam of height {start}: {first:?}, then {held:?}"
            );
            seen.exams.insert(start, new);
        }
        let deployment = world.deployment().await?;
        let status = deployment.status.unwrap_or_default();
        if let Some(rollout) = &status.rollout {
            ensure!(rollout.failed_revision.is_none(), "it failed: {}", rollout.message);
            if seen.states.last() != Some(&rollout.state) {
                seen.states.push(rollout.state);
                world.say(&format!("{}: {}", rollout.state, rollout.message));
                world.say(&format!(
                    "kubectl gonka plan says\n{}",
                    world.gonka(&["plan", "--utc"]).await?
                ));
            }
            seen.canary_exam = rollout.canary_exam.clone().or(seen.canary_exam);
        }
        let done = new == SLOTS && holds(&status.conditions, ConditionType::RolledOut).is_ok();
        if done && pods_have_one_revision(world).await? {
            return Ok(seen);
        }
        tokio::time::sleep(Duration::from_millis(400)).await;
    }
}

/// What is plainly slower in its rehearsal gets no slot, and pods get the revision before.
pub async fn a_revision_that_is_slower_goes_back(world: &World<'_>) -> Result<()> {
    let (before, slots) = (revision(world).await?, held(world).await?);
    cap(world, 1).await?;
    let told = until("the way back", LIMIT, async || {
        let rollout = world.deployment().await?.status.and_then(|status| status.rollout);
        Ok(match rollout {
            Some(rollout) if rollout.state == RolloutState::RolledBack => Ok(rollout),
            other => Err(format!("{other:?}")),
        })
    })
    .await?;
    ensure!(told.failed_revision.is_some(), "no failed revision is named: {told:?}");
    world.say(&format!("went back: {}", told.message));
    world.event("gonka", "RolloutFailed", "tiny").await?;
    until("the spare of before", Duration::from_secs(120), async || {
        let spare = world.deployment().await?.status.map_or(0, |status| status.ready_spares);
        Ok(
            if spare > 0 && pods_have_one_revision(world).await? && revision(world).await? == before {
                Ok(())
            } else {
                Err(format!("{spare} ready spares"))
            },
        )
    })
    .await?;
    ensure!(held(world).await? == slots, "a slot moved for a revision that failed");
    // The way the owner takes it back.
    cap(world, 6).await?;
    until("everything as before", Duration::from_secs(60), async || {
        let status = world.deployment().await?.status.unwrap_or_default();
        Ok(match status.rollout {
            None => Ok(()),
            Some(rollout) => Err(format!("{rollout:?}")),
        })
    })
    .await
}

/// The pod of slot 0 is taken away by somebody who may, twenty seconds before a Sprint, and a spare holds the slot when it begins.
/// The Sprint, whose record comes later.
pub async fn a_spare_takes_over_just_before_a_sprint(world: &World<'_>) -> Result<i64> {
    world.is_ready().await?;
    let start = until("a Sprint that is far enough", Duration::from_secs(120), async || {
        let state = world.control.state().await?;
        let (next, height) = (state["next_poc_start"].as_i64(), state["height"].as_i64());
        let (next, height) = (next.context("no next Sprint")?, height.context("no height")?);
        let spare = world.deployment().await?.status.map_or(0, |status| status.ready_spares);
        Ok(if next - height > BLOCKS_BEFORE && spare > 0 {
            Ok(next)
        } else {
            Err(format!(
                "height {height}, the next begins at {next}, {spare} ready spares"
            ))
        })
    })
    .await?;
    world
        .control
        .wait_height(start - BLOCKS_BEFORE, Duration::from_secs(120))
        .await?;
    let (pod, _) = world.holders().await?.remove(&0).context("slot 0")?;
    let pods: Api<Pod> = Api::namespaced(world.client.clone(), "gonka");
    let glass = json!({"metadata": {"annotations": {BREAK_GLASS: "tries a spare"}}});
    pods.patch(&pod, &PatchParams::default(), &Patch::Merge(&glass)).await?;
    pods.delete(&pod, &DeleteParams::default().grace_period(0)).await?;
    let taken = Instant::now();
    until("another pod in slot 0", Duration::from_secs(20), async || {
        let ready = world
            .deployment()
            .await?
            .status
            .map_or(0, |status| status.sprint_ready_slots);
        let holder = world.holders().await.ok().and_then(|mut holders| holders.remove(&0));
        Ok(match holder {
            Some((now, _)) if now != pod && usize::try_from(ready)? == SLOTS => Ok(()),
            other => Err(format!("{other:?}, {ready} slots will pass")),
        })
    })
    .await?;
    let height = world.control.height().await?;
    ensure!(
        height < start,
        "the Sprint began at {start}, the slot was held again at {height}"
    );
    world.say(&format!(
        "slot 0 is held again {:.1} s after its pod was taken away, {} blocks before the Sprint",
        taken.elapsed().as_secs_f64(),
        start - height
    ));
    Ok(start)
}

/// Another cap is another argument of the engine, and so another revision.
async fn cap(world: &World<'_>, nonces_per_second: u64) -> Result<()> {
    let spec = json!({"spec": {"engine": {"native": {"maxNoncesPerSecond": nonces_per_second}}}});
    objects::patch(world.cluster, "modeldeployment/tiny", &spec).await
}

async fn revision(world: &World<'_>) -> Result<String> {
    let deployment: ModelDeployment = world.deployment().await?;
    deployment
        .status
        .and_then(|status| status.revision)
        .context("the deployment has no revision")
}

async fn held(world: &World<'_>) -> Result<Held> {
    let pods = world.slot_pods().await?;
    let label = |pod: &Pod, key: &str| pod.labels().get(key).cloned().unwrap_or_default();
    Ok(pods
        .iter()
        .filter(|pod| pod.metadata.deletion_timestamp.is_none() && label(pod, SLOT) != SLOT_SPARE)
        .map(|pod| (label(pod, SLOT), label(pod, REVISION)))
        .collect())
}

async fn pods_have_one_revision(world: &World<'_>) -> Result<bool> {
    let pods = world.slot_pods().await?;
    let revisions: BTreeSet<_> = pods.iter().map(|pod| pod.labels().get(REVISION)).collect();
    Ok(revisions.len() == 1 && pods.len() == SLOTS + 1)
}
