//! The life of pods and machines, event by event.

use network_simulator::virtual_time::door::Door;
use serde_json::{Value, json};

use crate::agenda::Event;
use crate::ground::Ground;
use crate::slot::{Make, Slot};
use crate::store::{Actor, Id, Kind, time};

/// From the kubelet's word until containers run.
const START_MS: (i64, i64) = (800, 2_500);
/// A readiness probe needs so long.
const PROBE_MS: (i64, i64) = (2_000, 6_000);
/// The node controller waits for so long before it says that a machine is lost.
pub const GRACE_MS: i64 = 40_000;
/// From power to a kubelet that tells.
pub const BOOT_MS: i64 = 10_000;
/// A pod that holds a slot waits for so long until somebody takes it over.
const FAREWELL_MS: i64 = 15_000;
/// Then its door refuses for so long.
const REFUSES_MS: i64 = 3_000;

impl Ground {
    /// The scheduler: of the machines that take this pod one with the fewest of its deployment, as pods ask for, and the fewest at all.
    pub fn schedule(&mut self, door: &mut Door<'_>, id: &Id) {
        let Some(pod) = self.store.get(id).cloned() else { return };
        let uid = pod["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
        let Some(machine) = self.machine_for(&pod) else {
            self.agenda.after(door, 2_000, Event::Schedule { id: id.clone() });
            return;
        };
        if let Some(life) = self.cluster.pods.get_mut(&uid) {
            life.machine.clone_from(&machine);
        }
        let bound = self.store.edit(id, |pod| pod["spec"]["nodeName"] = json!(machine));
        if bound.is_ok() {
            self.note(door, &format!("{} on {machine}", id.name));
            self.tell(door);
            let ms = self.delays.between(START_MS.0, START_MS.1);
            self.agenda.after(door, ms, Event::Start { pod_uid: uid });
        }
    }

    fn machine_for(&self, pod: &Value) -> Option<String> {
        let terms = &pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"];
        let fields = terms[0]["matchFields"].as_array().cloned().unwrap_or_default();
        let avoided = |name: &str| fields.iter().any(|field| field["values"][0] == json!(name));
        let ready = |name: &str| {
            let node = self.store.get(&Id::new(Kind::Node, "", name));
            node.is_some_and(|node| {
                let cordoned = node["spec"]["unschedulable"] == json!(true);
                !cordoned && node["status"]["conditions"][0]["status"] == json!("True")
            })
        };
        let deployment = &pod["metadata"]["labels"][crds::labels::DEPLOYMENT];
        let siblings = self
            .store
            .list(Kind::Pod)
            .filter(|(_, other)| other["metadata"]["labels"][crds::labels::DEPLOYMENT] == *deployment);
        let crowd: Vec<&str> = siblings
            .filter_map(|(_, other)| other["spec"]["nodeName"].as_str())
            .collect();
        let near = |name: &str| crowd.iter().filter(|other| **other == name).count();
        let load = |name: &str| {
            let here = self
                .cluster
                .pods
                .values()
                .filter(|life| life.machine == name && !life.ended);
            here.count()
        };
        self.cluster
            .machines
            .keys()
            .filter(|name| ready(name) && !avoided(name) && load(name) < self.plan.pods_per_machine)
            .min_by_key(|name| (near(name), load(name), (*name).clone()))
            .cloned()
    }

    /// Containers start, for the first time or after their machine got its power back.
    pub fn start_pod(&mut self, door: &mut Door<'_>, uid: &str) {
        let address = self.cluster.new_address();
        let Some(life) = self.cluster.pods.get(uid) else { return };
        let Some(machine) = self.cluster.machine_of(life).filter(|machine| machine.off == 0) else {
            return;
        };
        if life.ended || life.slot.is_some() {
            return;
        }
        let id = life.id.clone();
        let rate = i64::from(self.plan.nonces_per_second) * (1000 + machine.rate_permille);
        let deployment_uid = self
            .store
            .get(&id)
            .and_then(|pod| pod["metadata"]["ownerReferences"][0]["uid"].as_str().map(str::to_owned));
        let deployment = self
            .store
            .get(&id)
            .and_then(|pod| pod["metadata"]["labels"][crds::labels::DEPLOYMENT].as_str());
        let model = self.plan.model_of(deployment.unwrap_or_default()).to_owned();
        let slot = Slot::new(Make {
            pod_uid: uid.to_owned(),
            deployment_uid: deployment_uid.unwrap_or_default(),
            model,
            chain_id: String::new(),
            rate_milli: rate.max(0).unsigned_abs(),
            callback_ms: i64::from(self.plan.callback_interval_seconds) * 1000,
            stage_ms: self.stage_ms,
        });
        let starts = slot.starts();
        if let Some(life) = self.cluster.pods.get_mut(uid) {
            life.slot = Some(slot);
            life.address.clone_from(&address);
            life.away = 0;
        }
        self.note(door, &format!("{} runs at {address}", id.name));
        self.pod_status(door, &id, "Running", &address, false);
        let ready = self.delays.between(PROBE_MS.0, PROBE_MS.1);
        let pod_uid = uid.to_owned();
        let event = Event::Ready {
            pod_uid: pod_uid.clone(),
            address: address.clone(),
        };
        self.agenda.after(door, ready, event);
        self.load(door, uid, starts);
    }

    /// An engine begins to load its model.
    pub fn load(&mut self, door: &mut Door<'_>, uid: &str, starts: u32) {
        let usual = self.plan.load_millis;
        let ms = self.delays.between(usual * 9 / 10, usual * 11 / 10);
        let address = self.cluster.pods.get(uid).map(|life| life.address.clone());
        let event = Event::Loaded {
            pod_uid: uid.to_owned(),
            address: address.unwrap_or_default(),
            starts,
        };
        self.agenda.after(door, ms, event);
    }

    /// The kubelet's probe succeeds.
    pub fn pod_ready(&mut self, door: &mut Door<'_>, uid: &str, address: &str) {
        let Some(life) = self
            .cluster
            .pods
            .get(uid)
            .filter(|life| life.address == address && !life.ended)
        else {
            return;
        };
        let id = life.id.clone();
        if self.cluster.is_reachable(uid) {
            self.pod_status(door, &id, "Running", address, true);
        } else {
            let event = Event::Ready {
                pod_uid: uid.to_owned(),
                address: address.to_owned(),
            };
            self.agenda.after(door, 5_000, event);
        }
    }

    /// A pod that was told to end keeps its slot until it was moved, and not for ever.
    pub fn end_pod(&mut self, door: &mut Door<'_>, uid: &str, since_ms: i64) {
        let now_ms = Self::now(door);
        let Some(life) = self.cluster.pods.get(uid) else { return };
        let id = life.id.clone();
        let up = self.cluster.machine_of(life).is_some_and(|machine| machine.off == 0);
        let holds = life.slot.as_ref().is_some_and(|slot| slot.held().is_some());
        let waited = now_ms - since_ms;
        let may_go = !holds || waited >= FAREWELL_MS || life.slot.is_none();
        let later = |pod_uid: &str| Event::Ending {
            pod_uid: pod_uid.to_owned(),
            since_ms,
        };
        if !up || !may_go {
            self.agenda.after(door, 1_000, later(uid));
            return;
        }
        if let Some(life) = self.cluster.pods.get_mut(uid).filter(|life| !life.ended) {
            life.ended = true;
            if holds || waited > 1_000 {
                life.away += 1;
                self.agenda.after(door, REFUSES_MS, later(uid));
                return;
            }
        }
        self.note(door, &format!("{} is gone", id.name));
        if self.store.delete(&id, Actor::Cluster, Some(0), now_ms).is_ok() {
            self.tell(door);
        }
    }

    /// Containers end for good.
    pub fn pod_dies(&mut self, door: &mut Door<'_>, uid: &str) {
        let Some(life) = self.cluster.pods.get_mut(uid) else {
            return;
        };
        life.ended = true;
        life.slot = None;
        let id = life.id.clone();
        self.pod_status(door, &id, "Failed", "", false);
    }

    /// A machine lost its power: memory and addresses of its pods are gone.
    pub fn power_cut(&mut self, door: &mut Door<'_>, name: &str) {
        let now_ms = Self::now(door);
        if let Some(machine) = self.cluster.machines.get_mut(name) {
            machine.off += 1;
            machine.changed_ms = now_ms;
        }
        for life in self.cluster.pods.values_mut().filter(|life| life.machine == name) {
            life.slot = None;
        }
        self.judge_later(door, name, GRACE_MS);
    }

    /// It has power again: its pods start anew where they were, at new addresses.
    pub fn power_back(&mut self, door: &mut Door<'_>, name: &str) {
        let now_ms = Self::now(door);
        if let Some(machine) = self.cluster.machines.get_mut(name) {
            machine.off = machine.off.saturating_sub(1);
            machine.changed_ms = now_ms;
        }
        let here: Vec<String> = self
            .cluster
            .pods
            .iter()
            .filter(|(_, life)| life.machine == name && !life.ended)
            .map(|(uid, _)| uid.clone())
            .collect();
        for pod_uid in here {
            let ms = BOOT_MS + self.delays.between(START_MS.0, START_MS.1);
            self.agenda.after(door, ms, Event::Start { pod_uid });
        }
        self.judge_later(door, name, BOOT_MS);
    }

    /// The node controller looks at a machine whose state changed just now.
    pub fn judge_later(&mut self, door: &mut Door<'_>, name: &str, ms: i64) {
        let since_ms = Self::now(door);
        let machine = name.to_owned();
        self.agenda.after(door, ms, Event::Judge { machine, since_ms });
    }

    /// What the API says of a machine follows what it is, late.
    pub fn judge(&mut self, door: &mut Door<'_>, name: &str, since_ms: i64) {
        let now = time(Self::now(door));
        let Some(machine) = self
            .cluster
            .machines
            .get(name)
            .filter(|machine| machine.changed_ms == since_ms)
        else {
            return;
        };
        let up = machine.is_reachable();
        let status = if up { "True" } else { "Unknown" };
        let edited = self.store.edit(&Id::new(Kind::Node, "", name), |node| {
            let condition = &mut node["status"]["conditions"][0];
            if condition["status"] != json!(status) {
                condition["status"] = json!(status);
                condition["lastTransitionTime"] = json!(now);
            }
        });
        if edited.is_err() {
            return;
        }
        self.note(door, &format!("node {name} Ready={status}"));
        self.tell(door);
        if up {
            return;
        }
        let here: Vec<(Id, String)> = self
            .cluster
            .pods
            .values()
            .filter(|life| life.machine == name && !life.ended && !life.address.is_empty())
            .map(|life| (life.id.clone(), life.address.clone()))
            .collect();
        for (id, address) in here {
            self.pod_status(door, &id, "Running", &address, false);
        }
    }

    /// What a machine's agent says of its GPUs.
    pub fn tell_findings(&mut self, door: &mut Door<'_>, name: &str) {
        let now = time(Self::now(door));
        let Some(machine) = self.cluster.machines.get(name) else {
            return;
        };
        let bad = machine.findings > 0;
        let finding = json!({"rule": "EccUncorrectable", "blocking": true, "message": "", "sinceTime": now});
        let status = json!({
            "gpuCount": 1,
            "gpus": [{
                "index": 0, "uuid": format!("GPU-{name}"), "product": "NVIDIA H200", "memoryMebibytes": 143_360,
                "pciBusID": "0000:01:00.0", "health": if bad { "Unhealthy" } else { "Healthy" },
                "findings": if bad { vec![finding] } else { Vec::new() },
            }],
            "conditions": [{
                "type": "GpusHealthy", "status": if bad { "False" } else { "True" }, "reason": "AsExpected",
                "message": "", "lastTransitionTime": now,
            }],
        });
        let edited = self.store.edit(&Id::new(Kind::GpuNode, "", name), |node| {
            crate::store::merge(node, &json!({"status": status}));
        });
        if edited.is_ok() {
            self.tell(door);
        }
    }

    /// Machines' routing learns of a slice.
    pub fn route(&mut self, id: &Id) {
        let service = self.store.get(&Id::new(Kind::Service, &id.namespace, &id.name));
        let Some(ip) = service.and_then(|service| service["spec"]["clusterIP"].as_str().map(str::to_owned)) else {
            return;
        };
        let slice = self.store.get(id);
        let address = slice.and_then(|slice| slice["endpoints"][0]["addresses"][0].as_str().map(str::to_owned));
        match address {
            Some(address) => self.cluster.routes.insert(ip, address),
            None => self.cluster.routes.remove(&ip),
        };
    }
}
