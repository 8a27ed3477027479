//! Upgrades: planned, done, and voted on.

use super::*;

fn plan() -> UpgradePlan {
    UpgradePlan {
        name: "v0.2.17".into(),
        height: 203,
    }
}

#[test]
fn a_plan_freezes_and_still_does_when_the_chain_has_forgotten_it() {
    let mut world = World::at(200);
    for name in NAMES {
        world.tell(name, upgrade(Some(&plan()), &[]));
    }
    assert_eq!(world.decide().window, Window::UpgradeFreeze);
    // From here on the endpoints report no plan: first that is a cancellation, later it was carried out.
    let mut done = World::at(200);
    done.memory.upgrade = Some(plan());
    assert_eq!(done.step(201, &NAMES).window, Window::Green);
    let mut done = World::at(200);
    for height in 201..=203 {
        for name in NAMES {
            done.tell(name, tip(block(height)));
            done.tell(name, News::Clock(Box::new(clock(height))));
            done.tell(name, upgrade(Some(&plan()), &[]));
        }
        done.now_ms = T0 + height * 1000;
        done.decide();
    }
    assert_eq!(done.step(206, &NAMES).window, Window::UpgradeFreeze);
    assert_eq!(done.step(207, &NAMES).window, Window::Green);
}

fn vote(proposal: i64, height: i64) -> Vote {
    Vote {
        proposal,
        name: "v0.2.18".into(),
        height,
        ends_ms: None,
    }
}

#[test]
fn an_upgrade_that_is_voted_on_is_told_of_and_freezes_nothing() {
    let mut world = World::at(200);
    // A vote that one endpoint alone knows is not told of.
    world.tell("own", upgrade(None, &[vote(7, 202), vote(8, 201)]));
    world.tell("node-2", upgrade(None, &[vote(9, 204), vote(7, 202)]));
    world.tell("node-3", upgrade(None, &[vote(9, 204)]));
    let facts = world.decide();
    assert_eq!(facts.votes, [vote(7, 202), vote(9, 204)]);
    assert_eq!(facts.window, Window::Green);
}

#[test]
fn votes_that_were_not_told_are_those_told_before() {
    let mut world = World::at(200);
    for name in NAMES {
        world.tell(name, upgrade(None, &[vote(7, 202)]));
        world.tell(
            name,
            News::Upgrade {
                plan: None,
                last: None,
                votes: None,
            },
        );
    }
    assert_eq!(world.decide().votes, [vote(7, 202)]);
    for name in NAMES {
        world.tell(name, upgrade(None, &[]));
    }
    assert_eq!(world.decide().votes, [], "voted down, or passed: then it is a plan");
}
