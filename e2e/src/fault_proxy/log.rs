//! What was written, in order, and what was said to it. Pure.

use super::call::{Call, EVENTS, Verb};
use super::plan::Of;

/// One write.
#[derive(Clone, Debug, PartialEq)]
pub struct Written {
    pub call: Call,
    /// What was sent, when it was JSON.
    pub body: serde_json::Value,
    /// What the server said; 0 when it was not asked, or has not answered yet.
    pub status: u16,
}

/// Every write since the beginning.
#[derive(Clone, Debug, Default)]
pub struct Log {
    writes: Vec<Written>,
    /// Where the present plan begins.
    mark: usize,
}

impl Log {
    /// Remembers a write; its number is for [`Log::answered`].
    pub fn add(&mut self, call: Call, body: &[u8]) -> usize {
        self.writes.push(Written {
            call,
            body: serde_json::from_slice(body).unwrap_or_default(),
            status: 0,
        });
        self.writes.len() - 1
    }

    pub fn answered(&mut self, number: usize, status: u16) {
        if let Some(written) = self.writes.get_mut(number) {
            written.status = status;
        }
    }

    /// From here on a plan counts.
    pub fn set_mark(&mut self) {
        self.mark = self.writes.len();
    }

    /// Writes since the mark that count.
    pub fn count(&self, of: &Of) -> u64 {
        self.since_mark()
            .iter()
            .filter(|written| of.counts(&written.call))
            .count() as u64
    }

    /// Writes since the mark, Events aside.
    pub fn since_mark(&self) -> &[Written] {
        self.writes.get(self.mark..).unwrap_or_default()
    }

    /// Number of all writes so far, Events and leases aside.
    pub fn busy(&self, quiet: &[&str]) -> usize {
        let counts = |written: &&Written| {
            let controller = written.call.controller.as_str();
            controller != EVENTS && !quiet.contains(&controller)
        };
        self.writes.iter().filter(counts).count()
    }

    /// Deletions that did not say which object they meant.
    pub fn careless_deletions(&self) -> Vec<String> {
        self.deletions()
            .filter(|written| written.body["preconditions"]["uid"].as_str().is_none_or(str::is_empty))
            .map(|written| written.call.shown())
            .collect()
    }

    /// All deletions.
    pub fn deletions(&self) -> impl Iterator<Item = &Written> {
        self.writes.iter().filter(|written| written.call.verb == Verb::Delete)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(verb: Verb, controller: &str) -> Call {
        Call {
            verb,
            resource: "pods".to_owned(),
            subresource: String::new(),
            namespace: "gonka".to_owned(),
            name: "a".to_owned(),
            controller: controller.to_owned(),
        }
    }

    #[test]
    fn a_plan_counts_from_its_beginning() {
        let mut log = Log::default();
        log.add(call(Verb::Create, "model-deployment"), b"");
        log.set_mark();
        log.add(call(Verb::Create, "model-deployment"), b"");
        log.add(call(Verb::Create, EVENTS), b"");
        assert_eq!(log.count(&Of::All), 1);
        assert_eq!(log.busy(&["leader"]), 2);
        assert_eq!(log.busy(&["model-deployment"]), 0);
    }

    #[test]
    fn a_deletion_without_a_uid_is_named() {
        let mut log = Log::default();
        log.add(
            call(Verb::Delete, "model-deployment"),
            br#"{"preconditions":{"uid":"u"}}"#,
        );
        assert!(log.careless_deletions().is_empty());
        log.add(call(Verb::Delete, "model-deployment"), b"{}");
        log.add(
            call(Verb::Delete, "model-deployment"),
            br#"{"preconditions":{"uid":""}}"#,
        );
        assert_eq!(log.careless_deletions(), ["delete pods a", "delete pods a"]);
    }
}
