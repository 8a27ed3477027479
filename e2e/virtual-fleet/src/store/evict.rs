//! Evictions, as `kubectl drain` asks for them: a disruption budget that allows none refuses, then the policies do.

use serde_json::Value;

use super::{Actor, Id, Kind, Refusal, Store};

impl Store {
    /// Evicts a pod on behalf of somebody who drains its machine.
    pub fn evict(&mut self, id: &Id, now_ms: i64) -> Result<(), Refusal> {
        let Some(pod) = self.get(id) else {
            return Err(Refusal::NotFound(id.clone()));
        };
        let labels = &pod["metadata"]["labels"];
        let budgets = self.list(Kind::PodDisruptionBudget).map(|(_, budget)| budget.as_ref());
        for budget in budgets.filter(|budget| selects(budget, labels)) {
            let wanted = budget["spec"]["minAvailable"].as_u64().unwrap_or_default();
            let pods = self.list(Kind::Pod).filter(|(_, pod)| {
                let ready = &pod["status"]["conditions"][0]["status"];
                ready == "True" && selects(budget, &pod["metadata"]["labels"])
            });
            if pods.count() as u64 <= wanted {
                return Err(Refusal::Budget(id.clone()));
            }
        }
        self.delete(id, Actor::Person, None, now_ms)
    }
}

fn selects(budget: &Value, labels: &Value) -> bool {
    let wanted = budget["spec"]["selector"]["matchLabels"].as_object();
    wanted.is_some_and(|wanted| wanted.iter().all(|(key, value)| labels[key] == *value))
}
