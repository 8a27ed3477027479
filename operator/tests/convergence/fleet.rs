//! A cluster of objects in memory: applies what a decision asks for as the API server, kubelets and slot pods would, so
//! that observe → decide → apply can be run until it is quiet. Faults are verbs.

use std::collections::{BTreeMap, BTreeSet};

use crds::gonka_host::{GonkaHost, GonkaHostSpec, GonkaHostStatus, ManagementPolicy, Registration};
use crds::model_deployment::{Engine, ModelDeployment, ModelDeploymentSpec, ModelSource, NativeEngine};
use crds::references::{LocalReference, Window};
use crds::sprint_schedule::{Margins, StageHeights};
use k8s_openapi::api::core::v1::Pod;
use operator::change::{Change, Object};
use operator::facts::{Facts, Pace};
use operator::model_deployment::decide::{self, Desired, Step};
use operator::model_deployment::observe;
use operator::model_deployment::observed::{
    ExamSeen, ExaminedSlot, Install, Link, Live, Machine, Observed, Rehearsed, Round, Schedule, Start, TemplateSeen,
    Told,
};
use serde_json::{Value, json};

/// Base64 of the two fp16 values 1.0 and 0.5: what every honest engine computes here.
pub const VECTOR: &str = "ADwAOA==";
pub const NAMESPACE: &str = "gonka";
pub const NAME: &str = "tiny";
pub const UID: &str = "5b8d6c1e-0000-4000-8000-000000000001";
pub const MODEL: &str = "gonka-fleet/tiny_qwen3_dense";
/// Height and start of the Sprint that comes next.
pub const NEXT_SPRINT: i64 = 20_000;

/// What a slot pod's `serve` holds.
#[derive(Clone, Debug, Default)]
pub struct Door {
    pub reachable: bool,
    pub since_ms: i64,
    pub slot: i32,
    pub generation: i64,
    pub seen: BTreeMap<i32, i64>,
    pub loaded: bool,
    pub rehearsal: Option<Rehearsed>,
    pub round: Option<Round>,
    pub told: Option<Told>,
    pub fence: i64,
}

/// The cluster.
#[derive(Clone, Debug)]
pub struct Fleet {
    pub now_ms: i64,
    pub deployment: ModelDeployment,
    pub host: Option<GonkaHost>,
    pub facts: Facts,
    pub machines: BTreeMap<String, Machine>,
    pub pods: BTreeMap<String, Pod>,
    /// Objects by kind and name.
    pub objects: BTreeMap<(String, String), Value>,
    pub doors: BTreeMap<String, Door>,
    /// Exams as their records tell of them.
    pub exams: Vec<ExamSeen>,
    /// What a rehearsal of a weights' tag comes to, by tag: thousandths of a nonce per second, or why it fails.
    pub engines: BTreeMap<String, Result<u64, String>>,
    /// Everything written, as `verb Kind name`.
    pub log: Vec<String>,
    counter: u32,
}

pub fn spec(slots: i32, spares: i32) -> ModelDeploymentSpec {
    ModelDeploymentSpec {
        host_ref: LocalReference {
            name: "ours".to_owned(),
        },
        model: ModelSource {
            id: MODEL.to_owned(),
            repository: None,
            revision: Some("public-tiny-v1".to_owned()),
        },
        engine: Engine {
            native: Some(NativeEngine {
                scheme: "prefill_v2".to_owned(),
                ..NativeEngine::default()
            }),
            ..Engine::default()
        },
        gpus_per_replica: 1,
        replicas_per_slot: 1,
        slots,
        spares,
        placement: crds::model_deployment::Placement {
            failure_domain_key: "kubernetes.io/hostname".to_owned(),
            ..crds::model_deployment::Placement::default()
        },
        ..ModelDeploymentSpec::default()
    }
}

impl Fleet {
    pub fn new(slots: i32, spares: i32, machines: u32) -> Self {
        let now_ms = 1_800_000_000_000;
        let mut deployment = ModelDeployment::new(NAME, spec(slots, spares));
        deployment.metadata.namespace = Some(NAMESPACE.to_owned());
        deployment.metadata.uid = Some(UID.to_owned());
        deployment.metadata.generation = Some(1);
        Self {
            now_ms,
            deployment,
            host: Some(host(slots)),
            facts: facts(now_ms),
            machines: (1..=machines)
                .map(|index| (format!("n{index}"), machine(index)))
                .collect(),
            pods: BTreeMap::new(),
            objects: BTreeMap::new(),
            doors: BTreeMap::new(),
            exams: Vec::new(),
            engines: BTreeMap::new(),
            log: Vec::new(),
            counter: 0,
        }
    }

    pub fn observe(&self) -> Observed {
        fn typed<T: serde::de::DeserializeOwned>(value: Option<&Value>) -> Option<T> {
            value.map(|value| serde_json::from_value(value.clone()).expect("written objects are of their kind"))
        }
        fn all<T: serde::de::DeserializeOwned>(
            objects: &BTreeMap<(String, String), Value>,
            kind: &str,
        ) -> BTreeMap<String, T> {
            objects
                .iter()
                .filter(|((of, _), _)| of == kind)
                .filter_map(|((_, name), value)| Some((name.clone(), typed(Some(value))?)))
                .collect()
        }
        let one = |kind: &str, name: &str| self.objects.get(&(kind.to_owned(), name.to_owned()));
        let exam = self.facts.exam.as_ref().map(|exam| exam.generation_start_height);
        let live: BTreeMap<String, Live> = self
            .doors
            .iter()
            .map(|(uid, door)| (uid.clone(), Self::live(door)))
            .collect();
        let mut observed = Observed {
            now_ms: self.now_ms,
            install: install(),
            deployment: self.deployment.clone(),
            host: self.host.clone(),
            schedule: Some(Schedule {
                chain_id: "gonka-test".to_owned(),
                margins: Margins::default(),
            }),
            facts: Facts {
                observed_ms: self.now_ms,
                block_time_ms: self.now_ms,
                ..self.facts.clone()
            },
            pods: self
                .pods
                .iter()
                .map(|(name, pod)| {
                    (
                        name.clone(),
                        observe::pod_seen(pod, self.deployment.metadata.uid.as_deref().unwrap_or_default()),
                    )
                })
                .collect(),
            services: all(&self.objects, "Service"),
            slices: all(&self.objects, "EndpointSlice"),
            budget: typed(one("PodDisruptionBudget", NAME)),
            account: typed(one("ServiceAccount", "gonka-slot")),
            trust: typed(one("ConfigMap", "slot-trust")),
            trust_keys: Some("{\"keys\":[]}".to_owned()),
            trust_authorities: Some("authorities\n".to_owned()),
            golden: operator::model_deployment::observed::GoldenSeen::None,
            machines: self.machines.clone(),
            is_full: false,
            live,
            rounds: BTreeMap::new(),
            templates: self.templates(),
            exams: self.exams.clone(),
            revision: None,
        };
        for (uid, live) in &observed.live {
            let held = self.doors.get(uid).map_or(-1, |door| door.slot);
            if let Some(round) = live
                .round
                .as_ref()
                .filter(|round| Some(round.height) == exam && held >= 0)
            {
                let id = observed.node_id(held);
                observed.rounds.entry(id).or_default().push(round.clone());
            }
        }
        observed
    }

    fn templates(&self) -> BTreeMap<String, TemplateSeen> {
        let records = self
            .objects
            .iter()
            .filter(|((kind, _), _)| kind == "ControllerRevision");
        records
            .map(|(_, record)| {
                let revision = record["metadata"]["labels"][crds::labels::REVISION].as_str();
                let seen = TemplateSeen {
                    uid: record["metadata"]["uid"].as_str().unwrap_or_default().to_owned(),
                    number: record["revision"].as_i64().unwrap_or_default(),
                    template: record["data"].clone(),
                };
                (revision.expect("a record names its revision").to_owned(), seen)
            })
            .collect()
    }

    /// Tag of the weights a pod was made with.
    pub fn weights(&self, pod: &str) -> String {
        let spec = self.pods[pod].spec.as_ref().expect("a pod has a spec");
        let command = spec.containers[0].command.clone().unwrap_or_default();
        let weights = command.iter().find(|word| word.starts_with("recipe:"));
        let tag = weights.and_then(|weights| weights.rsplit(':').next());
        tag.expect("the command names weights").to_owned()
    }

    fn engine(&self, pod: &str) -> Result<u64, String> {
        self.engines.get(&self.weights(pod)).cloned().unwrap_or(Ok(5_000))
    }

    /// An exam goes by in which slots computed so many thousandths of what was expected, as `part` says of their weights' tag.
    /// The network leaves `preserved` on inference.
    pub fn hold_exam(&mut self, preserved: &[i32], part: impl Fn(&str) -> i64) {
        let began_ms = self.now_ms;
        let observed = self.observe();
        let rows = observed.slices.values().filter_map(|slice| {
            let slot = slice.metadata.labels.as_ref()?[crds::labels::SLOT].parse().ok()?;
            let holder = decide::assignment(slice)
                .holder
                .filter(|holder| !preserved.contains(&slot) && self.pods.contains_key(&holder.name))?;
            let (expected, measured) = (1_000, part(&self.weights(&holder.name)));
            Some((observed.node_id(slot), ExaminedSlot { expected, measured }))
        });
        let height = 13_000 + i64::try_from(self.exams.len()).expect("few");
        let exam = ExamSeen {
            name: format!("ours-sprint-{height}"),
            height,
            began_ms,
            slots: rows.collect(),
            unnamed: None,
        };
        self.exams.push(exam);
        self.now_ms += 60_000;
    }

    fn live(door: &Door) -> Live {
        let not_ready = if door.rehearsal.is_some() {
            Vec::new()
        } else {
            vec!["NotRehearsed".to_owned()]
        };
        Live {
            link: if door.reachable { Link::Connected } else { Link::Broken },
            since_ms: door.since_ms,
            slot: door.slot,
            generation: door.generation,
            held_since_ms: door.since_ms,
            fence: door.fence,
            door_open: door.slot >= 0,
            loaded_model: if door.loaded { MODEL.to_owned() } else { String::new() },
            backends_ready: u32::from(door.loaded),
            backends_expected: 1,
            engines_since_ms: door.since_ms,
            weights_digest: if door.loaded {
                "sha256:00".to_owned()
            } else {
                String::new()
            },
            round: door.round.clone(),
            rehearsal: door.rehearsal.clone(),
            not_ready,
            told: door.told.clone(),
            rehearsing: false,
        }
    }

    /// One pass, then a second of the world's own life. True when there was nothing to do.
    pub fn pass(&mut self) -> bool {
        let desired = decide::decide(&self.observe());
        let quiet = desired.is_empty();
        self.apply(&desired, usize::MAX);
        self.live_on();
        quiet
    }

    /// Passes until several in a row had nothing to do; the number of passes.
    pub fn settle(&mut self, limit: usize) -> Option<usize> {
        let mut quiet = 0;
        for pass in 0..limit {
            quiet = if self.pass() { quiet + 1 } else { 0 };
            if quiet >= 5 {
                return Some(pass);
            }
        }
        None
    }

    /// Carries out at most `steps` writes and calls, then dies.
    pub fn apply(&mut self, desired: &Desired, mut steps: usize) {
        for slot in &desired.slots {
            for step in &slot.steps {
                if steps == 0 {
                    return;
                }
                steps -= 1;
                match step {
                    Step::Demote(demote) => self.demote(&demote.pod_uid, demote.slot, demote.generation),
                    Step::Change(change) => self.write(change),
                    Step::Promote(promote) => {
                        let told = Told {
                            generation: promote.generation,
                            node_num: promote.node_num,
                            callback_base: promote.callback_base.clone(),
                        };
                        self.promote(&promote.pod_uid, promote.slot, told, promote.running.as_ref());
                    }
                }
            }
        }
        for change in &desired.changes {
            if steps == 0 {
                return;
            }
            steps -= 1;
            self.write(change);
        }
        for rehearsal in &desired.rehearsals {
            // It may have been deleted in the same pass.
            if !self.pods.contains_key(&rehearsal.pod) {
                continue;
            }
            let engine = self.engine(&rehearsal.pod);
            if let Some(door) = self.doors.get_mut(&rehearsal.pod_uid).filter(|door| door.reachable) {
                door.rehearsal = Some(Rehearsed {
                    time_ms: self.now_ms,
                    rate_milli: engine.clone().unwrap_or_default(),
                    error: engine.err().unwrap_or_default(),
                    artifacts: rehearsal
                        .nonces
                        .iter()
                        .map(|nonce| (*nonce, VECTOR.to_owned()))
                        .collect(),
                });
            }
        }
    }

    fn demote(&mut self, uid: &str, slot: i32, generation: i64) {
        let Some(door) = self.doors.get_mut(uid).filter(|door| door.reachable) else {
            return;
        };
        let highest = door.seen.entry(slot).or_default();
        if generation >= *highest {
            *highest = generation;
            door.slot = -1;
            door.generation = 0;
            door.told = None;
        }
    }

    fn promote(&mut self, uid: &str, slot: i32, told: Told, running: Option<&Start>) {
        let Some(door) = self.doors.get_mut(uid).filter(|door| door.reachable) else {
            return;
        };
        let highest = door.seen.entry(slot).or_default();
        if told.generation < *highest {
            door.fence = *highest;
            return;
        }
        assert!(
            door.slot < 0 || door.slot == slot,
            "a pod is demoted before it gets another slot"
        );
        *highest = told.generation;
        door.slot = slot;
        door.generation = told.generation;
        door.fence = 0;
        if let Some(running) = running {
            door.round = Some(Round {
                height: running.height,
                active: true,
                first_nonce_ms: 1,
                request: Some(running.clone()),
                ..Round::default()
            });
        }
        door.told = Some(told);
    }

    /// The deployment is deleted and made again; the collector takes with it what no policy protects.
    pub fn make_again(&mut self) {
        self.counter += 1;
        self.deployment.metadata.uid = Some(format!("deployment-{}", self.counter));
        self.deployment.status = None;
        self.objects
            .retain(|(kind, _), _| !matches!(kind.as_str(), "PodDisruptionBudget" | "ControllerRevision"));
        for door in self.doors.values_mut() {
            door.told = None;
        }
    }

    fn write(&mut self, change: &Change) {
        match change {
            Change::Apply(object) => {
                self.log.push(format!("apply {} {}", object.resource.kind, object.name));
                self.server_side_apply(object);
            }
            Change::Create(object) => {
                self.log.push(format!("create {}", object.resource.kind));
                self.create_pod(object);
            }
            Change::Delete(deletion) => {
                self.log
                    .push(format!("delete {} {}", deletion.resource.kind, deletion.name));
                if deletion.resource.kind == "Pod" {
                    let same = self
                        .pods
                        .get(&deletion.name)
                        .is_some_and(|pod| pod.metadata.uid.as_deref() == Some(deletion.uid.as_str()));
                    if same {
                        self.remove_pod(&deletion.name.clone());
                    }
                } else {
                    self.objects
                        .remove(&(deletion.resource.kind.clone(), deletion.name.clone()));
                }
            }
            Change::Status(object) => {
                self.log.push(format!("status {}", object.name));
                let status = serde_json::from_value(object.value["status"].clone());
                self.deployment.status = Some(status.expect("a status is a status"));
            }
            Change::Merge(object) => {
                self.log.push(format!("merge {} {}", object.resource.kind, object.name));
                self.server_side_apply(object);
            }
            Change::Event(_) => {}
        }
    }

    fn server_side_apply(&mut self, object: &Object) {
        if object.resource.kind == "Pod" {
            let Some(pod) = self.pods.get_mut(&object.name) else {
                return;
            };
            if object.value["metadata"]["uid"].as_str() == pod.metadata.uid.as_deref() {
                let mut value = serde_json::to_value(&*pod).expect("a pod is JSON");
                merge(&mut value, &object.value);
                *pod = serde_json::from_value(value).expect("a pod stays a pod");
            }
            return;
        }
        let kind = object.resource.kind.clone();
        let addresses = self.objects.keys().filter(|(of, _)| of == "Service").count() + 1;
        let stored = self
            .objects
            .entry((kind.clone(), object.name.clone()))
            .or_insert_with(|| json!({"metadata": {"uid": format!("uid-of-{}", object.name)}}));
        merge(stored, &object.value);
        if kind == "Service" && stored["spec"]["clusterIP"].is_null() {
            stored["spec"]["clusterIP"] = json!(format!("10.111.0.{addresses}"));
        }
    }

    fn create_pod(&mut self, object: &Object) {
        self.counter += 1;
        let mut pod: Pod = serde_json::from_value(object.value.clone()).expect("what is created is a pod");
        let name = format!("{NAME}-{:04}", self.counter);
        pod.metadata.name = Some(name.clone());
        pod.metadata.generate_name = None;
        pod.metadata.uid = Some(format!("uid-of-{name}"));
        let mut value = serde_json::to_value(pod).expect("a pod is JSON");
        value["metadata"]["creationTimestamp"] = json!("2027-01-15T08:00:00Z");
        value["status"] = json!({"phase": "Pending"});
        self.pods
            .insert(name, serde_json::from_value(value).expect("a pod stays a pod"));
    }

    /// A second passes: scheduler, kubelets, engines.
    pub fn live_on(&mut self) {
        self.now_ms += 1_000;
        let mut carried: BTreeMap<String, usize> = self.machines.keys().map(|name| (name.clone(), 0)).collect();
        for pod in self.pods.values() {
            if let Some(node) = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()) {
                *carried.entry(node).or_default() += 1;
            }
        }
        let waiting: Vec<String> = self
            .pods
            .iter()
            .filter(|(_, pod)| pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_none()))
            .map(|(name, _)| name.clone())
            .collect();
        for name in waiting {
            let up = |node: &&String| {
                self.machines
                    .get(*node)
                    .is_some_and(|machine| machine.ready && !machine.excluded && !machine.leaving)
            };
            let Some(node) = carried
                .keys()
                .filter(up)
                .min_by_key(|node| (carried[*node], (*node).clone()))
                .cloned()
            else {
                continue;
            };
            *carried.entry(node.clone()).or_default() += 1;
            self.start_pod(&name, &node);
        }
        for door in self.doors.values_mut().filter(|door| door.reachable) {
            door.loaded = true;
        }
    }

    fn start_pod(&mut self, name: &str, node: &str) {
        self.counter += 1;
        let address = format!("10.12.{}.{}", self.counter / 250, self.counter % 250);
        let (now_ms, uid) = (self.now_ms, format!("uid-of-{name}"));
        if let Some(pod) = self.pods.get_mut(name) {
            let mut value = serde_json::to_value(&*pod).expect("a pod is JSON");
            value["spec"]["nodeName"] = json!(node);
            value["status"] = running(&address, true);
            *pod = serde_json::from_value(value).expect("a pod stays a pod");
        }
        self.doors.insert(
            uid,
            Door {
                reachable: true,
                since_ms: now_ms,
                slot: -1,
                ..Door::default()
            },
        );
    }

    pub fn remove_pod(&mut self, name: &str) {
        if let Some(pod) = self.pods.remove(name) {
            self.doors.remove(pod.metadata.uid.as_deref().unwrap_or_default());
        }
    }

    pub fn fail_pod(&mut self, name: &str) {
        if let Some(pod) = self.pods.get_mut(name) {
            pod.status.get_or_insert_default().phase = Some("Failed".to_owned());
            if let Some(door) = pod.metadata.uid.as_ref().and_then(|uid| self.doors.get_mut(uid)) {
                door.reachable = false;
                door.since_ms = self.now_ms;
            }
        }
    }

    /// The machine loses power and is noticed at once.
    pub fn cut_power(&mut self, node: &str) {
        if let Some(machine) = self.machines.get_mut(node) {
            machine.ready = false;
            machine.ready_since_ms = self.now_ms;
        }
        for uid in self.uids_on(node) {
            if let Some(door) = self.doors.get_mut(&uid) {
                door.reachable = false;
                door.since_ms = self.now_ms;
            }
        }
    }

    /// The machine comes back: its pods keep their UIDs, lose their memory and get new addresses.
    pub fn power_on(&mut self, node: &str) {
        let Some(machine) = self.machines.get_mut(node).filter(|machine| !machine.ready) else {
            return;
        };
        machine.ready = true;
        machine.ready_since_ms = self.now_ms;
        for uid in self.uids_on(node) {
            self.counter += 1;
            let address = format!("10.12.{}.{}", self.counter / 250, self.counter % 250);
            for pod in self
                .pods
                .values_mut()
                .filter(|pod| pod.metadata.uid.as_ref() == Some(&uid))
            {
                let status = serde_json::from_value(running(&address, true));
                pod.status = Some(status.expect("a status is a status"));
            }
            self.doors.insert(
                uid,
                Door {
                    reachable: true,
                    since_ms: self.now_ms,
                    slot: -1,
                    ..Door::default()
                },
            );
        }
    }

    fn uids_on(&self, node: &str) -> BTreeSet<String> {
        self.pods
            .values()
            .filter(|pod| pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some(node))
            .filter_map(|pod| pod.metadata.uid.clone())
            .collect()
    }
}

fn running(address: &str, ready: bool) -> Value {
    json!({
        "phase": "Running",
        "podIP": address,
        "conditions": [{
            "type": "Ready",
            "status": if ready { "True" } else { "False" },
            "lastTransitionTime": "2027-01-15T08:00:00Z",
        }],
    })
}

fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from.clone(),
    }
}

pub fn install() -> Install {
    Install {
        namespace: "gonka-system".to_owned(),
        install_id: "a1b2c3".to_owned(),
        slot_image: "gonka.local/node-agent:dev".to_owned(),
        image_pull_policy: "IfNotPresent".to_owned(),
        signal_service: "gonka-fleet-signal".to_owned(),
        priority_class: "gonka-slot".to_owned(),
        callback_interval_seconds: 5,
    }
}

pub fn host(slots: i32) -> GonkaHost {
    let mut host = GonkaHost::new("ours", GonkaHostSpec::default());
    host.metadata.namespace = Some(NAMESPACE.to_owned());
    host.metadata.uid = Some("5b8d6c1e-0000-4000-8000-000000000002".to_owned());
    "test".clone_into(&mut host.spec.schedule_name);
    host.spec.management_policy = ManagementPolicy::Manage;
    host.status = Some(GonkaHostStatus {
        callback_url: Some("http://10.0.0.7:9100".to_owned()),
        registrations: (0..slots)
            .map(|slot| Registration {
                node_id: format!("a1b2c3-{NAME}-{slot}"),
                deployment: LocalReference { name: NAME.to_owned() },
                slot,
                node_num: Some(slot + 1),
                ..Registration::default()
            })
            .collect(),
        ..GonkaHostStatus::default()
    });
    host
}

fn machine(index: u32) -> Machine {
    Machine {
        ready: true,
        domain: format!("n{index}"),
        gpus_healthy: Some(true),
        ..Machine::default()
    }
}

/// Long after one Sprint and long before the next.
pub fn facts(now_ms: i64) -> Facts {
    Facts {
        schedule: "test".to_owned(),
        chain_id: "gonka-test".to_owned(),
        height: 12_000,
        block_time_ms: now_ms,
        observed_ms: now_ms,
        window: Window::Amber,
        pace: Pace {
            block_millis: 5_000.0,
            spread_millis: 50.0,
        },
        heights: Some(StageHeights {
            poc_start_height: 4_609,
            generation_end_height: 4_644,
            validation_start_height: 4_649,
            validation_end_height: 4_889,
            set_new_validators_height: 5_009,
            next_poc_start_height: NEXT_SPRINT,
            ..StageHeights::default()
        }),
        ..Facts::default()
    }
}
