//! Golden cases, one test per invalid reason, and what must hold for any DAPI.

pub mod world;

use std::collections::BTreeMap;

use crds::GonkaHostStatus;
use crds::conditions::Reason;
use crds::gonka_host::{ManagementPolicy, Participation, ParticipationMode};
use proptest::prelude::*;
use rstest::rstest;
use serde::Serialize;

use super::decide::{Desired, Saying, decide, settle};
use super::observed::{Observed, Other, Reading};
use super::plan::DapiWrite;
use super::validate;
use crate::golden;
use world::{Dapi, observed};

/// What a golden case shows: conditions in a line each.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown {
    writes: Vec<DapiWrite>,
    notices: Vec<Saying>,
    requeue_millis: u64,
    conditions: BTreeMap<String, String>,
    status: GonkaHostStatus,
}

fn shown(observed: &Observed) -> Shown {
    let Desired {
        writes,
        mut status,
        notices,
        requeue_millis,
    } = decide(observed);
    let conditions = status
        .conditions
        .drain(..)
        .filter(|condition| condition.reason != Reason::NotObserved.to_string())
        .map(|condition| {
            (
                condition.type_,
                format!("{} {}: {}", condition.status, condition.reason, condition.message),
            )
        })
        .collect();
    Shown {
        writes,
        notices,
        requeue_millis,
        conditions,
        status,
    }
}

#[test]
fn every_golden_case_is_decided_as_written() {
    assert!(golden::check("gonka_host", shown) >= 10);
}

#[rstest]
#[case::schedule(|o: &mut Observed| o.schedule_exists = false, Reason::MissingReference, "scheduleName")]
#[case::secret(|o: &mut Observed| o.secret_problem = "there is no Secret \"x\"".into(), Reason::MissingReference, "adminAuthSecretRef")]
#[case::address(|o: &mut Observed| o.host.spec.account.address = "Gonka".into(), Reason::InvalidSpec, "spec.account.address")]
#[case::key(|o: &mut Observed| o.host.spec.account.cold_public_key = "04ab".into(), Reason::InvalidSpec, "coldPublicKey")]
#[case::public_url(|o: &mut Observed| o.host.spec.public_url = "ftp://x".into(), Reason::InvalidSpec, "spec.publicURL")]
#[case::external(|o: &mut Observed| o.host.spec.network_node.external = None, Reason::InvalidSpec, "external: it is required")]
#[case::admin(|o: &mut Observed| world::external(o).admin_url = "http://".into(), Reason::InvalidSpec, "adminURL")]
#[case::credentials(|o: &mut Observed| world::external(o).admin_url = "http://a:b@h".into(), Reason::InvalidSpec, "credentials")]
#[case::query(|o: &mut Observed| world::external(o).public_url = "http://h/?a=b".into(), Reason::InvalidSpec, "must end with its path")]
#[case::callback(|o: &mut Observed| world::external(o).expected_callback_url = "10.0.0.7:9100".into(), Reason::InvalidSpec, "expectedCallbackURL")]
#[case::bundle(|o: &mut Observed| world::external(o).ca_bundle = Some("no pem".into()), Reason::InvalidSpec, "no PEM certificate")]
#[case::bundle_without_tls(|o: &mut Observed| world::external(o).ca_bundle = Some(String::new()), Reason::InvalidSpec, "not https")]
#[case::twice(|o: &mut Observed| o.host.spec.participation = vec![part("m"), part("m")], Reason::InvalidSpec, "named twice")]
#[case::delegate(|o: &mut Observed| o.host.spec.participation = vec![delegating("m")], Reason::InvalidSpec, "delegateAddress")]
#[case::budget(|o: &mut Observed| o.host.spec.disruption.max_weight_basis_points = 910, Reason::InvalidSpec, "maxWeightBasisPoints")]
#[case::public_account(|o: &mut Observed| o.identity = Reading::known("gonka1other".into()), Reason::InvalidSpec, "publicURL: the network node")]
#[case::admin_account(|o: &mut Observed| world::report(o).account = "gonka1other".into(), Reason::InvalidSpec, "adminURL: the network node")]
#[case::same_account(|o: &mut Observed| o.others = vec![older("gonka1ours", "http://elsewhere:9200")], Reason::InvalidSpec, "already stands for this account")]
#[case::same_admin(|o: &mut Observed| o.others = vec![older("gonka1x", "http://10.0.0.7:9200/")], Reason::InvalidSpec, "already keeps this network node")]
fn each_fault_is_named_and_nothing_is_written(
    #[case] spoil: fn(&mut Observed),
    #[case] reason: Reason,
    #[case] words: &str,
) {
    let mut observed = observed(3);
    spoil(&mut observed);
    let problems = validate::problems(&observed);
    assert!(
        problems
            .iter()
            .any(|problem| problem.reason == reason && problem.text.contains(words)),
        "{words:?} is not in {problems:?}"
    );
    let desired = decide(&observed);
    assert!(desired.writes.is_empty());
    let accepted = desired
        .status
        .conditions
        .iter()
        .find(|condition| condition.type_ == "Accepted")
        .expect("present");
    assert_eq!(accepted.status, "False");
    assert!(accepted.message.contains(words));
}

fn part(model: &str) -> Participation {
    Participation {
        model_id: model.to_owned(),
        ..Participation::default()
    }
}

fn delegating(model: &str) -> Participation {
    Participation {
        mode: ParticipationMode::Delegate,
        ..part(model)
    }
}

fn older(account: &str, admin_url: &str) -> Other {
    Other {
        name: "gonka/older".to_owned(),
        created_ms: 1,
        schedule: "net".to_owned(),
        account: account.to_owned(),
        admin_url: admin_url.to_owned(),
    }
}

#[test]
fn all_faults_are_told_at_once() {
    let mut observed = observed(1);
    observed.schedule_exists = false;
    observed.host.spec.account.cold_public_key = "04".to_owned();
    observed.host.spec.public_url = "x".to_owned();
    assert_eq!(validate::problems(&observed).len(), 3);
}

#[test]
fn the_older_of_two_hosts_for_one_account_is_not_troubled() {
    let mut observed = observed(1);
    observed.others = vec![Other {
        created_ms: i64::MAX,
        ..older("gonka1ours", "")
    }];
    assert_eq!(validate::problems(&observed), []);
}

#[test]
fn a_rejected_host_keeps_what_was_known_of_it() {
    let mut observed = observed(2);
    observed.host.status = Some(decide(&observed).status);
    observed.host.spec.public_url = "x".to_owned();
    let before = observed.host.status.clone().expect("set");
    let after = decide(&observed).status;
    assert_eq!(
        (after.registrations, after.weight),
        (before.registrations, before.weight)
    );
}

#[test]
fn a_second_pass_over_an_unchanged_world_writes_nothing() {
    let mut observed = observed(3);
    let mut dapi = Dapi::default();
    for _ in 0..8 {
        dapi.take(&decide(&observed).writes);
        observed.nodes = Reading::known(dapi.listed());
        observed.host.status = Some(decide(&observed).status);
    }
    let desired = decide(&observed);
    assert_eq!(desired.writes, []);
    assert_eq!(desired.notices, []);
    assert_eq!(settle(&observed, &desired, None), None);
}

#[test]
fn a_refused_write_is_said_and_said_once() {
    let mut observed = observed(1);
    let desired = decide(&observed);
    assert_eq!(desired.writes.len(), 1);
    let told = settle(&observed, &desired, Some("node a: POST was answered 500")).expect("news");
    let synced = told
        .conditions
        .iter()
        .find(|condition| condition.type_ == "NetworkNodeSynced")
        .expect("present");
    assert_eq!(
        (synced.status.as_str(), synced.reason.as_str()),
        ("False", "ApplyFailed")
    );
    observed.host.status = Some(told);
    let again = decide(&observed);
    assert_eq!(settle(&observed, &again, Some("node a: POST was answered 500")), None);
}

/// What may happen to DAPI between two passes.
#[derive(Clone, Debug)]
enum Step {
    Pass,
    Exam(bool),
    Lose(usize),
    Move(usize),
    Foreign(u8),
    Restart,
    LoseDatabase,
    Unreachable,
    Slots(i32),
    Policy(bool),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => Just(Step::Pass),
        1 => any::<bool>().prop_map(Step::Exam),
        1 => (0..8usize).prop_map(Step::Lose),
        1 => (0..8usize).prop_map(Step::Move),
        1 => any::<u8>().prop_map(Step::Foreign),
        1 => Just(Step::Restart),
        1 => Just(Step::LoseDatabase),
        1 => Just(Step::Unreachable),
        1 => (0..6i32).prop_map(Step::Slots),
        1 => any::<bool>().prop_map(Step::Policy),
    ];
    proptest::collection::vec(step, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn whatever_dapi_does_foreign_nodes_stay_slots_go_in_order_and_observe_is_silent(steps in steps()) {
        let mut observed = observed(3);
        let mut dapi = Dapi::default();
        for step in steps {
            let mut reachable = true;
            match step {
                Step::Pass => {}
                Step::Exam(on) => world::exam(&mut observed, on),
                Step::Lose(which) => dapi.lose(which),
                Step::Move(which) => dapi.spoil(which),
                Step::Foreign(which) => dapi.add_foreign(which),
                Step::Restart => dapi.restart(),
                Step::LoseDatabase => dapi = Dapi::default(),
                Step::Unreachable => reachable = false,
                Step::Slots(slots) => world::set_slots(&mut observed, slots),
                Step::Policy(manage) => {
                    observed.host.spec.management_policy =
                        if manage { ManagementPolicy::Manage } else { ManagementPolicy::Observe };
                }
            }
            observed.nodes = if reachable {
                Reading::known(dapi.listed())
            } else {
                Reading { value: None, failure: "no answer in time".to_owned() }
            };
            let desired = decide(&observed);
            let silent = !reachable || observed.host.spec.management_policy == ManagementPolicy::Observe;
            prop_assert!(!silent || desired.writes.is_empty());
            let posts: Vec<_> = desired.writes.iter().filter(|write| matches!(write, DapiWrite::Post(_))).collect();
            let recorded = world::recorded(&observed);
            let listed = dapi.listed();
            let highest = listed.iter().map(|node| node.node_num).max().unwrap_or(0);
            let gone = |id: &&String| !dapi.has(id);
            let again: Vec<&str> = if listed.is_empty() {
                recorded.values().map(String::as_str).collect()
            } else {
                (highest + 1..).map_while(|number| recorded.get(&number).filter(gone)).map(String::as_str).collect()
            };
            let is_again = |write: &DapiWrite| again.contains(&write.node().id.as_str());
            let new = posts.iter().filter(|write| !is_again(write)).count();
            prop_assert!(new <= 1, "one addition a pass");
            prop_assert!(new == 0 || new == posts.len(), "none while others are made again");
            let ids: Vec<&str> = posts.iter().map(|write| write.node().id.as_str()).collect();
            prop_assert!(new == 1 || again.starts_with(&ids), "{ids:?} again in the order of {again:?}");
            for write in &desired.writes {
                let id = &write.node().id;
                prop_assert!(id.starts_with("a1b2c3-qwen-"), "{id} is not ours");
                match write {
                    DapiWrite::Put(_) => prop_assert!(dapi.has(id)),
                    DapiWrite::Post(_) => {
                        prop_assert!(!dapi.has(id));
                        let lost_all = listed.is_empty() && is_again(write);
                        prop_assert!(!world::in_exam(&observed) || lost_all, "no new number in an exam");
                        if is_again(write) {
                            continue;
                        }
                        let slot: i32 = id.rsplit('-').next().and_then(|slot| slot.parse().ok()).expect("a slot");
                        prop_assert!((0..slot).all(|earlier| dapi.has(&format!("a1b2c3-qwen-{earlier}"))), "slot order");
                    }
                }
            }
            let foreign = dapi.foreign();
            let before = dapi.len();
            dapi.take(&desired.writes);
            prop_assert_eq!(dapi.foreign(), foreign, "nodes of others are as they were");
            prop_assert!(dapi.len() >= before, "nothing is deleted");
            observed.host.status = Some(desired.status);
        }
        // Left alone, it settles: everything registered and in order, and nothing more to say.
        world::exam(&mut observed, false);
        observed.host.spec.management_policy = ManagementPolicy::Manage;
        for _ in 0..12 {
            observed.nodes = Reading::known(dapi.listed());
            let desired = decide(&observed);
            dapi.take(&desired.writes);
            observed.host.status = Some(desired.status);
        }
        observed.nodes = Reading::known(dapi.listed());
        let desired = decide(&observed);
        prop_assert_eq!(&desired.writes, &vec![]);
        prop_assert_eq!(settle(&observed, &desired, None), None);
    }
}
