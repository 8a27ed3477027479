//! Box 3: (history, sample, overrides, policy) → findings per GPU and a judgement per condition. Pure; one rule per file.
//!
//! What is not known is Unknown, never healthy. A finding of a rule is *blocking* when the GPU must not be examined.

pub mod clock_sync;
pub mod disk;
pub mod driver;
pub mod ecc;
pub mod freshness;
pub mod lost;
pub mod mig;
pub mod nvlink;
pub mod pcie;
pub mod recovery;
pub mod row_remap;
pub mod thermal;
pub mod throttling;
pub mod verdict;
pub mod xid;
pub mod xid_table;

use std::borrow::Cow;

use crds::conditions::{ConditionStatus, ConditionType, Reason};
use crds::gpu_node::{CLOCK_RULES, GpuHealth, HealthOverride};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::history::{History, KnownGpu};
use super::observe::Sample;
use super::observe::gpu::{GpuSample, GpuState, SlowValues};
use super::policy::Policy;
use freshness::{Freshness, freshness};

/// Findings of one GPU that the API holds.
const MAX_FINDINGS: usize = 16;

/// What the decision depends on besides history and sample.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Inputs {
    /// Thresholds.
    pub policy: Policy,
    /// Findings a person declared harmless.
    pub overrides: Vec<HealthOverride>,
    /// Generation of the spec they are from.
    pub generation: Option<i64>,
}

/// The decision.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    /// Every known GPU by index.
    pub gpus: Vec<GpuVerdict>,
    /// The conditions.
    pub judgements: Vec<(ConditionType, Judgement)>,
}

/// What is thought of one GPU.
#[derive(Clone, Debug, PartialEq)]
pub struct GpuVerdict {
    /// UUID, or the name of one that was never readable.
    pub uuid: String,
    /// NVML index.
    pub index: u32,
    /// All in all.
    pub health: GpuHealth,
    /// What the rules found, the blocking ones first.
    pub findings: Vec<Found>,
}

/// What one rule found.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Found {
    /// Name of the rule.
    pub rule: Cow<'static, str>,
    /// Whether the GPU must not be examined.
    pub blocking: bool,
    /// Whether it is about clocks.
    pub clocks: bool,
    /// What was seen and what to do.
    pub message: String,
}

impl Found {
    /// Something that keeps the GPU from an exam.
    pub fn blocking(rule: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self {
            rule: rule.into(),
            blocking: true,
            clocks: false,
            message: message.into(),
        }
    }

    /// Something to look at.
    pub fn degraded(rule: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self {
            blocking: false,
            ..Self::blocking(rule, message)
        }
    }

    /// Something that lowers clocks.
    pub fn slowed(rule: &'static str, message: impl Into<String>) -> Self {
        debug_assert!(
            CLOCK_RULES.contains(&rule),
            "exams have thresholds of their own for {rule}"
        );
        Self {
            clocks: true,
            ..Self::degraded(rule, message)
        }
    }
}

/// What a condition is set to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Judgement {
    /// Status.
    pub status: ConditionStatus,
    /// Reason.
    pub reason: Reason,
    /// For people.
    pub message: String,
}

impl Judgement {
    /// As it should be.
    pub fn good(message: impl Into<String>) -> Self {
        Self::new(ConditionStatus::True, Reason::AsExpected, message)
    }

    /// Any.
    pub fn new(status: ConditionStatus, reason: Reason, message: impl Into<String>) -> Self {
        Self {
            status,
            reason,
            message: message.into(),
        }
    }
}

/// What a rule about GPUs looks at.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Time of the sample.
    pub now: &'a Time,
    /// What is remembered of the GPU.
    pub known: &'a KnownGpu,
    /// What was just read of it; None when it was not listed or nothing new was read.
    pub sample: Option<&'a GpuSample>,
    /// Thresholds.
    pub policy: &'a Policy,
}

impl Subject<'_> {
    /// The slow values, when they were read.
    pub fn slow(&self) -> Option<&SlowValues> {
        self.sample.and_then(|sample| sample.slow.as_ref())
    }
}

/// A rule about one GPU.
type Rule = fn(&Subject<'_>, &mut Vec<Found>);

const RULES: [Rule; 11] = [
    lost::check,
    recovery::check,
    ecc::check,
    row_remap::check,
    xid::check,
    mig::check,
    thermal::check,
    throttling::check,
    pcie::check,
    nvlink::check,
    throttling::check_limits,
];

/// Applies every rule.
pub fn evaluate(history: &History, sample: &Sample, inputs: &Inputs) -> Evaluation {
    let fresh = freshness(sample, &inputs.policy);
    let read = match fresh {
        Freshness::Fresh(reading) => history.named(reading),
        _ => Vec::new(),
    };
    let mut gpus: Vec<GpuVerdict> = history
        .gpus
        .iter()
        .map(|(uuid, known)| {
            let subject = Subject {
                now: &sample.now,
                known,
                sample: read.iter().find(|(name, _)| name == uuid).map(|(_, gpu)| *gpu),
                policy: &inputs.policy,
            };
            judge_gpu(uuid, &subject, &inputs.overrides)
        })
        .collect();
    gpus.sort_by_key(|gpu| gpu.index);
    let judgements = verdict::judge(&gpus, sample, fresh, &inputs.policy);
    Evaluation { gpus, judgements }
}

fn judge_gpu(uuid: &str, subject: &Subject<'_>, overrides: &[HealthOverride]) -> GpuVerdict {
    let mut findings = Vec::new();
    for rule in RULES {
        rule(subject, &mut findings);
    }
    for found in &mut findings {
        if let Some(declared) = overrides
            .iter()
            .find(|declared| applies(declared, uuid, found, subject.now))
        {
            found.blocking = false;
            found.message = format!("{} (declared harmless: {})", found.message, declared.reason);
        }
    }
    findings.sort_by_key(|found| !found.blocking);
    findings.truncate(MAX_FINDINGS);
    let readable = subject
        .sample
        .is_some_and(|sample| sample.state != GpuState::Unreadable);
    let health = match findings.first() {
        Some(worst) if worst.blocking && (readable || subject.known.lost_since.is_some()) => GpuHealth::Unhealthy,
        _ if !readable => GpuHealth::Unknown,
        Some(_) => GpuHealth::Degraded,
        None => GpuHealth::Healthy,
    };
    GpuVerdict {
        uuid: uuid.to_owned(),
        index: subject.known.index,
        health,
        findings,
    }
}

fn applies(declared: &HealthOverride, uuid: &str, found: &Found, now: &Time) -> bool {
    declared.gpu_uuid == uuid
        && declared.rule == found.rule
        && declared.not_after_time.as_ref().is_none_or(|end| now.0 <= end.0)
}
