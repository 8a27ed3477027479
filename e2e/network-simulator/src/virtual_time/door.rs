//! What the outside may do to a network in virtual time. Everything goes the way it goes over sockets: by the same
//! functions as DAPI's ports, refused where a port is stopped or the process is down, lost where packets are.

use super::{
    Ticket,
    queue::{Item, Queue},
};
use crate::{
    dapi::{
        callbacks::{self, Validated},
        nodes::{self, NodeSpec},
        reply::Reply,
    },
    event::{Answer, Command, Effect, Event, Origin},
    exam::book::counted::Batch,
    faults::Port,
    network::Network,
    verbs,
    views::View,
};
use std::collections::BTreeMap;
use thiserror::Error;

/// A request got no answer: nobody listens, or it was lost on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("no answer")]
pub struct NoAnswer;

/// Calls whose answer is still to come.
#[derive(Debug, Default)]
pub struct Waiting {
    given: u64,
    calls: BTreeMap<Ticket, Origin>,
}

impl Waiting {
    pub(super) fn next(&mut self) -> Ticket {
        self.given += 1;
        Ticket(self.given)
    }

    pub(super) fn hold(&mut self, ticket: Ticket, to: Origin) {
        self.calls.insert(ticket, to);
    }

    pub(super) fn take(&mut self, ticket: Ticket) -> Option<Origin> {
        self.calls.remove(&ticket)
    }
}

/// The way from the outside into the network.
#[derive(Debug)]
pub struct Door<'a> {
    net: &'a mut Network,
    queue: &'a mut Queue,
    waiting: &'a mut Waiting,
}

impl<'a> Door<'a> {
    pub(super) fn new(net: &'a mut Network, queue: &'a mut Queue, waiting: &'a mut Waiting) -> Self {
        Self { net, queue, waiting }
    }

    pub fn net(&self) -> &Network {
        self.net
    }

    /// Unix milliseconds.
    pub fn now_ms(&self) -> u64 {
        self.net.now_ms
    }

    /// [`super::Outside::wake`] with this token, so many milliseconds from now.
    pub fn wake_after(&mut self, ms: u64, token: u64) {
        self.queue.push(self.net.now_ms + ms, Item::Wake(token));
    }

    /// Answers a call that was to be answered later; nothing happens when it has timed out.
    pub fn answer(&mut self, ticket: Ticket, result: Result<Answer, String>) {
        if let Some(to) = self.waiting.take(ticket) {
            self.queue
                .push(self.net.now_ms, Item::Event(Event::Reply { to, result }));
        }
    }

    /// Artifacts of a node for DAPI's callback port, `generated`: how many, not which.
    pub fn generated(&mut self, model: &str, stage_height: i64, batch: &Batch) -> Result<Reply, NoAnswer> {
        self.reach(Port::DapiMl)?;
        Ok(self
            .broken(Port::DapiMl)
            .unwrap_or_else(|| callbacks::counted(self.net, model, stage_height, batch)))
    }

    /// A node's verdict on a sample for DAPI's callback port, `validated`.
    pub fn validated(&mut self, model: &str, verdict: &Validated) -> Result<Reply, NoAnswer> {
        self.reach(Port::DapiMl)?;
        Ok(self
            .broken(Port::DapiMl)
            .unwrap_or_else(|| callbacks::judged(self.net, model, verdict)))
    }

    /// Registers or changes a node at DAPI's admin port.
    pub fn put_node(&mut self, spec: NodeSpec) -> Result<Reply, NoAnswer> {
        self.admin(|net| nodes::upsert_spec(net, spec))
    }

    pub fn delete_node(&mut self, id: &str) -> Result<Reply, NoAnswer> {
        self.admin(|net| (nodes::delete(net, id), Vec::new()))
    }

    pub fn set_enabled(&mut self, id: &str, enabled: bool) -> Result<Reply, NoAnswer> {
        self.admin(|net| (nodes::set_enabled(net, id, enabled), Vec::new()))
    }

    /// DAPI's nodes as its admin port shows them; values, in order of registration.
    pub fn nodes(&mut self) -> Result<&[crate::dapi::Node], NoAnswer> {
        self.reach(Port::DapiAdmin)?;
        if self.broken(Port::DapiAdmin).is_some() {
            return Err(NoAnswer);
        }
        Ok(&self.net.dapi.nodes)
    }

    /// The chain as one of its endpoints shows it now, with all that is wrong with that endpoint.
    pub fn view(&mut self, port: Port) -> Result<View<'_>, NoAnswer> {
        self.reach(port)?;
        if self.broken(port).is_some() {
            return Err(NoAnswer);
        }
        Ok(View::new(self.net, port))
    }

    /// A verb, as the control API takes it.
    pub fn command(&mut self, command: &Command) -> Result<(), String> {
        let effects = verbs::apply(self.net, command)?;
        self.follow(effects);
        Ok(())
    }

    /// A chance of so many in a hundred, by the scenario's seed.
    pub fn draw_percent(&mut self, percent: u32) -> bool {
        percent > 0 && self.net.draw_percent(percent)
    }

    fn admin(&mut self, act: impl FnOnce(&mut Network) -> (Reply, Vec<Effect>)) -> Result<Reply, NoAnswer> {
        self.reach(Port::DapiAdmin)?;
        if let Some(broken) = self.broken(Port::DapiAdmin) {
            return Ok(broken);
        }
        let (reply, effects) = act(self.net);
        self.follow(effects);
        Ok(reply)
    }

    /// What a request set off happens at once, but after who made it has its answer.
    fn follow(&mut self, effects: Vec<Effect>) {
        if !effects.is_empty() {
            self.queue.push(self.net.now_ms, Item::Effects(effects));
        }
    }

    fn reach(&mut self, port: Port) -> Result<(), NoAnswer> {
        let fault = self.net.faults.port(port);
        let is_up = port.endpoint().is_some() || self.net.dapi.up;
        if !is_up || fault.stopped || fault.stalled || self.net.loses(port) {
            return Err(NoAnswer);
        }
        Ok(())
    }

    /// What a port answers in place of an answer.
    fn broken(&self, port: Port) -> Option<Reply> {
        let status = self.net.faults.port(port).status?;
        Some(Reply::error(status, "fault injected by the scenario"))
    }
}
