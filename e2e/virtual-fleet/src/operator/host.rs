//! One pass over a GonkaHost: lists from the API server, DAPI through its doors, the account off the chain.

use std::sync::Arc;

use crds::{GonkaHost, GpuNode};
use network_simulator::dapi::nodes::NodeSpec;
use network_simulator::faults::{ENDPOINTS, Port};
use network_simulator::views::{View, setup};
use network_simulator::virtual_time::door::{Door, NoAnswer};
use operator::dapi::answers::setup_report;
use operator::facts::Facts;
use operator::gonka_host::apply::changes;
use operator::gonka_host::decide::decide;
use operator::gonka_host::observe::{Objects, Surroundings, assemble, machine, records, wanted_machines};
use operator::gonka_host::observed::{ChainView, Observed, Reading};
use operator::gonka_host::plan::DapiWrite;

use super::{Controller, Failure, Operator, answers};
use crate::ground::Ground;
use crate::store::{Id, Kind};

/// DAPI makes a new setup report at most once a minute.
const REPORT_MS: i64 = 60_000;

impl Operator {
    /// Milliseconds until the next look.
    pub(super) fn pass_host(&mut self, ground: &mut Ground, door: &mut Door<'_>) -> Result<i64, Failure> {
        let hosts: Vec<Arc<GonkaHost>> = self.caches.hosts.values().cloned().collect();
        let mut again = i64::from(u32::MAX);
        for host in hosts {
            let observed = self.observe_host(ground, door, &host)?;
            let desired = decide(&observed);
            let refused = write(ground, door, &desired.writes);
            for change in changes(&observed, &desired, refused.as_deref()) {
                self.write(ground, door, Controller::Host, change)?;
            }
            if refused.is_some() {
                return Err(Failure::Again);
            }
            again = again.min(i64::try_from(desired.requeue_millis).unwrap_or(i64::MAX));
        }
        Ok(again)
    }

    fn observe_host(
        &mut self,
        ground: &mut Ground,
        door: &mut Door<'_>,
        host: &GonkaHost,
    ) -> Result<Observed, Failure> {
        if !ground.api_answers() {
            return Err(Failure::Again);
        }
        let now_ms = Ground::now(door);
        let at = ground.list_version();
        let (hosts, deployments, services) = self.caches.list_for_host(&ground.store, at);
        let objects = Objects {
            schedule_exists: ground
                .store
                .get(&Id::new(Kind::SprintSchedule, "", &host.spec.schedule_name))
                .is_some(),
            hosts,
            deployments,
            services,
            exams: records(self.caches.runs.values(), host),
            secret_problem: String::new(),
        };
        let facts = self.facts().cloned().unwrap_or_default();
        let surroundings = Surroundings {
            now_ms,
            settings: &self.settings,
            facts: &facts,
            board: &self.board,
        };
        let mut observed = assemble(host, objects, &surroundings);
        self.ask_dapi(door, now_ms, &mut observed);
        for name in wanted_machines(&observed) {
            let node = ground.store.get(&Id::new(Kind::GpuNode, "", &name));
            if let Some(node) = node.and_then(|node| serde_json::from_value::<GpuNode>(node.as_ref().clone()).ok()) {
                observed.machines.insert(name, machine(&node));
            }
        }
        observed.chain = chain(door, &facts);
        Ok(observed)
    }

    fn ask_dapi(&mut self, door: &mut Door<'_>, now_ms: i64, observed: &mut Observed) {
        let shown = door.view(Port::DapiAdmin);
        observed.nodes = match shown {
            Ok(view) => Reading::known(answers::nodes(&view)),
            Err(silent) => Reading::of::<NoAnswer>(Err(silent)),
        };
        let known = self.report.as_ref().filter(|(at, _)| now_ms - at < REPORT_MS);
        observed.report = match (door.view(Port::DapiAdmin), known) {
            (Err(silent), _) => Reading::of::<NoAnswer>(Err(silent)),
            (Ok(_), Some((_, report))) => Reading::known(report.clone()),
            (Ok(view), None) => {
                let report = setup_report(&setup::report(view.net, &[]));
                if let Ok(report) = &report {
                    self.report = Some((now_ms, report.clone()));
                }
                Reading::of(report)
            }
        };
        match door.view(Port::DapiPublic) {
            Ok(view) => {
                let ours = view.net.hosts.get(view.net.ours);
                observed.identity = Reading::known(ours.map(|host| host.address.clone()).unwrap_or_default());
                observed.dapi_height = Reading::known(view.height());
            }
            Err(silent) => {
                observed.identity = Reading::of::<NoAnswer>(Err(silent));
                observed.dapi_height = Reading::of::<NoAnswer>(Err(silent));
            }
        }
    }
}

/// Carries out the writes in order; says what was refused. No node is added once a write was refused.
fn write(ground: &mut Ground, door: &mut Door<'_>, writes: &[DapiWrite]) -> Option<String> {
    let mut refused = Vec::new();
    for write in writes {
        if matches!(write, DapiWrite::Post(_)) && !refused.is_empty() {
            continue;
        }
        let node = write.node();
        ground.note(door, &format!("DAPI {} {}", method(write), node.id));
        let spec: Option<NodeSpec> = serde_json::to_value(node)
            .ok()
            .and_then(|value| serde_json::from_value(value).ok());
        let reply = spec.map(|spec| door.put_node(spec));
        match reply {
            Some(Ok(reply)) if reply.status < 300 => {}
            Some(Ok(reply)) => refused.push(format!("node {}: status {}", node.id, reply.status)),
            Some(Err(silent)) => refused.push(format!("node {}: {silent}", node.id)),
            None => refused.push(format!("node {}: it is no node", node.id)),
        }
    }
    (!refused.is_empty()).then(|| refused.join("; "))
}

fn method(write: &DapiWrite) -> &'static str {
    match write {
        DapiWrite::Post(_) => "POST",
        DapiWrite::Put(_) => "PUT",
    }
}

/// The first REST door that answers.
pub(super) fn ask<T>(door: &mut Door<'_>, read: impl Fn(&View<'_>) -> T) -> Option<T> {
    (0..ENDPOINTS).find_map(|index| door.view(Port::Rest(index)).ok().map(|view| read(&view)))
}

fn chain(door: &mut Door<'_>, facts: &Facts) -> ChainView {
    let read = ask(door, |view| {
        let mut shown = ChainView::default();
        if let Some((weight, scales)) = answers::standing(view) {
            shown.weight = Reading::known(weight);
            shown.scales = scales;
        }
        shown.settlement = Reading::known(answers::settlement(view));
        let epochs = [facts.epoch - 1, facts.epoch - 2].into_iter();
        let summaries = epochs
            .filter(|epoch| *epoch > 0)
            .filter_map(|epoch| Some((epoch, answers::summary(view, epoch)?)));
        shown.summaries = Reading::known(summaries.collect());
        shown
    });
    read.unwrap_or_else(|| ChainView {
        weight: Reading::of::<NoAnswer>(Err(NoAnswer)),
        settlement: Reading::of::<NoAnswer>(Err(NoAnswer)),
        summaries: Reading::of::<NoAnswer>(Err(NoAnswer)),
        ..ChainView::default()
    })
}
