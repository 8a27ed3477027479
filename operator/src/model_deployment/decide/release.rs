//! A rollout without spares: in a Green window one slot's pod at a time gives way to its successor, when the successor is
//! proven before the window and the margin before the next Sprint end. Pure.

use crds::references::Window;

use super::planner::{Plan, Rollout};
use super::pods::Removal;
use super::rollout;
use super::rollout_status::lead_millis;
use super::world::{Health, Holder, World};
use crate::gate::host::{self, Part};
use crate::gate::{Action, ActionKind, GateReason, Verdict, verdict};
use crate::model_deployment::observed::{Machine, PodSeen};

/// The pod that gives way now; the plan says why there is none.
pub fn next(world: &World<'_>, plan: &mut Plan) -> Option<Removal> {
    let spec = &world.seen.deployment.spec;
    if spec.spares > 0 || !plan.moves.is_empty() || plan.create > 0 || !plan.remove.is_empty() {
        return None;
    }
    let (slot, holder, pod) = in_turn(world)?;
    if !(0..spec.slots).all(|slot| is_proven(world, slot)) {
        plan.rollout = Rollout::Running;
        return None;
    }
    let parts = parts(world);
    let weight = share(&parts, slot);
    let action = Action {
        kind: ActionKind::Release,
        weight_basis_points: weight,
        lead_millis: lead_millis(world),
    };
    let answer = ask(world, &parts, &action);
    plan.asked.push((action.kind, answer));
    match answer {
        Verdict::Allow { .. } => {
            plan.rollout = Rollout::Running;
            Some(Removal {
                name: holder.name.clone(),
                uid: pod.uid.clone(),
                grace_seconds: None,
            })
        }
        Verdict::Wait { reason, .. } | Verdict::Deny { reason } => {
            plan.rollout = Rollout::Window(match reason {
                GateReason::BudgetExceeded => {
                    format!(
                        "{reason}: slot {slot} has {weight} basis points of the weight; {}",
                        reason.for_people()
                    )
                }
                _ => format!("{reason}: {}", reason.for_people()),
            });
            None
        }
    }
}

/// The slot whose turn it is, of those that may move and whose pod should not keep its revision.
fn in_turn<'w>(world: &'w World<'_>) -> Option<(i32, &'w Holder, &'w PodSeen)> {
    let wanted = 0..world.seen.deployment.spec.slots;
    wanted
        .filter(|slot| world.may_move(*slot))
        .filter_map(|slot| {
            let holder = world.slots.get(&slot)?.holder.as_ref()?;
            let pod = world.pod_of(holder)?;
            let stale = world.rollout.is_stale(&pod.revision) && world.rollout.is_stale_in_slot(&pod.revision);
            stale.then_some((slot, holder, pod))
        })
        .min_by_key(|(slot, _, _)| (rollout::turn(world, *slot), *slot))
}

/// The slot would pass an exam now, as far as its pod goes.
fn is_proven(world: &World<'_>, slot: i32) -> bool {
    let holder = world.slots.get(&slot).and_then(|slot| slot.holder.as_ref());
    holder.is_some_and(|holder| {
        let pod = world.pod_of(holder);
        pod.is_some_and(|pod| {
            world.health(pod) == Health::Usable && world.loaded(pod) && world.proof(&holder.name).ran()
        })
    })
}

/// The deployment's slots as parts of the host. Where the host has other deployments a part is smaller than it is here.
fn parts(world: &World<'_>) -> Vec<Part> {
    host::weights(&world.seen.deployment)
        .into_iter()
        .map(|(slot, weight)| {
            let holder = world.slots.get(&slot).and_then(|slot| slot.holder.as_ref());
            let machine = holder
                .and_then(|holder| world.pod_of(holder))
                .and_then(|pod| world.machine(pod));
            Part {
                weight,
                healthy: is_proven(world, slot),
                released: machine.is_some_and(Machine::is_released),
            }
        })
        .collect()
}

/// Basis points of one slot, rounded up.
fn share(parts: &[Part], slot: i32) -> i32 {
    let total: i64 = parts.iter().map(|part| part.weight).sum();
    let one = usize::try_from(slot).ok().and_then(|slot| parts.get(slot));
    let one = one.map_or(total, |part| part.weight);
    i32::try_from(
        (one.saturating_mul(10_000) + total - 1)
            .checked_div(total)
            .unwrap_or(10_000),
    )
    .unwrap_or(10_000)
}

fn ask(world: &World<'_>, parts: &[Part], action: &Action) -> Verdict {
    let (facts, seen) = (&world.seen.facts, world.seen);
    let (Some(host), Some(schedule)) = (&seen.host, &seen.schedule) else {
        return Verdict::Deny {
            reason: GateReason::Unowned,
        };
    };
    let answer = verdict(facts, &host::state(host, &schedule.margins, parts), action, seen.now_ms);
    if !matches!(answer, Verdict::Allow { .. }) {
        return answer;
    }
    let lasts_until = facts.green_until_height.filter(|_| facts.window == Window::Green);
    let late_after = lasts_until.and_then(|height| facts.last_height_before(height, action.lead_millis));
    match late_after {
        Some(late_after) if facts.height <= late_after => answer,
        _ => Verdict::Wait {
            until_height: facts.next_green_height,
            reason: GateReason::NotGreen,
        },
    }
}
