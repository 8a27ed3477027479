//! The Window Gate: one pure function that every disruptive act asks. No answer is no.

use crds::references::Window;
use serde::{Deserialize, Serialize};

use crate::facts::Facts;

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
    /// Weight that is out already, basis points.
    pub unhealthy_basis_points: i32,
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
}

/// The gate's answer.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", tag = "verdict")]
pub enum Verdict {
    /// Go on, within the budget and until the height.
    #[serde(rename_all = "camelCase")]
    Allow {
        /// Basis points that may be out in all.
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
    /// Not ours to touch.
    Unowned,
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

/// Basis points of weight that may be out now.
pub fn budget(host: &HostState) -> i32 {
    let margin = CONFIRMATION_MARGIN_BASIS_POINTS - host.natural_shortfall_basis_points - host.unhealthy_basis_points;
    host.max_weight_basis_points.min(margin).max(0)
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
    let window = effective_window(facts, host);
    let until_sprint = facts
        .next_poc_start()
        .and_then(|height| facts.millis_until(height, now_ms));
    match window {
        Window::Unknown => Verdict::Wait {
            until_height: None,
            reason: GateReason::ChainUnknown,
        },
        Window::UpgradeFreeze => Verdict::Wait {
            until_height: None,
            reason: GateReason::UpgradeFreeze,
        },
        Window::Sprint | Window::Confirmation | Window::Challenge | Window::Validation => Verdict::Wait {
            until_height: exam_end(facts),
            reason: GateReason::ExamActive,
        },
        Window::Green | Window::Amber => match until_sprint {
            None => Verdict::Wait {
                until_height: None,
                reason: GateReason::ChainUnknown,
            },
            Some(millis) => between_exams(facts, host, action, window, millis),
        },
    }
}

fn exam_end(facts: &Facts) -> Option<i64> {
    facts
        .heights
        .as_ref()
        .map(|heights| heights.validation_end_height)
        .filter(|end| *end > facts.height)
}

fn between_exams(
    facts: &Facts,
    host: &HostState,
    action: &Action,
    window: Window,
    until_sprint_millis: i64,
) -> Verdict {
    if until_sprint_millis < host.drain_millis {
        return Verdict::Wait {
            until_height: facts.next_poc_start(),
            reason: GateReason::FrozenBeforeSprint,
        };
    }
    let next = facts.next_poc_start().unwrap_or(i64::MAX);
    match action.kind {
        ActionKind::Takeover | ActionKind::Rollout | ActionKind::Spare | ActionKind::Rehearsal => {
            if until_sprint_millis < action.lead_millis + host.drain_millis {
                return Verdict::Wait {
                    until_height: Some(next),
                    reason: GateReason::LeadTimeTooShort,
                };
            }
            Verdict::Allow {
                budget_basis_points: budget(host),
                until_height: next,
            }
        }
        ActionKind::Release => release(facts, host, action, window, until_sprint_millis),
    }
}

fn release(facts: &Facts, host: &HostState, action: &Action, window: Window, until_sprint_millis: i64) -> Verdict {
    if window != Window::Green && !host.allow_in_amber {
        return Verdict::Wait {
            until_height: None,
            reason: GateReason::NotGreen,
        };
    }
    if until_sprint_millis < action.lead_millis + host.ready_by_millis {
        return Verdict::Wait {
            until_height: facts.next_poc_start(),
            reason: GateReason::LeadTimeTooShort,
        };
    }
    let budget_basis_points = budget(host);
    if action.weight_basis_points > budget_basis_points {
        return Verdict::Wait {
            until_height: None,
            reason: GateReason::BudgetExceeded,
        };
    }
    let until_height = facts.green_until_height.unwrap_or(facts.height);
    Verdict::Allow {
        budget_basis_points,
        until_height,
    }
}
