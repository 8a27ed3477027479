//! Every metric of the operator, registered on a registry that is passed in.

mod passes;

use std::cell::RefCell;

use prometheus::core::{Collector, Desc};
use prometheus::{
    CounterVec, GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

/// Handles of all metrics. Names and labels are documented in `docs/metrics.md`.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Reconciles by controller and result (`ok` or an error category).
    pub reconcile_total: IntCounterVec,
    /// Duration of a reconcile, seconds.
    pub reconcile_duration: HistogramVec,
    /// Writes to the API server by controller.
    pub writes_total: IntCounterVec,
    /// 1 on the leader.
    pub leader: IntGauge,
    /// Newest agreed height by chain.
    pub chain_height: IntGaugeVec,
    /// 1 = up, by endpoint.
    pub endpoint_up: IntGaugeVec,
    /// Blocks behind the newest, by endpoint.
    pub endpoint_lag: IntGaugeVec,
    /// 1 for the present window, by schedule and window.
    pub window: IntGaugeVec,
    /// Seconds to the next Sprint by schedule.
    pub seconds_to_sprint: GaugeVec,
    /// 1 = evidence says the next exam will be passed, 0 = it will not; no line while it is not known. By namespace and host.
    pub sprint_ready: IntGaugeVec,
    /// Connected FleetSignal clients.
    pub signal_subscribers: IntGauge,
    /// Seconds until the certificate that FleetSignal serves ends; 0 without one.
    pub signal_certificate_seconds: IntGauge,
    /// Seconds that certificate was made for.
    pub signal_certificate_lifetime_seconds: IntGauge,
    /// What kept a certificate from being read, served or cached, by reason.
    pub signal_certificate_failures_total: IntCounterVec,
    /// Connections to FleetSignal by result.
    pub signal_handshakes_total: IntCounterVec,
    /// Frames sent.
    pub signal_frames_total: IntCounterVec,
    /// Answers of the Window Gate.
    pub gate_verdicts_total: IntCounterVec,
    /// Requests to DAPI by method and status code (0 = no answer).
    pub dapi_requests_total: IntCounterVec,
    /// Takeovers by reason and result.
    pub takeovers_total: IntCounterVec,
    /// From decision to `promote` answered, seconds.
    pub takeover_duration: HistogramVec,
    /// Writes to anything outside the API server, by target.
    pub external_writes_total: IntCounterVec,
    /// Machines somebody works on or wants to, by stage.
    pub machines: IntGaugeVec,
    /// Objects whose newest pass failed, by controller.
    pub failing: IntGaugeVec,
    /// Protected objects that may be deleted because a person wrote down why.
    pub broken_glass: IntGauge,
    /// Slot pods whose deployment is gone.
    pub unattended_pods: IntGauge,
    /// Admission policies that should be there and bound, and are not.
    pub policies_missing: IntGauge,
    /// Protected pods that somebody tried to take away, by the reason of their condition `DisruptionTarget`.
    pub disruption_targets: IntGaugeVec,
    /// Rewards lost, ngonka, by cause.
    pub sprint_lost_ngonka_total: CounterVec,
    descriptions: Vec<Desc>,
}

/// Registers, and remembers what was registered.
struct Described<'a> {
    registry: &'a Registry,
    descriptions: RefCell<Vec<Desc>>,
}

impl Described<'_> {
    fn register<M: Collector + Clone + 'static>(&self, metric: &M) -> prometheus::Result<()> {
        self.descriptions
            .borrow_mut()
            .extend(metric.desc().into_iter().cloned());
        self.registry.register(Box::new(metric.clone()))
    }
}

impl Metrics {
    /// Makes and registers all metrics.
    #[expect(clippy::too_many_lines, reason = "a list")]
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let described = Described {
            registry,
            descriptions: RefCell::default(),
        };
        let described = &described;
        let counter = |name: &str, help: &str, labels: &[&str]| -> prometheus::Result<IntCounterVec> {
            let metric = IntCounterVec::new(Opts::new(format!("gonka_operator_{name}"), help), labels)?;
            described.register(&metric)?;
            Ok(metric)
        };
        let gauge = |name: &str, help: &str, labels: &[&str]| -> prometheus::Result<IntGaugeVec> {
            let metric = IntGaugeVec::new(Opts::new(format!("gonka_operator_{name}"), help), labels)?;
            described.register(&metric)?;
            Ok(metric)
        };
        let single = |name: &str, help: &str| -> prometheus::Result<IntGauge> {
            let metric = IntGauge::with_opts(Opts::new(format!("gonka_operator_{name}"), help))?;
            described.register(&metric)?;
            Ok(metric)
        };
        let histogram =
            |name: &str, help: &str, labels: &[&str], buckets: &[f64]| -> prometheus::Result<HistogramVec> {
                let options = HistogramOpts::new(format!("gonka_operator_{name}"), help).buckets(buckets.to_vec());
                let metric = HistogramVec::new(options, labels)?;
                described.register(&metric)?;
                Ok(metric)
            };
        let seconds_to_sprint = GaugeVec::new(
            Opts::new(
                "gonka_operator_seconds_to_sprint",
                "Seconds until the next Sprint starts.",
            ),
            &["schedule"],
        )?;
        described.register(&seconds_to_sprint)?;
        let sprint_lost_ngonka_total = CounterVec::new(
            Opts::new(
                "gonka_operator_sprint_lost_ngonka_total",
                "Rewards lost in exams, ngonka.",
            ),
            &["cause"],
        )?;
        described.register(&sprint_lost_ngonka_total)?;
        Ok(Self {
            reconcile_total: counter("reconcile_total", "Reconciles.", &["controller", "result"])?,
            reconcile_duration: histogram(
                "reconcile_duration_seconds",
                "Duration of a reconcile.",
                &["controller"],
                &[0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0],
            )?,
            writes_total: counter("writes_total", "Writes to the API server.", &["controller"])?,
            leader: single("leader", "1 on the leader.")?,
            chain_height: gauge("chain_height", "Newest height a quorum agrees on.", &["chain"])?,
            endpoint_up: gauge("chain_endpoint_up", "1 when the endpoint is usable.", &["endpoint"])?,
            endpoint_lag: gauge(
                "chain_endpoint_lag_blocks",
                "Blocks behind the newest endpoint.",
                &["endpoint"],
            )?,
            window: gauge("window", "1 for the present window.", &["schedule", "window"])?,
            seconds_to_sprint,
            sprint_ready: gauge(
                "sprint_ready",
                "1 when evidence says that the host passes the next exam; no line while it is not known.",
                &["namespace", "host"],
            )?,
            signal_subscribers: single("signal_subscribers", "Connected FleetSignal clients.")?,
            signal_certificate_seconds: single(
                "signal_certificate_seconds",
                "Seconds until the certificate that FleetSignal serves ends; 0 without one.",
            )?,
            signal_certificate_lifetime_seconds: single(
                "signal_certificate_lifetime_seconds",
                "Seconds the certificate that FleetSignal serves was made for.",
            )?,
            signal_certificate_failures_total: counter(
                "signal_certificate_failures_total",
                "Certificates of FleetSignal that were not read (Read), not served (Refused), not cached (Cache).",
                &["reason"],
            )?,
            signal_handshakes_total: counter(
                "signal_handshakes_total",
                "Connections to FleetSignal: tls, plaintext, plaintext_refused, failed.",
                &["result"],
            )?,
            signal_frames_total: counter("signal_frames_total", "FleetSignal frames sent.", &["kind"])?,
            gate_verdicts_total: counter(
                "gate_verdicts_total",
                "Answers of the Window Gate.",
                &["action", "verdict", "reason"],
            )?,
            dapi_requests_total: counter("dapi_requests_total", "Requests to DAPI.", &["method", "code"])?,
            takeovers_total: counter("takeovers_total", "Slots moved.", &["reason", "result"])?,
            takeover_duration: histogram(
                "takeover_duration_seconds",
                "From the decision until promote answered.",
                &[],
                &[0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 15.0],
            )?,
            external_writes_total: counter("external_writes_total", "Writes outside the API server.", &["target"])?,
            failing: gauge("failing", "Objects whose newest pass failed.", &["controller"])?,
            machines: gauge(
                "machines",
                "Machines somebody works on or wants to, by stage of their maintenance.",
                &["stage"],
            )?,
            unattended_pods: single(
                "unattended_pods",
                "Slot pods that nobody looks after: their ModelDeployment is gone.",
            )?,
            broken_glass: single(
                "broken_glass",
                "Protected objects that may be deleted because a person wrote down why.",
            )?,
            policies_missing: single(
                "policies_missing",
                "Admission policies that should be there and bound, and are not.",
            )?,
            disruption_targets: gauge(
                "disruption_targets",
                "Protected pods that somebody tried to take away, by the reason they gave.",
                &["reason"],
            )?,
            sprint_lost_ngonka_total,
            descriptions: described.descriptions.take(),
        })
    }

    /// Name, labels and meaning of every metric, by name.
    pub fn descriptions(&self) -> Vec<&Desc> {
        let mut all: Vec<&Desc> = self.descriptions.iter().collect();
        all.sort_by(|one, other| one.fq_name.cmp(&other.fq_name));
        all
    }
}
