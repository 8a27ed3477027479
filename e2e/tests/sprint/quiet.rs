//! A second reconcile of an unchanged world writes nothing, of any kind, while the chain goes on.
//!
//! What may change all the same, and why:
//! * a SprintSchedule's estimates (`nextSprintTime`, `nextSprintErrorSeconds`, `nextGreenTime`, `calendar`, `blockMillis`,
//!   `blockSpreadMillis`) and the words of its endpoints and conditions, at most once a minute: they follow the clock;
//! * the Lease of the operator's leader and the Leases of nodes, which are no state of the world but signs of life.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use crds::SprintSchedule;
use crds::references::{Stage, Window};
use crds::sprint_schedule::SprintScheduleStatus;
use e2e::fleet::{metrics, until};
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, ListParams};
use kube::{Client, ResourceExt as _};

use crate::world::World;

/// How long nothing may be written: a resync of every controller and more.
const QUIET: Duration = Duration::from_secs(15);
/// How long the world must have been still before it is held for settled.
const STILL: Duration = Duration::from_secs(3);
/// Blocks of one window that are needed: to be still, and to stay so.
const UNDISTURBED: i64 = 24;
/// Controllers that look at an unchanged world again and again.
const LOOKING: [&str; 4] = ["sprint-schedule", "gonka-host", "model-deployment", "gpu-node"];
const WRITES: &str = "gonka_operator_writes_total";
const RECONCILES: &str = "gonka_operator_reconcile_total";
const OUTSIDE: &str = "gonka_operator_external_writes_total";

/// A kind of objects and where they are looked at; without a namespace in all of them.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    group: &'static str,
    version: &'static str,
    name: &'static str,
    namespace: Option<&'static str>,
}

impl Kind {
    /// Slot pods.
    pub const POD: Self = Self::of("", "v1", "Pod", Some("gonka"));
    /// Services of slots.
    pub const SERVICE: Self = Self::of("", "v1", "Service", Some("gonka"));
    /// Who holds which slot.
    pub const SLICE: Self = Self::of("discovery.k8s.io", "v1", "EndpointSlice", Some("gonka"));
    /// What keeps slot pods from eviction.
    pub const BUDGET: Self = Self::of("policy", "v1", "PodDisruptionBudget", Some("gonka"));

    const fn of(
        group: &'static str,
        version: &'static str,
        name: &'static str,
        namespace: Option<&'static str>,
    ) -> Self {
        Self {
            group,
            version,
            name,
            namespace,
        }
    }

    const fn ours(name: &'static str) -> Self {
        Self::of("fleet.gonka.ai", "v1alpha1", name, None)
    }
}

/// Everything the operator may write to, its own Lease and Nodes aside: kubelets write those, and its own writes are counted.
const KINDS: [Kind; 12] = [
    Kind::ours("SprintSchedule"),
    Kind::ours("GonkaHost"),
    Kind::ours("ModelDeployment"),
    Kind::ours("GpuNode"),
    Kind::ours("SprintRun"),
    Kind::POD,
    Kind::SERVICE,
    Kind::SLICE,
    Kind::BUDGET,
    Kind::of("", "v1", "ConfigMap", Some("gonka")),
    Kind::of("", "v1", "ServiceAccount", Some("gonka")),
    Kind::of("apps", "v1", "DaemonSet", Some("gonka-system")),
];

/// `Kind namespace/name` to UID and resourceVersion.
pub async fn versions(client: &Client, kind: &Kind) -> Result<BTreeMap<String, String>> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(kind.group, kind.version, kind.name));
    let api: Api<DynamicObject> = match kind.namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    let list = api
        .list(&ListParams::default())
        .await
        .with_context(|| format!("{} objects cannot be listed", kind.name))?;
    Ok(list
        .iter()
        .map(|object| {
            let name = format!(
                "{} {}/{}",
                kind.name,
                object.namespace().unwrap_or_default(),
                object.name_any()
            );
            let version = object.resource_version().unwrap_or_default();
            (name, format!("{} {version}", object.uid().unwrap_or_default()))
        })
        .collect())
}

/// The world at one moment.
#[derive(Clone, Debug, PartialEq)]
struct Snapshot {
    versions: BTreeMap<String, String>,
    schedule: SprintScheduleStatus,
}

impl Snapshot {
    async fn take(world: &World<'_>) -> Result<Self> {
        let mut all = BTreeMap::new();
        for kind in &KINDS {
            all.extend(versions(&world.client, kind).await?);
        }
        let schedule: SprintSchedule = world.schedule().await?;
        // Its version is not compared: what may change in it is.
        all.retain(|name, _| !name.starts_with("SprintSchedule "));
        Ok(Self {
            versions: all,
            schedule: without_estimates(schedule.status.context("the schedule has no status")?),
        })
    }

    /// Names of what differs.
    fn differs(&self, other: &Self) -> Vec<String> {
        let names = self.versions.keys().chain(other.versions.keys());
        let mut changed: Vec<String> = names
            .filter(|name| self.versions.get(*name) != other.versions.get(*name))
            .cloned()
            .collect();
        changed.sort();
        changed.dedup();
        if self.schedule != other.schedule {
            changed.push(format!(
                "SprintSchedule beyond its estimates: {:?} became {:?}",
                self.schedule, other.schedule
            ));
        }
        changed
    }
}

/// The status without what follows the clock by itself.
fn without_estimates(mut status: SprintScheduleStatus) -> SprintScheduleStatus {
    status.next_sprint_time = None;
    status.next_sprint_error_seconds = None;
    status.next_green_time = None;
    status.calendar.clear();
    status.block_millis = None;
    status.block_spread_millis = None;
    for endpoint in &mut status.endpoints {
        endpoint.message = None;
    }
    for condition in &mut status.conditions {
        condition.message.clear();
    }
    status
}

/// What the operator counted up to one moment.
struct Counted {
    writes: BTreeMap<String, f64>,
    reconciles: BTreeMap<String, f64>,
    outside: f64,
}

impl Counted {
    async fn take(world: &World<'_>) -> Result<Self> {
        let page = metrics::operator(&world.client).await?;
        Ok(Self {
            writes: page.by(WRITES, "controller"),
            reconciles: page.by(RECONCILES, "controller"),
            outside: page.sum(OUTSIDE),
        })
    }
}

/// Waits until the world is still, then looks away for a while and finds it as it was.
pub async fn an_unchanged_world_is_not_written(world: &World<'_>) -> Result<()> {
    let before = settled(world).await?;
    let counted = Counted::take(world).await?;
    let height = world.control.height().await?;
    let requests = world.writes_of_operator().await?.len();
    tokio::time::sleep(QUIET).await;
    let after = Snapshot::take(world).await?;
    let recounted = Counted::take(world).await?;
    let passed = world.control.height().await? - height;

    ensure!(
        passed >= 10,
        "only {passed} blocks in {} s: the world stood still by itself",
        QUIET.as_secs()
    );
    let changed = before.differs(&after);
    ensure!(changed.is_empty(), "an unchanged world was written: {changed:#?}");
    for controller in LOOKING {
        let looked = recounted.reconciles.get(controller) > counted.reconciles.get(controller);
        ensure!(looked, "{controller} did not look at all within {} s", QUIET.as_secs());
    }
    for (controller, writes) in &recounted.writes {
        let more = writes - counted.writes.get(controller).copied().unwrap_or_default();
        // Estimates, once a minute.
        let allowed = if controller == "sprint-schedule" { 1.5 } else { 0.5 };
        ensure!(more < allowed, "{controller} wrote {more} times to an unchanged world");
    }
    ensure!(
        recounted.outside - counted.outside < 0.5,
        "something outside was written"
    );
    let more = world.writes_of_operator().await?.split_off(requests);
    ensure!(more.is_empty(), "DAPI was written to: {more:?}");
    world.say(&format!("unchanged for {passed} blocks: reconciled, nothing written"));
    Ok(())
}

/// Nothing is due by the chain's own course, and nothing changes any more.
async fn settled(world: &World<'_>) -> Result<Snapshot> {
    until(
        "a window without an end in sight",
        Duration::from_secs(60),
        async || {
            let status = world.schedule().await?.status.unwrap_or_default();
            let height = world.control.height().await?;
            let left = status.green_until_height.unwrap_or_default() - height;
            // Until the new epoch rules, the chain itself changes what is written.
            let still = status.window == Window::Green && status.stage == Stage::Inference;
            Ok(if still && left >= UNDISTURBED {
                Ok(())
            } else {
                Err(format!(
                    "{} in {} for {left} blocks from {height} on",
                    status.window, status.stage
                ))
            })
        },
    )
    .await?;
    let mut last = Snapshot::take(world).await?;
    until("a world that is still", Duration::from_secs(30), async || {
        tokio::time::sleep(STILL).await;
        let now = Snapshot::take(world).await?;
        let changed = last.differs(&now);
        last = now;
        Ok(if changed.is_empty() {
            Ok(last.clone())
        } else {
            Err(format!("{changed:?} changed"))
        })
    })
    .await
}
