//! Plan and log as every connection shares them. Decides nothing itself: [`super::plan`] does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::watch;

use super::call::Call;
use super::log::{Log, Written};
use super::plan::{Fate, Line, Of, Plan};

#[derive(Debug, Default)]
struct Inner {
    plan: Plan,
    /// Grows with every new plan.
    number: u64,
    /// Plans that ended watches, by number: a watch that was open then ends, however short the plan was in force.
    ends: Vec<(u64, Plan)>,
    log: Log,
    struck: Option<Call>,
    /// Path and query of every list that was made.
    lists: BTreeSet<String>,
    /// Bodies of an earlier time.
    remembered: BTreeMap<String, Bytes>,
}

/// What happens to requests, and what was written.
#[derive(Debug)]
pub struct Gate {
    inner: Mutex<Inner>,
    /// Grows with every new plan.
    plans: watch::Sender<u64>,
    struck: watch::Sender<bool>,
}

impl Default for Gate {
    fn default() -> Self {
        Self {
            inner: Mutex::default(),
            plans: watch::channel(0).0,
            struck: watch::channel(false).0,
        }
    }
}

impl Gate {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on this happens; writes are counted anew.
    pub fn set(&self, plan: Plan) {
        {
            let mut inner = self.lock();
            inner.number += 1;
            if plan.ends_watches() {
                let number = inner.number;
                inner.ends.push((number, plan.clone()));
            }
            inner.plan = plan;
            inner.struck = None;
            inner.log.set_mark();
        }
        self.struck.send_replace(false);
        self.plans.send_modify(|number| *number += 1);
    }

    /// Waits until the plan's strike has fallen, and says on what.
    pub async fn strike(&self) -> Call {
        let mut struck = self.struck.subscribe();
        loop {
            if *struck.borrow_and_update()
                && let Some(call) = self.lock().struck.clone()
            {
                return call;
            }
            // The sender is ours: this cannot fail while we are borrowed.
            let _changed = struck.changed().await;
        }
    }

    /// What was struck, if anything was.
    pub fn struck(&self) -> Option<Call> {
        self.lock().struck.clone()
    }

    /// Writes since the plan was set that count.
    pub fn count(&self, of: &Of) -> u64 {
        self.lock().log.count(of)
    }

    /// Writes since the plan was set.
    pub fn writes(&self) -> Vec<Written> {
        self.lock().log.since_mark().to_vec()
    }

    /// Number of all writes but Events and those of `quiet`.
    pub fn busy(&self, quiet: &[&str]) -> usize {
        self.lock().log.busy(quiet)
    }

    /// All deletions ever sent, and how many of them did not say which object they meant.
    pub fn deletions(&self) -> (usize, Vec<String>) {
        let inner = self.lock();
        (inner.log.deletions().count(), inner.log.careless_deletions())
    }

    /// These are what stale lists will say, by path and query.
    pub(super) fn remember(&self, lists: BTreeMap<String, Bytes>) {
        self.lock().remembered = lists;
    }

    /// Paths and queries of every list that was made.
    pub(super) fn lists(&self) -> BTreeSet<String> {
        self.lock().lists.clone()
    }

    pub(super) fn write(&self, call: &Call, body: &[u8]) -> (usize, Fate) {
        let mut inner = self.lock();
        let counted = inner
            .plan
            .strike
            .as_ref()
            .map_or(0, |strike| inner.log.count(&strike.of));
        let fate = inner.plan.write(call, counted, inner.struck.is_some());
        let number = inner.log.add(call.clone(), body);
        let falls = inner
            .plan
            .strike
            .as_ref()
            .is_some_and(|strike| strike.of.counts(call) && counted + 1 == strike.nth);
        if falls && inner.struck.is_none() {
            inner.struck = Some(call.clone());
        }
        (number, fate)
    }

    pub(super) fn answered(&self, number: usize, status: u16) {
        self.lock().log.answered(number, status);
    }

    /// Tells who waits in [`Gate::strike`] that it has fallen, after whatever was to be carried out before.
    pub(super) fn announce(&self) {
        self.struck.send_replace(true);
    }

    pub(super) fn line(&self, call: &Call, kind: &str, number: u64) -> Line {
        self.lock().plan.line(call, kind, number)
    }

    /// Number of the plan in force.
    pub(super) fn number(&self) -> u64 {
        self.lock().number
    }

    /// Whether a watch ends that was opened while plan `opened` was in force.
    pub(super) fn is_gone(&self, call: &Call, opened: u64) -> bool {
        let inner = self.lock();
        let since = |(number, plan): &(u64, Plan)| *number > opened && plan.is_gone(call);
        inner.plan.is_gone(call) || inner.ends.iter().any(since)
    }

    pub(super) fn plans(&self) -> watch::Receiver<u64> {
        self.plans.subscribe()
    }

    pub(super) fn remembered(&self, call: &Call, key: &str) -> Option<Bytes> {
        let inner = self.lock();
        inner
            .plan
            .is_stale(call)
            .then(|| inner.remembered.get(key).cloned())
            .flatten()
    }

    pub(super) fn listed(&self, key: String) {
        self.lock().lists.insert(key);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::fault_proxy::plan::{How, Stale, Trouble};

    fn create() -> Call {
        Call::of(
            &http::Method::POST,
            &"/api/v1/namespaces/gonka/pods?fieldManager=gonka-fleet%2Fmodel-deployment"
                .parse()
                .unwrap(),
        )
    }

    #[tokio::test]
    async fn a_strike_falls_once_and_a_new_plan_counts_anew() {
        let gate = Gate::default();
        gate.set(Plan::strike(Of::All, 2, How::AnswerLost));
        assert_eq!(gate.write(&create(), b"{}").1, Fate::Pass);
        assert_eq!(gate.write(&create(), b"{}").1, Fate::PassInSilence);
        assert_eq!(gate.write(&create(), b"{}").1, Fate::Silence);
        gate.announce();
        assert_eq!(gate.strike().await, create());
        gate.set(Plan::default());
        assert_eq!(gate.struck(), None);
        assert_eq!(gate.write(&create(), b"{}").1, Fate::Pass);
        assert_eq!((gate.count(&Of::All), gate.busy(&[])), (1, 4));
    }

    #[test]
    fn a_stale_list_says_what_was_remembered() {
        let gate = Gate::default();
        let uri: http::Uri = "/api/v1/pods?limit=500".parse().unwrap();
        let call = Call::of(&http::Method::GET, &uri);
        gate.listed(uri.to_string());
        assert!(gate.lists().contains(&uri.to_string()));
        gate.remember(BTreeMap::from([(uri.to_string(), Bytes::from_static(b"old"))]));
        assert_eq!(gate.remembered(&call, &uri.to_string()), None);
        gate.set(Plan::troubles([Trouble::old("pods", Stale::Watched, Duration::ZERO)]));
        assert_eq!(
            gate.remembered(&call, &uri.to_string()),
            Some(Bytes::from_static(b"old"))
        );
        assert_eq!(gate.remembered(&call, "/api/v1/pods?limit=1"), None);
    }
}
