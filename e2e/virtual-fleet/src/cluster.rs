//! Machines and what runs on them: scheduler, kubelets, node controller, routing. Everything but slots' own state is as rough as
//! it can be while the operator sees what it would see.

mod life;

pub use life::GRACE_MS;

use std::collections::BTreeMap;

use crate::slot::Slot;
use crate::store::{self, Id};

/// FNV-1a.
const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0100_0000_01b3;

/// A machine.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Has power; outages that overlap are counted.
    pub off: u32,
    /// Cables that are out.
    pub cut: u32,
    /// When one of them changed last, Unix milliseconds.
    pub changed_ms: i64,
    /// Findings on its GPUs.
    pub findings: u32,
    /// How far its engines are from the usual rate, thousandths.
    pub rate_permille: i64,
    /// When people gave it back after it was theirs, Unix milliseconds: what is on it has to show since then what it computes. 0: it has.
    pub given_back_ms: i64,
}

impl Machine {
    /// Somebody outside reaches what runs on it.
    pub fn is_reachable(&self) -> bool {
        self.off == 0 && self.cut == 0
    }
}

/// What a kubelet knows of a pod.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent marks of one pod")]
pub struct PodLife {
    /// Its place in the API.
    pub id: Id,
    /// Machine; empty until scheduled.
    pub machine: String,
    /// Address; empty while it does not run.
    pub address: String,
    /// Its `serve`; absent while it does not run.
    pub slot: Option<Slot>,
    /// `serve` is away; restarts that overlap are counted.
    pub away: u32,
    /// It was told to end.
    pub ending: bool,
    /// It ended for good.
    pub ended: bool,
    /// A tick is on the agenda.
    pub ticking: bool,
    /// A report is on the agenda.
    pub reporting: bool,
    /// When it said how it is last, Unix milliseconds.
    pub reported_ms: i64,
}

/// All of them.
#[derive(Debug, Default)]
pub struct Cluster {
    /// Machines by name.
    pub machines: BTreeMap<String, Machine>,
    /// Pods by UID.
    pub pods: BTreeMap<String, PodLife>,
    /// Address that a Service's leads to, by ClusterIP.
    pub routes: BTreeMap<String, String>,
    /// Changes that watches have not told yet.
    pub outbox: Vec<store::Event>,
    addresses: u32,
}

impl Cluster {
    /// A pod is to be scheduled. True when it was not known.
    pub fn expect(&mut self, uid: &str, id: &Id) -> bool {
        if self.pods.contains_key(uid) {
            return false;
        }
        self.pods.insert(
            uid.to_owned(),
            PodLife {
                id: id.clone(),
                machine: String::new(),
                address: String::new(),
                slot: None,
                away: 0,
                ending: false,
                ended: false,
                ticking: false,
                reporting: false,
                reported_ms: 0,
            },
        );
        true
    }

    /// A pod is to end. True when that is news.
    pub fn tell_to_end(&mut self, uid: &str) -> bool {
        self.pods
            .get_mut(uid)
            .is_some_and(|pod| !std::mem::replace(&mut pod.ending, true))
    }

    /// A pod is gone from the API: its containers are ended, where its machine hears of it.
    pub fn pod_removed(&mut self, name: &str) {
        self.pods.retain(|_, pod| pod.id.name != name);
    }

    /// The machine a pod runs on.
    pub fn machine_of(&self, pod: &PodLife) -> Option<&Machine> {
        self.machines.get(&pod.machine)
    }

    /// Somebody outside reaches the pod's `serve`.
    pub fn is_reachable(&self, uid: &str) -> bool {
        self.pods.get(uid).is_some_and(|pod| {
            pod.slot.is_some() && pod.away == 0 && self.machine_of(pod).is_some_and(Machine::is_reachable)
        })
    }

    /// A pod without a slot could be given one: nothing but its machine's past speaks against it.
    fn is_proven(&self, pod: &PodLife, slot: &Slot) -> bool {
        let since_ms = self.machine_of(pod).map_or(0, |machine| machine.given_back_ms);
        slot.state.memory.rehearsed.time_ms >= since_ms
    }

    /// Whether a pod has a slot or could be given one. An assignment is an object: nobody writes it while nobody `takes_writes`.
    pub fn is_assignable(&self, pod: &PodLife, slot: &Slot, takes_writes: bool) -> bool {
        slot.held().is_some() || (takes_writes && self.is_proven(pod, slot))
    }

    /// A pod has shown what it computes. Once all on its machine have, nothing more is asked of what comes to it.
    pub fn proven(&mut self, uid: &str) {
        let Some(machine) = self.pods.get(uid).map(|pod| pod.machine.clone()) else {
            return;
        };
        let mut here = self.pods.values().filter(|pod| pod.machine == machine);
        let all = here.all(|pod| pod.slot.as_ref().is_none_or(|slot| self.is_proven(pod, slot)));
        if let Some(machine) = self.machines.get_mut(&machine).filter(|_| all) {
            machine.given_back_ms = 0;
        }
    }

    /// The machine answers for the pod, whatever `serve` does: connections are refused, not waited for.
    pub fn is_machine_reachable(&self, uid: &str) -> bool {
        self.pods
            .get(uid)
            .and_then(|pod| self.machine_of(pod))
            .is_some_and(Machine::is_reachable)
    }

    /// A number that is another one when what runs, is loaded, healthy, reachable or assignable is.
    pub fn mark(&self, takes_writes: bool) -> u64 {
        let pods = self.pods.values().filter_map(|pod| Some((pod, pod.slot.as_ref()?)));
        pods.fold(FNV_OFFSET, |mark, (pod, slot)| {
            let machine = self.machine_of(pod);
            let is = |what: fn(&Machine) -> bool| u8::from(machine.is_some_and(what));
            let flags = u8::from(pod.ended)
                | u8::from(pod.away > 0) << 1
                | u8::from(slot.is_loaded()) << 2
                | is(|machine| machine.off > 0) << 3
                | is(|machine| machine.cut > 0) << 4
                | is(|machine| machine.findings > 0) << 5
                | u8::from(self.is_assignable(pod, slot, takes_writes)) << 6;
            let bytes = pod.address.bytes().chain([flags]);
            bytes.fold(mark, |mark, byte| (mark ^ u64::from(byte)).wrapping_mul(FNV_PRIME))
        })
    }

    /// UID of the pod with an address.
    pub fn pod_at(&self, address: &str) -> Option<&String> {
        let mut found = self
            .pods
            .iter()
            .filter(|(_, pod)| pod.address == address && pod.slot.is_some());
        found.next().map(|(uid, _)| uid)
    }

    /// Pods that run, by name.
    pub fn running(&self) -> Vec<String> {
        let mut running: Vec<(&String, &String)> = self
            .pods
            .iter()
            .filter(|(_, pod)| pod.slot.is_some() && !pod.ended)
            .map(|(uid, pod)| (&pod.id.name, uid))
            .collect();
        running.sort_unstable();
        running.into_iter().map(|(_, uid)| uid.clone()).collect()
    }

    /// An address nobody had.
    pub fn new_address(&mut self) -> String {
        self.addresses += 1;
        let [_, high, middle, low] = self.addresses.to_be_bytes();
        format!("10.{}.{middle}.{low}", 128 + high % 64)
    }
}
