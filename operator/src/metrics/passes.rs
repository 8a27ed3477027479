//! What every controller says of its passes: how long they took, how they ended, what they wrote.

use super::Metrics;
use crate::backoff::Failures;

impl Metrics {
    /// Runs one pass of a controller; its result is counted as `ok` or by the error's category.
    pub fn timed<T, E>(
        &self,
        controller: &str,
        category: impl Fn(&E) -> &'static str,
        pass: impl Future<Output = Result<T, E>>,
    ) -> impl Future<Output = Result<T, E>> {
        // Passes are large futures: one that is moved by value is copied at every step up.
        let pass = Box::pin(pass);
        async move {
            let timer = self.reconcile_duration.with_label_values(&[controller]).start_timer();
            let result = pass.await;
            timer.observe_duration();
            self.ended(controller, result.as_ref().map_or_else(category, |_| "ok"));
            result
        }
    }

    /// Failures of a controller's objects, shown as they are counted.
    pub fn failures(&self, controller: &str) -> Failures {
        Failures::new(self.failing.with_label_values(&[controller]))
    }

    /// So many of a controller's objects failed in its newest pass.
    pub fn failed(&self, controller: &str, objects: usize) {
        self.failing
            .with_label_values(&[controller])
            .set(i64::try_from(objects).unwrap_or(i64::MAX));
    }

    /// A pass, or a part of one that fails alone, ended like this.
    pub fn ended(&self, controller: &str, how: &str) {
        self.reconcile_total.with_label_values(&[controller, how]).inc();
    }

    /// A pass wrote so many objects to the API server.
    pub fn wrote(&self, controller: &str, writes: usize) {
        self.writes_total.with_label_values(&[controller]).inc_by(writes as u64);
    }
}
