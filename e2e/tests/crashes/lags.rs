//! Old lists, late, lost and stalled watches, refused writes: nothing is deleted that should stay, no slot moves that should
//! not, and when the trouble is over everything is as it would have been.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use crds::labels;
use e2e::fault_proxy::{How, Lag, Of, Plan, Stale, Trouble, Verb};
use e2e::fleet::until;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, ListParams};
use tokio::time::Instant;

use crate::fleet::{self, DEPLOYMENT, SPARES, ours};
use crate::history::Watch;
use crate::program::Operator;
use crate::state::{self, Seen};
use crate::stories::{self, Undisturbed, rest};
use crate::table::Tried;
use crate::world::World;

/// How late late events are.
const LATE: Duration = Duration::from_secs(4);

/// All of it.
pub async fn all(world: &World<'_>, undisturbed: &Undisturbed, full: bool) -> Result<Vec<Tried>> {
    let mut tried = refusals(world, undisturbed, full).await?;
    let mut scene = Scene::set(world, undisturbed).await?;
    tried.push(scene.a_new_pod_is_seen_late().await.context("a new pod is seen late")?);
    tried.push(
        scene
            .a_lost_pod_is_seen_late()
            .await
            .context("a lost pod is seen late")?,
    );
    tried.push(scene.slices_are_not_seen().await.context("slices are not seen")?);
    tried.push(
        scene
            .a_deletion_is_never_told()
            .await
            .context("a deletion is never told")?,
    );
    tried.push(
        scene
            .every_second_event_is_lost()
            .await
            .context("every second event is lost")?,
    );
    tried.push(
        scene
            .watches_begin_with_old_lists()
            .await
            .context("watches begin with old lists")?,
    );
    tried.push(scene.every_list_is_old_once().await.context("every list is old once")?);
    scene.operator.kill().await?;
    for line in &tried {
        world.say(&format!("{}: {}", line.0, line.1));
    }
    Ok(tried)
}

/// Writes that are refused, or carried out and denied, while the operator lives.
async fn refusals(world: &World<'_>, undisturbed: &Undisturbed, full: bool) -> Result<Vec<Tried>> {
    // One of each kind first; the others where there is time.
    let cases = [
        // A pod is made, and nobody is told.
        ("model-deployment", 9, How::Denied(500)),
        ("gonka-host", 1, How::Refused(409)),
        ("dapi", 1, How::Denied(500)),
        ("model-deployment", 1, How::Refused(500)),
        ("model-deployment", 3, How::Refused(429)),
        ("model-deployment", 7, How::Denied(500)),
        ("model-deployment", 10, How::Refused(409)),
        ("gpu-node", 2, How::Denied(500)),
        ("sprint-schedule", 1, How::Refused(429)),
        ("leader", 1, How::Denied(500)),
        ("dapi", 2, How::Refused(503)),
    ];
    let count = if full { cases.len() } else { 3 };
    let mut tried = Vec::new();
    for (controller, nth, how) in cases.into_iter().take(count) {
        stories::begin(world).await?;
        let requests = stories::requests(world).await?.len();
        let watch = Watch::begin(&world.client);
        let of = Of::Controller(controller.to_owned());
        world.gate.set(Plan::strike(of, nth, how));
        let started = Instant::now();
        let mut operator = world.program.start(world.cluster)?;
        rest(world, &mut operator, Some(&undisturbed.lines))
            .await
            .with_context(|| format!("write {nth} of {controller}: {how:?}"))?;
        ensure!(
            watch.judge()? == 0,
            "a slot moved though a write of {controller} was refused only"
        );
        stories::posted_once(&stories::requests(world).await?[requests..])?;
        let struck = world
            .gate
            .struck()
            .with_context(|| format!("{controller} made no write {nth}"))?;
        let seconds = started.elapsed().saturating_sub(stories::QUIET).as_secs_f64();
        let what = match how {
            How::Refused(code) => format!(
                "`{}` (write {nth} of {controller}) is refused with {code}",
                struck.shown()
            ),
            How::Denied(code) => {
                format!(
                    "`{}` (write {nth} of {controller}) is carried out and answered with {code}",
                    struck.shown()
                )
            }
            How::AnswerLost | How::NeverArrived => struck.shown(),
        };
        tried.push((what, format!("at rest {seconds:.1} s after the start, no slot moved")));
        operator.kill().await?;
    }
    Ok(tried)
}

/// A fleet at rest, and its operator.
struct Scene<'w, 'a> {
    world: &'w World<'a>,
    undisturbed: &'w Undisturbed,
    operator: Operator,
}

impl<'w, 'a> Scene<'w, 'a> {
    async fn set(world: &'w World<'a>, undisturbed: &'w Undisturbed) -> Result<Self> {
        stories::begin(world).await?;
        let mut operator = world.program.start(world.cluster)?;
        rest(world, &mut operator, Some(&undisturbed.lines)).await?;
        Ok(Self {
            world,
            undisturbed,
            operator,
        })
    }

    /// The trouble is over: everything is as it would have been.
    async fn over(&mut self) -> Result<Seen> {
        self.world.gate.set(Plan::default());
        rest(self.world, &mut self.operator, Some(&self.undisturbed.lines)).await
    }

    async fn restart(&mut self, plan: Plan) -> Result<()> {
        let operator = self.world.program.start(self.world.cluster)?;
        std::mem::replace(&mut self.operator, operator).kill().await?;
        self.world.gate.set(plan);
        Ok(())
    }

    /// Writes of a kind since the plan was set.
    fn written(&self, verb: Verb, resource: &str) -> usize {
        let writes = self.world.gate.writes();
        writes
            .iter()
            .filter(|written| written.call.verb == verb && written.call.resource == resource)
            .count()
    }

    /// A pod goes as if by a machine's end: at once.
    async fn lose(&self, slot: &str) -> Result<Pod> {
        let pods: Api<Pod> = ours(&self.world.client);
        let selector = format!("{}={slot}", labels::SLOT);
        let all = pods.list(&ListParams::default().labels(&selector)).await?.items;
        let lost = all
            .into_iter()
            .next()
            .with_context(|| format!("no pod has slot {slot}"))?;
        pods.delete(&lost.name_any(), &DeleteParams::default().grace_period(0))
            .await
            .context("the pod did not go")?;
        Ok(lost)
    }

    async fn a_new_pod_is_seen_late(&mut self) -> Result<Tried> {
        let watch = Watch::begin(&self.world.client);
        self.world
            .gate
            .set(Plan::troubles([Trouble::watch("pods", Lag::Late(LATE))]));
        fleet::set_spares(self.world, SPARES + 1).await?;
        fleet::until_pods(self.world, 4).await?;
        tokio::time::sleep(LATE).await;
        let made = self.written(Verb::Create, "pods");
        ensure!(made == 1, "{made} pods were made for one spare");
        fleet::set_spares(self.world, SPARES).await?;
        fleet::until_pods(self.world, 3).await?;
        let gone = self.written(Verb::Delete, "pods");
        ensure!(gone == 1, "{gone} pods were deleted for one spare");
        self.over().await?;
        ensure!(watch.judge()? == 0, "a slot moved");
        Ok(tried(
            "one spare more and one less while events of pods come 4 s late",
            "one pod made, one deleted",
        ))
    }

    async fn a_lost_pod_is_seen_late(&mut self) -> Result<Tried> {
        let watch = Watch::begin(&self.world.client);
        self.world
            .gate
            .set(Plan::troubles([Trouble::watch("pods", Lag::Late(LATE))]));
        self.lose("0").await?;
        let started = Instant::now();
        self.moved("0").await?;
        let seconds = started.elapsed().as_secs_f64();
        fleet::until_pods(self.world, 3).await?;
        let made = self.written(Verb::Create, "pods");
        ensure!(made == 1, "{made} pods were made for one that was lost");
        self.over().await?;
        ensure!(watch.judge()? == 1, "one slot moves once: {}", watch.judge()?);
        Ok(tried(
            "the pod of a slot is lost while events of pods come 4 s late",
            &format!("the slot moves once, after {seconds:.1} s; one pod made"),
        ))
    }

    /// Waits until a slot is held by a pod that is there.
    async fn moved(&self, slot: &str) -> Result<()> {
        let slice = labels::slot_service_name(DEPLOYMENT, slot.parse()?);
        until(
            &format!("a holder of slot {slot}"),
            Duration::from_secs(30),
            async || {
                let seen = state::read(self.world).await?;
                let uids: BTreeSet<String> = seen.pods.iter().filter_map(kube::ResourceExt::uid).collect();
                Ok(match seen.holders().get(&slice) {
                    Some(holder) if uids.contains(holder) => Ok(()),
                    other => Err(format!("{other:?}")),
                })
            },
        )
        .await
    }

    async fn slices_are_not_seen(&mut self) -> Result<Tried> {
        let watch = Watch::begin(&self.world.client);
        self.world
            .gate
            .set(Plan::troubles([Trouble::watch("endpointslices", Lag::Stalled)]));
        self.lose("1").await?;
        self.moved("1").await?;
        fleet::until_pods(self.world, 3).await?;
        tokio::time::sleep(LATE).await;
        let written = self.written(Verb::Apply, "endpointslices");
        self.over().await?;
        ensure!(watch.judge()? == 1, "one slot moves once: {}", watch.judge()?);
        // Twice: empty while nobody can have it, then the new pod's. Never a third time.
        ensure!(written <= 2, "the slice was written {written} times");
        Ok(tried(
            "the pod of a slot is lost while the watch of slices says nothing",
            &format!("the slot moves once, its slice is written {written} times and no more"),
        ))
    }

    async fn a_deletion_is_never_told(&mut self) -> Result<Tried> {
        let watch = Watch::begin(&self.world.client);
        self.world
            .gate
            .set(Plan::troubles([Trouble::watch("pods", Lag::DeletionsLost)]));
        self.lose(labels::SLOT_SPARE).await?;
        tokio::time::sleep(LATE).await;
        let early = self.written(Verb::Create, "pods");
        ensure!(early <= 1, "{early} pods were made for one that was lost");
        self.world.gate.set(Plan::troubles([Trouble::watch("pods", Lag::Gone)]));
        self.over().await?;
        ensure!(watch.judge()? == 0, "a slot moved");
        Ok(tried(
            "a spare is lost and its deletion never told, then the watch ends with 410",
            if early == 1 {
                "replaced before the watch ended: a pass that writes reads pods anew"
            } else {
                "replaced when the watch began anew"
            },
        ))
    }

    async fn every_second_event_is_lost(&mut self) -> Result<Tried> {
        let watch = Watch::begin(&self.world.client);
        self.world
            .gate
            .set(Plan::troubles([Trouble::watch("", Lag::EveryKthLost(2))]));
        for count in [SPARES + 1, SPARES, SPARES + 1, SPARES] {
            fleet::set_spares(self.world, count).await?;
            tokio::time::sleep(Duration::from_millis(700)).await;
        }
        self.world.gate.set(Plan::troubles([Trouble::watch("", Lag::Gone)]));
        self.over().await?;
        ensure!(watch.judge()? == 0, "a slot moved");
        Ok(tried(
            "spares come and go while every second event of every kind is lost, then watches end with 410",
            "as before; no slot moved",
        ))
    }

    async fn watches_begin_with_old_lists(&mut self) -> Result<Tried> {
        let watch = Watch::begin(&self.world.client);
        self.world.api.remember().await?;
        fleet::set_spares(self.world, SPARES + 1).await?;
        fleet::until_pods(self.world, 4).await?;
        let kinds = ["pods", "services", "endpointslices", "poddisruptionbudgets"];
        let old = kinds.map(|kind| Trouble::old(kind, Stale::Watched, LATE));
        self.restart(Plan::troubles(old)).await?;
        tokio::time::sleep(LATE).await;
        let (made, gone) = (self.written(Verb::Create, "pods"), self.written(Verb::Delete, "pods"));
        ensure!(made == 0 && gone == 0, "{made} pods were made and {gone} deleted");
        fleet::set_spares(self.world, SPARES).await?;
        self.over().await?;
        ensure!(watch.judge()? == 0, "a slot moved");
        Ok(tried(
            "a restarted operator's watches begin with lists from before the last pod was made, and are 4 s late",
            "no pod made, none deleted, no slot moved",
        ))
    }

    async fn every_list_is_old_once(&mut self) -> Result<Tried> {
        let watch = Watch::begin(&self.world.client);
        self.world.api.remember().await?;
        fleet::set_spares(self.world, SPARES + 1).await?;
        fleet::until_pods(self.world, 4).await?;
        self.restart(Plan::troubles([Trouble::old("pods", Stale::Every, LATE)]))
            .await?;
        let made = until("a pod too many", Duration::from_secs(20), async || {
            let made = self.written(Verb::Create, "pods");
            Ok(if made > 0 { Ok(made) } else { Err("none yet".to_owned()) })
        });
        made.await?;
        self.world.gate.set(Plan::default());
        // Every pass that was still shown the old list made one more; wanted all at once, they are let go one by one: many at
        // once would be a mass deletion.
        tokio::time::sleep(Duration::from_secs(1)).await;
        // Counted where they are: the proxy counts from the plan that was just set, and passes before it made some too.
        let most = i32::try_from(fleet::pods(self.world).await?)? - fleet::SLOTS;
        let made = most - (SPARES + 1);
        ensure!(made > 0, "there are {most} spares: the pod too many was not made");
        fleet::set_spares(self.world, most).await?;
        fleet::until_pods(self.world, usize::try_from(fleet::SLOTS + most)?).await?;
        for count in (SPARES..most).rev() {
            fleet::set_spares(self.world, count).await?;
            fleet::until_pods(self.world, usize::try_from(fleet::SLOTS + count)?).await?;
        }
        self.over().await?;
        ensure!(watch.judge()? == 0, "a slot moved");
        Ok(tried(
            "even the lists before a write are old, which a healthy API server never sends",
            &format!("{made} pod too many, deleted again with the other spares; no slot moved"),
        ))
    }
}

fn tried(what: &str, came: &str) -> Tried {
    (what.to_owned(), came.to_owned())
}
