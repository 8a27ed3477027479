//! Metrics of the slot, rendered from the same state as its reports, so that the two cannot disagree.

use super::{
    report,
    state::{Core, State},
};
use crate::slot::clock::now_ms;
use prometheus::{
    Encoder as _, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};
use thiserror::Error;

/// Why metrics could not be set up.
#[derive(Debug, Error)]
#[error("cannot register a metric")]
pub struct Error(#[source] prometheus::Error);

/// Handles.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    start_seconds: HistogramVec,
    nonces_total: IntCounterVec,
    round_state: IntGauge,
    generation: IntGauge,
    door_open: IntGaugeVec,
    journal_free_bytes: IntGauge,
}

impl Metrics {
    /// Registers them.
    pub fn new(registry: Registry) -> Result<Self, Error> {
        let buckets = vec![0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
        let start_seconds = HistogramVec::new(
            HistogramOpts::new("gonka_slot_start_seconds", "From DAPI's request to the given phase").buckets(buckets),
            &["phase"],
        )
        .map_err(Error)?;
        let nonces_total = IntCounterVec::new(
            Opts::new("gonka_slot_nonces_total", "Artifacts by what became of them"),
            &["result"],
        )
        .map_err(Error)?;
        let round_state = IntGauge::new(
            "gonka_slot_round_state",
            "RoundState of the newest round, as in slot.proto",
        )
        .map_err(Error)?;
        let generation = IntGauge::new("gonka_slot_generation", "Generation held; 0 = no slot").map_err(Error)?;
        let door_open = IntGaugeVec::new(Opts::new("gonka_slot_door_open", "1 = open"), &["door"]).map_err(Error)?;
        let journal_free_bytes =
            IntGauge::new("gonka_slot_journal_free_bytes", "Room left for the journal").map_err(Error)?;
        let metrics = Self {
            registry,
            start_seconds,
            nonces_total,
            round_state,
            generation,
            door_open,
            journal_free_bytes,
        };
        metrics.register().map_err(Error)?;
        Ok(metrics)
    }

    fn register(&self) -> Result<(), prometheus::Error> {
        self.registry.register(Box::new(self.start_seconds.clone()))?;
        self.registry.register(Box::new(self.nonces_total.clone()))?;
        self.registry.register(Box::new(self.round_state.clone()))?;
        self.registry.register(Box::new(self.generation.clone()))?;
        self.registry.register(Box::new(self.door_open.clone()))?;
        self.registry.register(Box::new(self.journal_free_bytes.clone()))
    }

    /// The text of a scrape.
    pub fn render(&self, core: &Core) -> String {
        let now = now_ms();
        let report = core.plan(|state| {
            self.take(state);
            report::render(state, &core.config, now)
        });
        self.round_state
            .set(report.round.as_ref().map_or(0, |round| i64::from(round.state)));
        self.generation.set(report.key.as_ref().map_or(0, |key| key.generation));
        let open = i64::from(report.chain_door() == proto::v1::Door::Open);
        self.door_open.with_label_values(&["chain"]).set(open);
        self.door_open.with_label_values(&["gateway"]).set(0);
        self.journal_free_bytes
            .set(i64::try_from(report.journal_free_bytes).unwrap_or(i64::MAX));
        let mut text = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            tracing::error!(%error, "cannot render the metrics");
        }
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Moves what was counted since the last scrape.
    fn take(&self, state: &mut State) {
        for (phase, seconds) in state.start_times.drain(..) {
            let phase: &str = phase.into();
            self.start_seconds.with_label_values(&[phase]).observe(seconds);
        }
        for (result, total) in ["generated", "accepted", "refused"].iter().zip(state.totals) {
            let counter = self.nonces_total.with_label_values(&[result]);
            counter.inc_by(total.saturating_sub(counter.get()));
        }
    }
}
