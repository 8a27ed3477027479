//! The snapshot as the planner reads it: assignments out of the slices, health of each pod, the exam at hand. Pure.

use std::collections::BTreeMap;

use crds::gonka_host::{AllowInInference, ManagementPolicy};
use crds::labels;
use crds::references::Window;
use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::clocks;
use super::contradiction;
use super::rehearsal::{self, Proof};
use super::revision;
use super::rollout::Progress;
use crate::gate::{self, Action, ActionKind, HostState, Verdict, verdict};
use crate::model_deployment::observed::{Link, Live, Machine, Observed, Phase, PodSeen};

/// How long a silent pod on a machine that is not ready is waited for. The machine's own grace period came before.
pub const LOST_MILLIS: i64 = 5_000;

/// When a slot was given to its pod, Unix milliseconds: what keeps one exam from moving a slot twice.
pub const ASSIGNED: &str = "fleet.gonka.ai/assigned-millis";

/// What a slot's slice says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Assignment {
    /// Fence.
    pub generation: i64,
    /// When it was made, Unix milliseconds.
    pub assigned_ms: i64,
    /// The pod; absent when none holds the slot.
    pub holder: Option<Holder>,
}

/// A pod as a slice names it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Holder {
    /// Name.
    pub name: String,
    /// UID.
    pub uid: String,
    /// Address in the slice.
    pub address: String,
}

/// What a pod is good for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Health {
    /// Runs, has an address, answers its operator door.
    Usable,
    /// Not up yet, or silent for a reason not known.
    Starting,
    /// Silent, on a machine that is not ready (or itself not ready).
    Lost,
    /// Its containers ended for good.
    Dead,
    /// Being deleted.
    Leaving,
}

/// The exam that generates now.
#[derive(Clone, Debug, PartialEq)]
pub struct ExamNow {
    /// What requests call it by: the Sprint's start or the confirmation's trigger, which lies before its generation.
    pub height: i64,
    /// When generation began, Unix milliseconds; absent while the pace is unknown.
    pub started_ms: Option<i64>,
    /// DAPI nodes of which nothing is expected.
    pub preserved: Vec<String>,
}

/// The snapshot and what follows from it.
#[derive(Clone, Debug)]
pub struct World<'a> {
    /// The snapshot.
    pub seen: &'a Observed,
    /// Revision that pods come to have.
    pub revision: String,
    /// How far a change of the pods is.
    pub rollout: Progress,
    /// Assignment of every slot that the spec wants or a slice exists for.
    pub slots: BTreeMap<i32, Assignment>,
    /// What each connected pod's rehearsal is worth, by pod name.
    pub proofs: BTreeMap<String, Proof>,
    /// The exam that generates now.
    pub exam: Option<ExamNow>,
    /// What contradicts what, as long as no person has looked.
    pub contradiction: Option<String>,
    /// Numbers DAPI gave to slots.
    numbers: BTreeMap<i32, i32>,
}

impl<'a> World<'a> {
    /// Reads the snapshot.
    pub fn of(seen: &'a Observed) -> Self {
        let slots = assignments(seen);
        let mut world = Self {
            seen,
            contradiction: contradiction::unanswered(seen, &slots),
            rollout: Progress::default(),
            revision: seen.revision.clone().unwrap_or_else(|| revision::of(seen)),
            slots,
            proofs: rehearsal::proofs(seen),
            exam: exam_now(seen),
            numbers: seen.node_nums(),
        };
        world.rollout = Progress::of(&world);
        world.revision = world.rollout.target().to_owned();
        world
    }

    /// Number DAPI gave a slot; absent until it is registered.
    pub fn node_num(&self, slot: i32) -> Option<i32> {
        self.numbers.get(&slot).copied()
    }

    /// Nonces a minute that the slot brought last, whoever held it; 0 when it never did.
    pub fn last_rate(&self, slot: i32) -> i64 {
        let slots = self.seen.deployment.status.iter().flat_map(|status| &status.slots);
        slots
            .filter(|known| known.index == slot)
            .find_map(|known| known.nonces_per_minute)
            .unwrap_or_default()
    }

    /// What the pod says; absent until its door was tried.
    pub fn live(&self, pod: &PodSeen) -> Option<&'a Live> {
        self.seen.live.get(&pod.uid)
    }

    /// The pod's door answers.
    pub fn connected(&self, pod: &PodSeen) -> bool {
        self.live(pod).is_some_and(|live| live.link == Link::Connected)
    }

    /// The pod a slice names, when it is still the same one.
    pub fn pod_of(&self, holder: &Holder) -> Option<&'a PodSeen> {
        self.seen.pods.get(&holder.name).filter(|pod| pod.uid == holder.uid)
    }

    /// The machine a pod runs on.
    pub fn machine(&self, pod: &PodSeen) -> Option<&'a Machine> {
        self.seen.machines.get(&pod.node_name)
    }

    /// Failure domain of a pod.
    pub fn domain(&self, pod: &PodSeen) -> String {
        self.machine(pod)
            .map(|machine| machine.domain.clone())
            .filter(|domain| !domain.is_empty())
            .unwrap_or_else(|| pod.node_name.clone())
    }

    /// What a pod is good for.
    pub fn health(&self, pod: &PodSeen) -> Health {
        if pod.leaving {
            return Health::Leaving;
        }
        if matches!(pod.phase, Phase::Failed | Phase::Succeeded) {
            return Health::Dead;
        }
        if self.connected(pod) && pod.phase == Phase::Running && !pod.address.is_empty() {
            return Health::Usable;
        }
        if self.is_lost(pod) {
            Health::Lost
        } else {
            Health::Starting
        }
    }

    fn is_lost(&self, pod: &PodSeen) -> bool {
        let long = |since: i64| self.seen.now_ms - since >= LOST_MILLIS;
        let silent = self
            .live(pod)
            .is_some_and(|live| live.link == Link::Broken && long(live.since_ms));
        let machine_down = match self.machine(pod) {
            Some(machine) => !machine.ready && long(machine.ready_since_ms),
            None => false,
        };
        let pod_down = pod.phase == Phase::Running && !pod.ready && long(pod.ready_since_ms);
        silent && !pod.node_name.is_empty() && (machine_down || pod_down)
    }

    /// The engines hold the wanted model and all of them are up.
    pub fn loaded(&self, pod: &PodSeen) -> bool {
        self.live(pod).is_some_and(|live| {
            live.loaded_model == self.seen.deployment.spec.model.id
                && live.backends_expected > 0
                && live.backends_ready >= live.backends_expected
        })
    }

    /// A GPU of the pod's machine must not be examined. Which GPU is the pod's is the kubelet's knowledge, so a finding
    /// speaks against every pod with GPUs on the machine.
    pub fn gpu_finding(&self, pod: &PodSeen) -> bool {
        self.seen.deployment.spec.gpus_per_replica > 0
            && self.machine(pod).is_some_and(|machine| {
                let clocks = &mut machine.clock_findings.iter();
                !machine.findings.is_empty() || clocks.any(|finding| clocks::counts(self, finding))
            })
    }

    /// What a pod's rehearsal is worth.
    pub fn proof(&self, name: &str) -> Proof {
        self.proofs.get(name).cloned().unwrap_or_default()
    }

    /// Highest generation anybody has seen; the next assignment is above it.
    pub fn highest_generation(&self) -> i64 {
        let slices = self.slots.values().map(|slot| slot.generation);
        let live = self.seen.live.values().map(|live| live.generation.max(live.fence));
        let status = self
            .seen
            .deployment
            .status
            .iter()
            .flat_map(|status| status.slots.iter().map(|slot| slot.generation));
        slices.chain(live).chain(status).max().unwrap_or_default().max(0)
    }

    /// Asks the gate.
    pub fn ask(&self, kind: ActionKind, lead_millis: i64) -> Verdict {
        let action = Action {
            kind,
            weight_basis_points: 0,
            lead_millis,
        };
        verdict(&self.seen.facts, &self.host_state(), &action, self.seen.now_ms)
    }

    /// No exam that comes before the next Sprint can ask for a slot that is not wanted any more.
    pub fn may_retire(&self) -> bool {
        matches!(self.ask(ActionKind::Retire, 0), Verdict::Allow { .. })
    }

    /// From the start of a spare's replacement until it is proven again: it must be done when readiness is judged.
    pub fn spare_lead_millis(&self) -> i64 {
        let state = self.host_state();
        (state.ready_by_millis - state.drain_millis).max(0)
    }

    fn host_state(&self) -> HostState {
        let margins = self
            .seen
            .schedule
            .as_ref()
            .map(|schedule| schedule.margins.clone())
            .unwrap_or_default();
        let host = self.seen.host.as_ref();
        let disruption = host.map(|host| host.spec.disruption.clone()).unwrap_or_default();
        HostState {
            challenged: host
                .and_then(|host| host.status.as_ref())
                .is_some_and(|status| status.window == Window::Challenge),
            breaker_tripped: host.is_some_and(gate::host::tripped) || self.contradiction.is_some(),
            max_weight_basis_points: disruption.max_weight_basis_points,
            allow_in_amber: disruption.allow_in_inference == AllowInInference::WithinMargin,
            natural_shortfall_basis_points: 0,
            unhealthy_basis_points: 0,
            released_basis_points: 0,
            drain_millis: i64::from(margins.drain_seconds) * 1000,
            ready_by_millis: i64::from(margins.ready_by_seconds) * 1000,
        }
    }

    /// The keys that slots check the operator's token with are there, or will be before any pod.
    pub fn knows_trust(&self) -> bool {
        self.seen.trust.is_some() || self.seen.trust_keys.is_some()
    }

    /// A registered slot of a host that is only observed stays where it is.
    pub fn may_move(&self, slot: i32) -> bool {
        let managed = self
            .seen
            .host
            .as_ref()
            .is_some_and(|host| host.spec.management_policy == ManagementPolicy::Manage);
        managed || self.node_num(slot).is_none()
    }
}

/// Reads one slice.
pub fn assignment(slice: &EndpointSlice) -> Assignment {
    let number = |key: &str| -> i64 {
        slice
            .metadata
            .annotations
            .as_ref()
            .and_then(|annotations| annotations.get(key)?.parse().ok())
            .unwrap_or_default()
    };
    let holder = slice.endpoints.first().and_then(|endpoint| {
        let target = endpoint.target_ref.as_ref()?;
        Some(Holder {
            name: target.name.clone()?,
            uid: target.uid.clone()?,
            address: endpoint.addresses.first().cloned().unwrap_or_default(),
        })
    });
    Assignment {
        generation: number(labels::GENERATION),
        assigned_ms: number(ASSIGNED),
        holder,
    }
}

fn assignments(seen: &Observed) -> BTreeMap<i32, Assignment> {
    let mut slots: BTreeMap<i32, Assignment> = (0..seen.deployment.spec.slots)
        .map(|slot| (slot, Assignment::default()))
        .collect();
    for slice in seen.slices.values() {
        let index = slice
            .metadata
            .labels
            .as_ref()
            .and_then(|labels| labels.get(crds::labels::SLOT)?.parse::<i32>().ok());
        if let Some(index) = index.filter(|index| (0..512).contains(index)) {
            slots.insert(index, assignment(slice));
        }
    }
    slots
}

/// A slot that is heard works on the exam that is known by `height`.
fn works_on(seen: &Observed, height: i64) -> bool {
    let heard = seen.live.values().filter(|live| live.link == Link::Connected);
    heard
        .filter_map(|live| live.round.as_ref())
        .any(|round| round.active && round.height == height)
}

fn exam_now(seen: &Observed) -> Option<ExamNow> {
    if let Some(exam) = &seen.facts.exam {
        // DAPI and the slots may have read the block before we did: a slot that works on it knows.
        let begun = exam.generation_start_height <= seen.facts.height || works_on(seen, exam.trigger_height);
        let generating =
            begun && (exam.validation_start_height == 0 || seen.facts.height < exam.validation_start_height);
        return generating.then(|| ExamNow {
            height: exam.trigger_height,
            started_ms: seen
                .facts
                .predict(exam.generation_start_height)
                .map(|prediction| prediction.time_ms),
            preserved: exam.preserved_node_ids.clone(),
        });
    }
    // The chain may be out of sight or behind; what the slots do is not. What one did when it was last heard says nothing once
    // the chain shows no exam.
    let in_sight = seen.facts.window != Window::Unknown && !seen.facts.is_stale(seen.now_ms);
    seen.live
        .values()
        .filter(|live| !in_sight || live.link == Link::Connected)
        .filter_map(|live| live.round.as_ref())
        .filter(|round| round.active)
        .map(|round| round.height)
        .max()
        .map(|height| ExamNow {
            height,
            started_ms: None,
            preserved: Vec::new(),
        })
}
