//! Every version of every slot's slice, as the API server tells it, and what must hold of each.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crds::labels;
use futures::StreamExt as _;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Client, ResourceExt as _};
use tokio::task::JoinSet;

use crate::fleet::ours;

/// What a slot was, from generation to generation.
#[derive(Debug, Default)]
pub struct History {
    slots: BTreeMap<(String, String), BTreeMap<i64, String>>,
    newest: BTreeMap<(String, String), i64>,
    holds: BTreeMap<String, (String, String)>,
    wrong: Vec<String>,
}

impl History {
    /// Takes note of one version. `holder` is the pod's UID, empty when nobody holds it.
    pub fn saw(&mut self, slice: &str, uid: &str, generation: i64, holder: &str) {
        let slot = (slice.to_owned(), uid.to_owned());
        let newest = self.newest.entry(slot.clone()).or_default();
        if generation < *newest {
            self.wrong
                .push(format!("{slice} went from generation {newest} back to {generation}"));
        }
        *newest = generation.max(*newest);
        self.holds.retain(|_, held| *held != slot);
        if holder.is_empty() {
            return;
        }
        let known = self.slots.entry(slot.clone()).or_default();
        match known.get(&generation) {
            Some(other) if other != holder => self.wrong.push(format!(
                "{slice} generation {generation} was pod {other}'s and is {holder}'s"
            )),
            Some(_) => {}
            None => {
                known.insert(generation, holder.to_owned());
            }
        }
        if let Some(other) = self.holds.insert(holder.to_owned(), slot) {
            self.wrong
                .push(format!("pod {holder} holds {slice} while it holds {}", other.0));
        }
    }

    /// A slice that is gone holds nothing.
    pub fn lost(&mut self, slice: &str, uid: &str) {
        self.holds.retain(|_, (name, known)| name != slice || known != uid);
    }

    /// How often slots changed hands.
    pub fn changes(&self) -> usize {
        self.slots
            .values()
            .map(|generations| generations.len().saturating_sub(1))
            .sum()
    }
}

/// Watches until it is dropped.
#[derive(Debug)]
pub struct Watch {
    history: Arc<Mutex<History>>,
    _task: JoinSet<()>,
}

impl Watch {
    /// Begins. Reads past the proxy.
    pub fn begin(client: &Client) -> Self {
        let history = Arc::new(Mutex::new(History::default()));
        let mut task = JoinSet::new();
        let config = watcher::Config::default().labels(&format!("{}={}", labels::ROLE, labels::ROLE_SLOT));
        let events = watcher(ours::<EndpointSlice>(client), config).default_backoff();
        let told = Arc::clone(&history);
        task.spawn(events.for_each(move |event| {
            let mut history = told.lock().unwrap_or_else(PoisonError::into_inner);
            match event {
                Ok(watcher::Event::Apply(slice) | watcher::Event::InitApply(slice)) => {
                    let generation = slice.annotations().get(labels::GENERATION);
                    let holder = slice
                        .endpoints
                        .first()
                        .and_then(|endpoint| endpoint.target_ref.as_ref()?.uid.clone());
                    history.saw(
                        &slice.name_any(),
                        &slice.uid().unwrap_or_default(),
                        generation.and_then(|text| text.parse().ok()).unwrap_or_default(),
                        &holder.unwrap_or_default(),
                    );
                }
                Ok(watcher::Event::Delete(slice)) => history.lost(&slice.name_any(), &slice.uid().unwrap_or_default()),
                Ok(_) | Err(_) => {}
            }
            std::future::ready(())
        }));
        Self { history, _task: task }
    }

    /// How often slots changed hands; an error when anything was wrong on the way.
    pub fn judge(&self) -> anyhow::Result<usize> {
        let history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        anyhow::ensure!(history.wrong.is_empty(), "{}", history.wrong.join("\n"));
        Ok(history.changes())
    }
}

#[test]
fn a_generation_that_shrinks_or_has_two_holders_is_wrong() {
    let mut history = History::default();
    history.saw("slot-a", "1", 1, "p");
    history.saw("slot-a", "1", 2, "q");
    assert_eq!((history.changes(), history.wrong.len()), (1, 0));
    history.saw("slot-b", "2", 3, "q");
    assert_eq!(history.wrong.len(), 1, "{:?}", history.wrong);
    history.saw("slot-a", "1", 1, "p");
    history.saw("slot-a", "1", 2, "r");
    assert_eq!(history.wrong.len(), 3, "{:?}", history.wrong);
}

#[test]
fn a_slice_that_is_made_again_begins_anew() {
    let mut history = History::default();
    history.saw("slot-a", "1", 4, "p");
    history.lost("slot-a", "1");
    history.saw("slot-a", "2", 1, "p");
    assert!(history.wrong.is_empty(), "{:?}", history.wrong);
}
