//! How long a slot is without a pod that answers when its pod is taken away: from the operator's decision to the first
//! answer of the spare, as DAPI sees it over a connection it keeps.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use crds::ModelDeployment;
use e2e::fleet::objects;
use e2e::fleet::prober::{Answer, Prober};
use e2e::fleet::until;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use serde_json::json;

use crate::world::{SLOTS, World};

/// Answers in a row before a pod is taken away: what came before is not measured.
const STEADY: usize = 20;
/// Longest time from the decision to the first answer.
const LIMIT_MILLIS: i64 = 2_000;
/// Spares while this is measured: one is made anew while another takes over.
const SPARES: i32 = 3;

/// What was measured.
#[derive(Clone, Debug, Default)]
pub struct Takeovers {
    /// From the decision to the first answer of the new pod, milliseconds, sorted.
    pub millis: Vec<i64>,
    /// Requests that failed, of all.
    pub failed: usize,
    pub requests: usize,
}

impl Takeovers {
    /// Fails when one took too long.
    pub fn judge(&self) -> Result<()> {
        ensure!(
            self.quantile(990) <= LIMIT_MILLIS,
            "takeovers took too long: {:?} ms",
            self.millis
        );
        Ok(())
    }

    /// A value that so many per mille are not above.
    pub fn quantile(&self, per_mille: usize) -> i64 {
        let index = (self.millis.len() * per_mille).div_ceil(1000).max(1) - 1;
        self.millis.get(index).copied().unwrap_or_default()
    }
}

/// Takes pods away, slot after slot, `count` times.
pub async fn measure(world: &World<'_>, count: usize) -> Result<Takeovers> {
    objects::patch(
        world.cluster,
        "modeldeployment/tiny",
        &json!({"spec": {"spares": SPARES}}),
    )
    .await?;
    let mut all = Takeovers::default();
    for number in 0..count {
        let slot = number as i32 % SLOTS;
        let (millis, answers) = one(world, slot).await.with_context(|| format!("slot {slot}"))?;
        let failure = |answer: &Answer| {
            let why = answer.generation.as_ref().err()?;
            Some(format!("after {:?}: {why}", answer.took))
        };
        let failures: Vec<String> = answers.iter().filter_map(failure).collect();
        world.say(&format!(
            "slot {slot} was answered for {millis} ms after the decision; {} requests failed, the last {:?}",
            failures.len(),
            failures.last()
        ));
        all.millis.push(millis);
        all.failed += failures.len();
        all.requests += answers.len();
    }
    all.millis.sort_unstable();
    Ok(all)
}

async fn one(world: &World<'_>, slot: i32) -> Result<(i64, Vec<Answer>)> {
    spare_is_ready(world).await?;
    let services: Api<Service> = Api::namespaced(world.client.clone(), "gonka");
    let service = services.get(&format!("slot-tiny-{slot}")).await?;
    let address = service.spec.and_then(|spec| spec.cluster_ip).context("no address")?;
    let (before, _) = assignment(world, slot).await?;
    let prober = Prober::start(world.cluster, &address)?;
    until(
        "steady answers of the pod that holds the slot",
        Duration::from_secs(20),
        async || {
            let answers = prober.answers();
            let last = answers.iter().rev().take(STEADY);
            let steady = last.filter(|answer| answer.generation == Ok(before)).count();
            Ok(if steady == STEADY {
                Ok(())
            } else {
                Err(format!("{:?}", answers.last()))
            })
        },
    )
    .await?;
    take_away(world, slot).await?;
    let answered = until("an answer of another pod", Duration::from_secs(30), async || {
        Ok(first(&prober, before + 1).ok_or_else(|| format!("{:?}", prober.answers().last())))
    })
    .await?;
    let (_, decided) = assignment(world, slot).await?;
    Ok((answered - decided, prober.answers()))
}

/// When a generation, or a later one, answered first.
fn first(prober: &Prober, generation: i64) -> Option<i64> {
    let answered = |answer: &Answer| answer.generation.as_ref().is_ok_and(|by| *by >= generation);
    prober.answers().into_iter().find(answered).map(|answer| answer.at_ms)
}

/// Generation and time of the decision, Unix milliseconds.
async fn assignment(world: &World<'_>, slot: i32) -> Result<(i64, i64)> {
    let slices: Api<EndpointSlice> = Api::namespaced(world.client.clone(), "gonka");
    let slice = slices.get(&format!("slot-tiny-{slot}")).await?;
    let number = |key: &str| -> Result<i64> {
        let text = slice.annotations().get(key).with_context(|| format!("no {key}"))?;
        text.parse().with_context(|| format!("{key} is {text}"))
    };
    Ok((
        number(crds::labels::GENERATION)?,
        number("fleet.gonka.ai/assigned-millis")?,
    ))
}

/// As somebody who may break the glass does it.
async fn take_away(world: &World<'_>, slot: i32) -> Result<()> {
    let holders = world.holders().await?;
    let holder = holders
        .iter()
        .find(|holder| holder.slot == slot)
        .context("nobody holds it")?;
    let pods: Api<Pod> = Api::namespaced(world.client.clone(), "gonka");
    let glass = json!({"metadata": {"annotations": {crds::labels::BREAK_GLASS: "measures takeovers"}}});
    pods.patch(&holder.pod, &PatchParams::default(), &Patch::Merge(&glass))
        .await?;
    pods.delete(&holder.pod, &DeleteParams::default()).await?;
    Ok(())
}

async fn spare_is_ready(world: &World<'_>) -> Result<()> {
    let deployments: Api<ModelDeployment> = Api::namespaced(world.client.clone(), "gonka");
    until("a spare that is ready", Duration::from_secs(150), async || {
        let status = deployments.get("tiny").await?.status.unwrap_or_default();
        let held = status.slots.iter().filter(|slot| slot.pod_ref.is_some()).count();
        Ok(if status.ready_spares > 0 && held == SLOTS as usize {
            Ok(())
        } else {
            Err(format!("{} ready spares, {held} slots held", status.ready_spares))
        })
    })
    .await
}
