//! The Window Gate: one pure function that every disruptive act asks. No answer is no.

pub mod history;
pub mod host;

use crds::references::{ExamKind, Window};
use serde::{Deserialize, Serialize};

use crate::facts::Facts;
use crate::metrics::Metrics;

/// What the gate knows of the host beside the chain.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HostState {
    /// A paid challenge of this host is active.
    pub challenged: bool,
    /// A mass change tripped the breaker and no person re-armed it.
    pub breaker_tripped: bool,
    /// `spec.disruption.maxWeightBasisPoints`.
    pub max_weight_basis_points: i32,
    /// `allowInInference: WithinMargin`.
    pub allow_in_amber: bool,
    /// 99th percentile of the natural shortfall over the last exams, basis points.
    pub natural_shortfall_basis_points: i32,
    /// Weight that is out because something broke, basis points.
    pub unhealthy_basis_points: i32,
    /// Weight that is out because the operator released it, basis points; not counted in `unhealthy_basis_points`.
    pub released_basis_points: i32,
    /// `margins.drainSeconds`, milliseconds.
    pub drain_millis: i64,
    /// `margins.readyBySeconds`, milliseconds.
    pub ready_by_millis: i64,
}

/// What somebody wants to do.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Action {
    /// What it is.
    pub kind: ActionKind,
    /// Weight that is out while it lasts, basis points of the host.
    pub weight_basis_points: i32,
    /// From its start until the weight is proven again, milliseconds.
    pub lead_millis: i64,
}

/// Kinds of acts.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize, strum::Display, strum::IntoStaticStr)]
pub enum ActionKind {
    /// A broken slot moves to a rehearsed spare. Loses nothing, heals: allowed in every window.
    Takeover,
    /// A healthy slot moves to a rehearsed spare of a newer revision.
    Rollout,
    /// A pod without a slot is made, deleted or updated.
    Spare,
    /// A rehearsal of a slot that may be examined.
    Rehearsal,
    /// A machine is released for drain, upgrade or reboot; its slots are gone while it lasts.
    Release,
    /// A slot is given up for good, and nobody takes it over.
    Retire,
}

/// The gate's answer.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", tag = "verdict")]
pub enum Verdict {
    /// Go on, within the budget and until the height.
    #[serde(rename_all = "camelCase")]
    Allow {
        /// Basis points that may still go out.
        budget_basis_points: i32,
        /// Last height at which the permission holds.
        until_height: i64,
    },
    /// Ask again, at the height if it is known.
    #[serde(rename_all = "camelCase")]
    Wait {
        /// Height at which the answer may change; absent when not known.
        until_height: Option<i64>,
        /// Why.
        reason: GateReason,
    },
    /// Not without a person.
    Deny {
        /// Why.
        reason: GateReason,
    },
}

impl Verdict {
    /// The answer and why not, without its numbers; the reason is empty with `Allow`.
    pub fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Allow { .. } => ("Allow", ""),
            Self::Wait { reason, .. } => ("Wait", reason.into()),
            Self::Deny { reason } => ("Deny", reason.into()),
        }
    }
}

/// Why not.
#[derive(
    Clone,
    Copy,
    Debug,
    Deserialize,
    Eq,
    Hash,
    PartialEq,
    Serialize,
    strum::Display,
    strum::IntoStaticStr,
    strum::VariantArray,
)]
pub enum GateReason {
    /// The window is not Green.
    NotGreen,
    /// An exam is announced or runs, or is being validated.
    ExamActive,
    /// An upgrade height is near.
    UpgradeFreeze,
    /// The chain is not known well enough.
    ChainUnknown,
    /// Too much weight would be out.
    BudgetExceeded,
    /// It would not be proven again before the next Sprint.
    LeadTimeTooShort,
    /// Rollouts are frozen shortly before a Sprint.
    FrozenBeforeSprint,
    /// A person must re-arm the breaker.
    BreakerTripped,
    /// Exams that may come before the next Sprint expect the weight.
    WeightExpected,
    /// Not ours to touch.
    Unowned,
}

impl GateReason {
    /// What a person who waits is told.
    pub fn for_people(self) -> &'static str {
        match self {
            Self::NotGreen => "an exam is possible at two blocks' notice; the next Green window is waited for",
            Self::ExamActive => "an exam runs or is being validated",
            Self::UpgradeFreeze => "an upgrade of the chain is near",
            Self::ChainUnknown => "the chain is not known well enough; see the SprintSchedule's conditions",
            Self::BudgetExceeded => "more weight would be out than may be; add a spare",
            Self::LeadTimeTooShort => "it would not be proven again before the next Sprint",
            Self::FrozenBeforeSprint => "nothing moves shortly before a Sprint",
            Self::BreakerTripped => "a mass change was stopped; a person must re-arm it",
            Self::WeightExpected => {
                "exams before the next Sprint expect its weight; the last Green window before that Sprint is waited for"
            }
            Self::Unowned => "not ours to touch",
        }
    }
}

/// Free margin of a confirmation in all, natural shortfall included: basis points (1 − 1/1.1, see `docs/architecture.md`).
pub const CONFIRMATION_MARGIN_BASIS_POINTS: i32 = 909;

/// Effective window of a host: its challenge outranks the network's window.
pub fn effective_window(facts: &Facts, host: &HostState) -> Window {
    if host.challenged && facts.window != Window::Unknown {
        Window::Challenge
    } else {
        facts.window
    }
}

/// Basis points of weight that may still go out: what the owner allows, and never more than a confirmation forgives.
pub fn budget(host: &HostState) -> i32 {
    let released = host.released_basis_points.max(0);
    let margin = CONFIRMATION_MARGIN_BASIS_POINTS
        .saturating_sub(host.natural_shortfall_basis_points.max(0))
        .saturating_sub(host.unhealthy_basis_points.max(0));
    host.max_weight_basis_points.min(margin).saturating_sub(released).max(0)
}

/// Counts an answer.
pub fn count(metrics: &Metrics, action: ActionKind, verdict: Verdict) {
    let (name, reason) = verdict.words();
    metrics
        .gate_verdicts_total
        .with_label_values(&[action.into(), name, reason])
        .inc();
}

/// Whether `action` may go on now. `now_ms` is the caller's clock, read where it observed `facts`.
pub fn verdict(facts: &Facts, host: &HostState, action: &Action, now_ms: i64) -> Verdict {
    if host.breaker_tripped {
        return Verdict::Deny {
            reason: GateReason::BreakerTripped,
        };
    }
    if action.kind == ActionKind::Takeover {
        // A slot whose pod is lost earns nothing where it is: moving it cannot make an exam worse.
        return Verdict::Allow {
            budget_basis_points: 0,
            until_height: i64::MAX,
        };
    }
    // Facts outlive their reader: old ones say nothing about now.
    if facts.is_stale(now_ms) {
        return wait(None, GateReason::ChainUnknown);
    }
    match effective_window(facts, host) {
        Window::Unknown => wait(None, GateReason::ChainUnknown),
        Window::UpgradeFreeze => wait(freeze_end(facts), GateReason::UpgradeFreeze),
        Window::Sprint | Window::Confirmation | Window::Challenge | Window::Validation => {
            wait(exam_end(facts), GateReason::ExamActive)
        }
        window @ (Window::Green | Window::Amber) => between_exams(facts, host, action, window),
    }
}

fn wait(until_height: Option<i64>, reason: GateReason) -> Verdict {
    Verdict::Wait { until_height, reason }
}

fn freeze_end(facts: &Facts) -> Option<i64> {
    let window = facts.parameters.as_ref()?.upgrade_protection_window;
    Some(facts.upgrade.as_ref()?.height.saturating_add(window).saturating_add(1))
}

fn exam_end(facts: &Facts) -> Option<i64> {
    let end = match (&facts.exam, &facts.parameters, &facts.heights) {
        (Some(exam), Some(parameters), _) if exam.kind != ExamKind::Sprint => {
            exam.validation_start_height + parameters.poc_validation_duration + parameters.set_new_validators_delay
        }
        (_, _, Some(heights)) => heights.validation_end_height,
        _ => return None,
    };
    Some(end).filter(|end| *end > facts.height)
}

/// In Green and Amber: only the next Sprint, the window and the budget stand against it.
fn between_exams(facts: &Facts, host: &HostState, action: &Action, window: Window) -> Verdict {
    let margin = match action.kind {
        ActionKind::Release => host.ready_by_millis,
        ActionKind::Takeover | ActionKind::Rollout | ActionKind::Spare | ActionKind::Rehearsal | ActionKind::Retire => {
            host.drain_millis
        }
    };
    let Some(next) = facts.next_poc_start() else {
        return wait(None, GateReason::ChainUnknown);
    };
    let (Some(frozen_after), Some(late_after)) = (
        facts.last_height_before(next, host.drain_millis),
        facts.last_height_before(next, action.lead_millis.max(0).saturating_add(margin)),
    ) else {
        return wait(None, GateReason::ChainUnknown);
    };
    if facts.height > frozen_after {
        return wait(Some(next), GateReason::FrozenBeforeSprint);
    }
    if facts.height > late_after {
        return wait(Some(next), GateReason::LeadTimeTooShort);
    }
    match action.kind {
        ActionKind::Release => release(facts, host, action, window, late_after),
        ActionKind::Retire => retire(facts, host, window, late_after),
        ActionKind::Takeover | ActionKind::Rollout | ActionKind::Spare | ActionKind::Rehearsal => Verdict::Allow {
            budget_basis_points: budget(host),
            until_height: late_after,
        },
    }
}

/// Last height of the Green window that is now.
fn green_end(facts: &Facts) -> i64 {
    facts.green_until_height.unwrap_or(facts.height)
}

/// A confirmation expects what the last Sprint proved. What is not wanted any more goes when none can come before the next one:
/// not in the Green window right after a Sprint.
fn retire(facts: &Facts, host: &HostState, window: Window, late_after: i64) -> Verdict {
    let heights = facts.heights.as_ref();
    let settled = heights.is_some_and(|heights| facts.height >= heights.set_new_validators_height);
    if window != Window::Green || !settled {
        let green = facts.next_green_height.filter(|_| settled);
        return wait(green, GateReason::WeightExpected);
    }
    Verdict::Allow {
        budget_basis_points: budget(host),
        until_height: green_end(facts).min(late_after),
    }
}

fn release(facts: &Facts, host: &HostState, action: &Action, window: Window, late_after: i64) -> Verdict {
    if window != Window::Green && !host.allow_in_amber {
        return wait(facts.next_green_height, GateReason::NotGreen);
    }
    let budget_basis_points = budget(host);
    if action.weight_basis_points > budget_basis_points {
        return wait(None, GateReason::BudgetExceeded);
    }
    let until_height = if window == Window::Green {
        green_end(facts).min(late_after)
    } else {
        late_after
    };
    Verdict::Allow {
        budget_basis_points,
        until_height,
    }
}

#[cfg(test)]
mod tests;
