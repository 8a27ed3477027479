//! The life of a process, told by values.

use super::*;

fn spec(name: &str) -> Spec {
    Spec {
        name: name.into(),
        argv: vec!["/gonka/slot".into(), name.into()],
        env: BTreeMap::new(),
        gpu_uuids: Vec::new(),
        restart: true,
        stop_grace_ms: 1_000,
    }
}

const KILLED: Exit = Exit { code: 0, signal: 9 };

/// A table with `serve` (pid 10) and `engine-0` (pid 11) running since t = 0.
fn running() -> Table {
    let mut table = Table::default();
    for (name, pid) in [("serve", 10), ("engine-0", 11)] {
        assert_eq!(table.step(Event::Start(spec(name)), 0), [Action::Spawn(spec(name))]);
        assert_eq!(table.step(Event::Spawned(name.into(), Some(pid)), 0), []);
    }
    table
}

#[test]
fn a_dead_child_is_started_again_alone() {
    let mut table = running();
    assert_eq!(table.step(Event::Exited(10, KILLED), 100), []);
    assert_eq!(table.next_tick_ms(), Some(150));
    assert_eq!(table.step(Event::Tick, 149), []);
    assert_eq!(table.step(Event::Tick, 150), [Action::Spawn(spec("serve"))]);
    table.step(Event::Spawned("serve".into(), Some(12)), 150);
    assert_eq!(table.get("serve").map(|p| (p.pid(), p.starts)), Some((Some(12), 2)));
    assert_eq!(table.get("engine-0").map(|p| (p.pid(), p.starts)), Some((Some(11), 1)));
}

#[test]
fn the_pause_doubles_to_its_cap_and_starts_anew_after_a_stable_run() {
    let pauses: Vec<_> = (0..9).map(pause_ms).collect();
    assert_eq!(pauses, [50, 100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000]);
    assert_eq!(pause_ms(u32::MAX), 5_000);

    let mut table = running();
    table.step(Event::Exited(10, KILLED), 10);
    table.step(Event::Tick, 60);
    table.step(Event::Spawned("serve".into(), Some(12)), 60);
    table.step(Event::Exited(12, KILLED), 70);
    assert_eq!(table.next_tick_ms(), Some(170));
    table.step(Event::Tick, 170);
    table.step(Event::Spawned("serve".into(), Some(13)), 170);
    table.step(Event::Exited(13, KILLED), 170 + 10_000);
    assert_eq!(table.next_tick_ms(), Some(170 + 10_000 + 50));
}

#[test]
fn the_same_start_again_changes_nothing() {
    let mut table = running();
    let before = table.clone();
    assert_eq!(table.step(Event::Start(spec("engine-0")), 5), []);
    assert_eq!(table, before);
}

#[test]
fn another_command_line_replaces_the_process_after_its_grace() {
    let mut table = running();
    let other = Spec {
        argv: vec!["/gonka/slot".into(), "engine".into(), "--other".into()],
        ..spec("engine-0")
    };
    assert_eq!(
        table.step(Event::Start(other.clone()), 5),
        [Action::Signal(11, Signal::Term)]
    );
    assert_eq!(table.next_tick_ms(), Some(1_005));
    assert_eq!(table.step(Event::Tick, 1_005), [Action::Signal(11, Signal::Kill)]);
    assert_eq!(table.step(Event::Exited(11, KILLED), 1_006), [Action::Spawn(other)]);
}

#[test]
fn a_stopped_process_stays_down_until_asked_for_again() {
    let mut table = running();
    table.step(Event::Stop("engine-0".into()), 5);
    assert_eq!(table.step(Event::Exited(11, Exit { code: 0, signal: 15 }), 6), []);
    assert_eq!(table.step(Event::Tick, 100_000), []);
    assert_eq!(table.get("engine-0").map(|p| p.phase.clone()), Some(Phase::Ended));
    assert_eq!(
        table.step(Event::Start(spec("engine-0")), 100_001),
        [Action::Spawn(spec("engine-0"))]
    );
}

#[test]
fn a_program_that_cannot_start_is_tried_again_later() {
    let mut table = Table::default();
    table.step(Event::Start(spec("serve")), 0);
    table.step(Event::Spawned("serve".into(), None), 0);
    assert_eq!(
        table.get("serve").and_then(|p| p.last_exit),
        Some(Exit { code: 127, signal: 0 })
    );
    assert_eq!(table.step(Event::Tick, 50), [Action::Spawn(spec("serve"))]);
}

#[test]
fn a_process_that_need_not_be_restarted_is_not() {
    let mut table = Table::default();
    let once = Spec {
        restart: false,
        ..spec("check")
    };
    table.step(Event::Start(once), 0);
    table.step(Event::Spawned("check".into(), Some(7)), 0);
    table.step(Event::Exited(7, Exit { code: 3, signal: 0 }), 5);
    assert_eq!(table.next_tick_ms(), None);
}

#[test]
fn an_orphan_that_ends_is_nobody() {
    let mut table = running();
    let before = table.clone();
    assert_eq!(table.step(Event::Exited(999, KILLED), 5), []);
    assert_eq!(table, before);
}

#[test]
fn the_end_of_the_pod_ends_serve_then_the_engines_and_starts_nothing() {
    let mut table = running();
    assert_eq!(table.step(Event::Terminate, 5), [Action::Signal(10, Signal::Term)]);
    assert_eq!(table.step(Event::Start(spec("engine-1")), 6), []);
    assert_eq!(table.step(Event::Terminate, 6), []);
    assert_eq!(
        table.step(Event::Exited(10, KILLED), 7),
        [Action::Signal(11, Signal::Term)]
    );
    assert_eq!(table.step(Event::Exited(11, KILLED), 8), [Action::Exit]);
}

#[test]
fn an_engine_that_dies_while_serve_takes_its_leave_is_not_started_again() {
    let mut table = running();
    table.step(Event::Terminate, 5);
    assert_eq!(table.step(Event::Exited(11, KILLED), 6), []);
    assert_eq!(table.step(Event::Tick, 500), []);
    assert_eq!(table.step(Event::Exited(10, KILLED), 700), [Action::Exit]);
}

#[test]
fn the_end_of_an_empty_pod_is_immediate() {
    assert_eq!(Table::default().step(Event::Terminate, 5), [Action::Exit]);
}
