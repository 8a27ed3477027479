//! What is believed of what endpoints say.

mod upgrades;

use crds::references::Stage;
use crds::sprint_schedule::{Endpoint, Margins};
use proptest::prelude::*;

use super::*;
use crate::chain::answers::{Block, Clock, Event, EventPhase, Preserved, Vote};
use crate::chain::view::{Door, Failure, News};

const CHAIN: &str = "gonka-testnet-1";
const NAMES: [&str; 3] = ["own", "node-2", "node-3"];
const P: i64 = 145;
const T0: i64 = 1_000_000_000;

fn parameters() -> ChainParameters {
    ChainParameters {
        epoch_length: 100,
        poc_stage_duration: 12,
        poc_validation_delay: 3,
        poc_validation_duration: 16,
        set_new_validators_delay: 4,
        inference_validation_cutoff: 2,
        confirmation_poc_safety_window: 10,
        upgrade_protection_window: 3,
        ..ChainParameters::default()
    }
}

fn hash(height: i64) -> String {
    format!("{height:064X}")
}

fn block(height: i64) -> Block {
    Block {
        chain_id: CHAIN.into(),
        height,
        hash: hash(height),
        time_ms: T0 + height * 1000,
    }
}

fn clock(height: i64) -> Clock {
    let epoch = (height + 55) / 100;
    Clock {
        height,
        epoch,
        poc_start: epoch * 100 - 55,
        parameters: parameters(),
        event: None,
    }
}

fn event(seed: &str) -> Event {
    Event {
        trigger_height: 185,
        generation_start_height: 187,
        phase: EventPhase::Grace,
        seed: seed.to_owned(),
    }
}

/// Three endpoints, a quorum of two, ten seconds of readiness.
struct World {
    spec: SprintScheduleSpec,
    views: BTreeMap<String, View>,
    memory: Memory,
    now_ms: i64,
}

impl World {
    fn new() -> Self {
        let endpoints = NAMES.map(|name| Endpoint {
            name: name.into(),
            ..Endpoint::default()
        });
        Self {
            spec: SprintScheduleSpec {
                chain_id: CHAIN.into(),
                endpoints: endpoints.into(),
                quorum: 2,
                margins: Margins {
                    ready_by_seconds: 10,
                    ..Margins::default()
                },
            },
            views: NAMES.map(|name| (name.to_owned(), View::default())).into(),
            memory: Memory::default(),
            now_ms: T0,
        }
    }

    /// All endpoints at `height`, a second per block.
    fn at(height: i64) -> Self {
        let mut world = Self::new();
        for height in height - 5..=height {
            world.step(height, &NAMES);
        }
        world
    }

    /// `names` report the next block.
    fn step(&mut self, height: i64, names: &[&str]) -> Facts {
        for name in names {
            self.tell(name, tip(block(height)));
            self.tell(name, News::Clock(Box::new(clock(height))));
            self.tell(name, upgrade(None, &[]));
        }
        self.now_ms = T0 + height * 1000;
        self.decide()
    }

    fn tell(&mut self, name: &str, news: News) {
        self.views.get_mut(name).expect("an endpoint").apply(news);
    }

    fn decide(&mut self) -> Facts {
        let decision = decide(
            &self.memory,
            &Observed {
                schedule: "test",
                spec: &self.spec,
                views: &self.views,
                now_ms: self.now_ms,
            },
        );
        self.memory = decision.memory;
        decision.facts
    }
}

fn upgrade(plan: Option<&UpgradePlan>, votes: &[Vote]) -> News {
    News::Upgrade {
        plan: plan.cloned(),
        last: None,
        votes: Some(votes.to_vec()),
    }
}

fn tip(block: Block) -> News {
    News::Tip {
        block,
        catching_up: Some(false),
    }
}

fn states(facts: &Facts) -> Vec<EndpointState> {
    facts.endpoints.iter().map(|endpoint| endpoint.state).collect()
}

use EndpointState::{Disagrees, Lagging, ShapeUnknown, Unreachable, Up, WrongChain};

#[test]
fn three_that_agree_make_facts_with_a_window_and_a_pace() {
    let facts = World::at(200).decide();
    assert_eq!(
        (facts.height, facts.block_hash.as_str(), facts.agreeing),
        (200, hash(200).as_str(), 3)
    );
    assert_eq!(
        (facts.epoch, facts.stage, facts.window),
        (2, Stage::Inference, Window::Green)
    );
    assert_eq!(
        facts.green_until_height,
        Some(facts.last_height_before(245, 10_000).expect("a pace"))
    );
    assert!((facts.pace.block_millis - 1000.0).abs() < 1.0);
    assert_eq!(states(&facts), [Up, Up, Up]);
    assert_eq!(facts.problems, Vec::<String>::new());
}

#[test]
fn nothing_is_known_before_a_quorum_has_spoken() {
    let mut world = World::new();
    let facts = world.step(200, &["own"]);
    assert_eq!((facts.height, facts.window, facts.quorum), (0, Window::Unknown, false));
    assert!(!facts.problems.is_empty());
}

#[test]
fn an_endpoint_that_stops_is_named_and_the_others_go_on() {
    let mut world = World::at(200);
    for _ in 0..2 {
        world.tell(
            "node-3",
            News::Failed(Door::Rpc, Failure::Unreachable("connection refused".into())),
        );
    }
    let facts = world.step(201, &["own", "node-2"]);
    assert_eq!((facts.height, facts.agreeing, facts.window), (201, 2, Window::Green));
    assert_eq!(states(&facts), [Up, Up, Unreachable]);
    assert_eq!(facts.endpoints[2].message, "RPC: connection refused");
}

#[test]
fn an_endpoint_with_another_block_disagrees_by_name() {
    let mut world = World::at(200);
    let mut lie = block(201);
    lie.hash = "F".repeat(64);
    world.tell("own", tip(lie));
    let facts = world.step(201, &["node-2", "node-3"]);
    assert_eq!((facts.height, facts.agreeing, facts.window), (201, 2, Window::Green));
    assert_eq!(states(&facts), [Disagrees, Up, Up]);
}

#[test]
fn an_endpoint_far_ahead_of_the_quorum_disagrees_and_moves_nothing() {
    let mut world = World::at(200);
    world.tell("own", tip(block(9_000)));
    let facts = world.step(201, &["node-2", "node-3"]);
    assert_eq!(facts.height, 201);
    assert_eq!(states(&facts), [Disagrees, Up, Up]);
}

#[test]
fn an_endpoint_that_stays_behind_is_lagging() {
    let mut world = World::at(200);
    let mut facts = Facts::default();
    for height in 201..=206 {
        facts = world.step(height, &["own", "node-2"]);
    }
    assert_eq!(states(&facts), [Up, Up, Lagging]);
}

#[test]
fn an_endpoint_whose_rest_door_stands_still_is_lagging() {
    let mut world = World::at(200);
    let mut facts = Facts::default();
    for height in 201..=211 {
        world.tell("node-3", tip(block(height)));
        facts = world.step(height, &["own", "node-2"]);
    }
    assert_eq!(states(&facts), [Up, Up, Lagging]);
    assert_eq!(facts.endpoints[2].message, "REST: is behind the quorum");
    assert_eq!(facts.agreeing, 3);
}

#[test]
fn an_endpoint_of_another_chain_does_not_count() {
    let mut world = World::at(200);
    let mut other = block(201);
    other.chain_id = "gonka-mainnet".into();
    world.tell("node-2", tip(other));
    let facts = world.step(201, &["own", "node-3"]);
    assert_eq!((facts.height, facts.agreeing), (201, 2));
    assert_eq!(states(&facts), [Up, WrongChain, Up]);
}

#[test]
fn an_unknown_shape_is_named_and_nothing_is_guessed() {
    let mut world = World::at(200);
    for name in ["own", "node-2"] {
        world.tell(
            name,
            News::Failed(Door::Rest, Failure::Shape("epoch_length has an unknown shape".into())),
        );
    }
    let facts = world.decide();
    assert_eq!(states(&facts), [ShapeUnknown, ShapeUnknown, Up]);
    assert_eq!(facts.window, Window::Unknown);
}

#[test]
fn without_a_quorum_the_window_is_unknown_at_once() {
    let mut world = World::at(200);
    for name in ["own", "node-2"] {
        for _ in 0..2 {
            world.tell(name, News::Failed(Door::Rpc, Failure::Unreachable("timeout".into())));
        }
    }
    let facts = world.decide();
    assert_eq!((facts.quorum, facts.window), (false, Window::Unknown));
    assert!(
        facts.problems[0].contains("own (Unreachable), node-2 (Unreachable)"),
        "{:?}",
        facts.problems
    );
}

#[test]
fn a_split_that_lasts_is_no_quorum() {
    let mut world = World::at(200);
    world.spec.quorum = 3;
    let mut other = block(201);
    other.hash = "E".repeat(64);
    world.tell("own", tip(other));
    world.tell("node-2", tip(block(201)));
    world.tell("node-3", tip(block(201)));
    assert!(world.decide().quorum, "a race of a moment is no split");
    world.now_ms += 4000;
    let facts = world.decide();
    assert_eq!((facts.quorum, facts.window), (false, Window::Unknown));
}

#[test]
fn a_chain_that_stands_still_ages_into_unknown() {
    let mut world = World::at(200);
    world.now_ms += 30_000;
    assert_eq!(world.decide().window, Window::Green);
    world.now_ms += 1;
    assert_eq!(world.decide().window, Window::Unknown);
}

#[test]
fn a_sprint_begins_with_its_first_block_before_any_clock_says_so() {
    let mut world = World::at(244);
    for name in NAMES {
        world.tell(name, tip(block(245)));
    }
    let facts = world.decide();
    assert_eq!(
        (facts.epoch, facts.stage, facts.window),
        (3, Stage::SprintGeneration, Window::Sprint)
    );
    let exam = facts.exam.expect("a Sprint");
    assert_eq!(
        (exam.kind, exam.generation_start_height, exam.seed),
        (ExamKind::Sprint, 245, hash(245))
    );
}

#[test]
fn arithmetic_carries_through_one_sprint_and_no_further() {
    let mut world = World::at(244);
    let mut window = Window::Unknown;
    for height in 245..=300 {
        for name in NAMES {
            world.tell(name, tip(block(height)));
            world.tell(name, News::Failed(Door::Rest, Failure::Unreachable("timeout".into())));
        }
        world.now_ms = T0 + height * 1000;
        window = world.decide().window;
        if height == 275 {
            assert_eq!(window, Window::Validation);
        }
    }
    assert_eq!(window, Window::Unknown);
}

#[test]
fn a_reader_that_starts_within_a_sprint_asks_for_its_first_block() {
    let mut world = World::new();
    for name in NAMES {
        world.tell(name, tip(block(150)));
        world.tell(name, News::Clock(Box::new(clock(150))));
    }
    world.now_ms = T0 + 150_000;
    let observed = |world: &World| {
        decide(
            &world.memory,
            &Observed {
                schedule: "test",
                spec: &world.spec,
                views: &world.views,
                now_ms: world.now_ms,
            },
        )
    };
    let first = observed(&world);
    assert_eq!(first.facts.exam.as_ref().map(|exam| exam.seed.as_str()), Some(""));
    assert_eq!(first.wanted.blocks, [P, 130]);
    assert!(first.wanted.preserved);
    world.memory = first.memory;
    for name in ["own", "node-2"] {
        world.tell(name, News::Older(block(P)));
        world.tell(name, News::Older(block(130)));
    }
    let second = observed(&world);
    assert_eq!(second.facts.exam.map(|exam| exam.seed), Some(hash(P)));
    assert!((second.facts.pace.block_millis - 1000.0).abs() < 1.0);
    assert_eq!(second.wanted.blocks, Vec::<i64>::new());
}

#[test]
fn one_endpoint_announces_a_confirmation_and_a_quorum_may_contradict_it() {
    let mut world = World::at(184);
    world.step(185, &NAMES);
    let announced = Clock {
        event: Some(event("")),
        ..clock(185)
    };
    world.tell("node-3", News::Clock(Box::new(announced)));
    // Both others answered for the same height without it.
    assert_eq!(world.decide().exam, None);
    for name in NAMES {
        world.tell(name, News::Clock(Box::new(clock(184))));
    }
    let announced = Clock {
        event: Some(event("")),
        ..clock(185)
    };
    world.tell("node-3", News::Clock(Box::new(announced)));
    let facts = world.decide();
    assert_eq!(facts.window, Window::Confirmation);
    let exam = facts.exam.expect("announced");
    assert_eq!(
        (
            exam.kind,
            exam.trigger_height,
            exam.generation_start_height,
            exam.generation_end_height
        ),
        (ExamKind::Confirmation, 185, 187, 198)
    );
    assert_eq!(exam.seed, "");
}

#[test]
fn the_seed_of_a_confirmation_is_what_most_say() {
    let mut world = World::at(188);
    for (name, seed) in NAMES.iter().zip(["aa", "aa", "bb"]) {
        let told = Clock {
            event: Some(event(seed)),
            ..clock(188)
        };
        world.tell(name, News::Clock(Box::new(told)));
    }
    assert_eq!(world.decide().exam.map(|exam| exam.seed), Some("aa".to_owned()));
}

#[test]
fn nobody_is_preserved_on_the_word_of_one() {
    let mut world = World::at(150);
    let snapshot = News::Preserved(Some(Preserved {
        anchor_height: P,
        node_ids: vec!["abc-tiny-0".into()],
    }));
    world.tell("own", snapshot.clone());
    assert_eq!(
        world.decide().exam.expect("a Sprint").preserved_node_ids,
        Vec::<String>::new()
    );
    world.tell("node-2", snapshot);
    assert_eq!(
        world.decide().exam.expect("a Sprint").preserved_node_ids,
        ["abc-tiny-0"]
    );
}

#[test]
fn an_endpoint_with_other_parameters_disagrees() {
    let mut world = World::at(200);
    let mut lie = clock(200);
    lie.parameters.epoch_length = 5000;
    world.tell("own", News::Clock(Box::new(lie)));
    let facts = world.decide();
    assert_eq!(states(&facts), [Disagrees, Up, Up]);
    assert_eq!(facts.heights.expect("known").next_poc_start_height, 245);
    assert_eq!(facts.window, Window::Green);
}

#[test]
fn being_first_in_the_next_epoch_is_no_dissent() {
    let mut world = World::at(244);
    world.tell("own", News::Clock(Box::new(clock(245))));
    assert_eq!(states(&world.decide()), [Up, Up, Up]);
}

#[test]
fn before_the_first_sprint_there_is_no_exam() {
    for height in 6..45 {
        let facts = World::at(height).decide();
        assert_eq!((facts.epoch, facts.stage, facts.exam), (0, Stage::Inference, None));
        assert!(
            matches!(facts.window, Window::Amber | Window::Green),
            "{height}: {}",
            facts.window
        );
        assert_eq!(facts.heights.expect("known").next_poc_start_height, 45);
    }
    assert_eq!(World::at(45).decide().window, Window::Sprint);
}

#[test]
fn memory_survives_a_restart_and_knows_the_epoch_before_any_clock() {
    let text = serde_json::to_string(&World::at(200).memory).expect("JSON");
    let mut world = World::new();
    world.memory = serde_json::from_str(&text).expect("memory");
    for name in NAMES {
        world.tell(name, tip(block(210)));
    }
    world.now_ms = T0 + 210_000;
    let facts = world.decide();
    assert_eq!((facts.height, facts.epoch), (210, 2));
    assert!(facts.heights.is_some());
    // Nobody has said yet whether there is a confirmation.
    assert_eq!(facts.window, Window::Unknown);
}

#[test]
fn a_state_keeps_the_time_it_began() {
    let mut world = World::at(200);
    let since = world.decide().endpoints[0].since_ms;
    assert_eq!(world.step(201, &NAMES).endpoints[0].since_ms, since);
}

proptest! {
    /// Whatever one of three endpoints says, heights, epoch and permission follow the other two.
    #[test]
    fn a_single_liar_never_moves_the_facts(
        height in 181..240_i64, lie_height in 1..1_000_000_i64, lie_epoch in 0..9_i64, lie_start in 1..500_i64,
        lie_length in 60..9_000_i64, lie_trigger in 1..400_i64,
    ) {
        let honest = World::at(height).step(height + 1, &NAMES);
        let mut world = World::at(height);
        let mut lie = block(lie_height);
        lie.hash = "D".repeat(64);
        world.tell("node-3", tip(lie));
        let mut lying = clock(height + 1);
        lying.epoch = lie_epoch;
        lying.poc_start = lie_start;
        lying.parameters.epoch_length = lie_length;
        lying.event = Some(Event { trigger_height: lie_trigger, generation_start_height: lie_trigger + 2, ..event("") });
        world.tell("node-3", News::Clock(Box::new(lying)));
        let facts = world.step(height + 1, &["own", "node-2"]);
        prop_assert_eq!(facts.height, honest.height);
        prop_assert_eq!(facts.heights, honest.heights);
        prop_assert_eq!(facts.stage, honest.stage);
        prop_assert!(facts.window == honest.window || facts.window == Window::Confirmation);
        prop_assert!(facts.window != Window::Green || facts.green_until_height <= honest.green_until_height);
    }

    /// Without parameters, or with old facts, nothing is permitted at any height.
    #[test]
    fn ignorance_is_unknown_at_every_height(height in 10..100_000_i64, late in 30_001..1_000_000_i64) {
        let mut blind = World::new();
        for name in NAMES {
            blind.tell(name, tip(block(height)));
        }
        blind.now_ms = T0 + height * 1000;
        prop_assert_eq!(blind.decide().window, Window::Unknown);
        let mut stale = World::at(height);
        stale.now_ms += late;
        prop_assert_eq!(stale.decide().window, Window::Unknown);
    }
}
