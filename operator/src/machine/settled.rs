//! Between observe and decide: where the last pass left nothing to do and the same machines, pods and health checks are read again, nothing is
//! decided anew. A fleet that nobody works on costs a look at each object's address. Pure.

use std::sync::Arc;

use super::decide::{Decision, decide};
use super::observe::{Lists, assemble};
use crate::facts::Facts;

/// What the last pass read, where it left nothing to do.
#[derive(Debug, Default)]
pub struct Settled(Option<Lists>);

impl Settled {
    /// Nothing can come of these lists: nothing came of them in the last pass.
    pub fn covers(&self, lists: &Lists) -> bool {
        self.0.as_ref().is_some_and(|before| before.has_same_machines(lists))
    }

    /// Decides one pass.
    pub fn decide(&mut self, lists: Lists, facts: &dyn Fn(&str) -> Arc<Facts>, now_ms: i64) -> Decision {
        if self.covers(&lists) {
            return Decision::default();
        }
        let decision = decide(&assemble(&lists, facts, now_ms));
        self.0 = decision.is_settled().then_some(lists);
        decision
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use crds::{GonkaHost, GonkaHostSpec, GpuNode, GpuNodeSpec};
    use k8s_openapi::api::core::v1::Node;

    use super::*;

    fn lists(unschedulable: bool) -> Lists {
        let node: Node = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "n1", "uid": "u1"}, "spec": {"unschedulable": unschedulable},
        }))
        .expect("a Node");
        Lists {
            nodes: vec![Arc::new(node)],
            gpu_nodes: vec![Arc::new(GpuNode::new("n1", GpuNodeSpec::default()))],
            hosts: vec![Arc::new(GonkaHost::new("ours", GonkaHostSpec::default()))],
            ..Lists::default()
        }
    }

    #[test]
    fn what_left_nothing_to_do_is_not_decided_again_until_an_object_is_another() {
        let asked = Cell::new(0);
        let facts = |_: &str| {
            asked.set(asked.get() + 1);
            Arc::new(Facts::default())
        };
        let mut settled = Settled::default();
        let calm = lists(false);
        for _ in 0..3 {
            assert_eq!(settled.decide(calm.clone(), &facts, 0), Decision::default());
        }
        assert_eq!(asked.get(), 1, "the chain is asked for where something is decided");
        let host = Lists {
            hosts: lists(false).hosts,
            ..calm.clone()
        };
        assert!(settled.covers(&host), "a host has no say where nobody wishes anything");
        let cordoned = Lists {
            nodes: lists(true).nodes,
            ..calm.clone()
        };
        assert!(!settled.decide(cordoned, &facts, 0).is_settled());
        settled.decide(calm, &facts, 0);
        assert_eq!(asked.get(), 3);
    }

    #[test]
    fn somebody_who_waits_is_answered_anew_each_time() {
        let mut settled = Settled::default();
        let wished = lists(true);
        let facts = |_: &str| Arc::new(Facts::default());
        assert!(!settled.decide(wished.clone(), &facts, 0).writes.is_empty());
        assert!(!settled.covers(&wished));
        assert!(
            !settled.decide(wished, &facts, 5_000).writes.is_empty(),
            "the write may have failed"
        );
    }
}
