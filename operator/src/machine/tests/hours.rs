//! Preferred hours order windows and forbid none.

use crds::gpu_node::{MaintenanceStatus, PreferredHours};
use rstest::rstest;

use super::super::hours::{Period, period};
use super::*;

const HOUR: i64 = 3_600_000;
/// 22:13:20 UTC.
const MIDNIGHT: i64 = NOW + 6_400_000;

fn hours(from: &str, until: &str, zone: &str) -> PreferredHours {
    PreferredHours {
        from: from.to_owned(),
        until: until.to_owned(),
        time_zone: zone.to_owned(),
    }
}

fn prefer(observed: &mut Observed, name: &str, preferred: PreferredHours) {
    wish(observed, name);
    let gpu_node = observed
        .machines
        .get_mut(name)
        .and_then(|machine| machine.gpu_node.as_mut());
    gpu_node.expect("a machine").wish.preferred = Some(preferred);
    let parameters = ChainParameters {
        epoch_length: 15_391,
        poc_stage_duration: 35,
        poc_validation_delay: 5,
        poc_validation_duration: 240,
        set_new_validators_delay: 120,
        inference_validation_cutoff: 2,
        confirmation_poc_safety_window: 500,
        ..ChainParameters::default()
    };
    observed.hosts.get_mut(OURS).expect("a host").facts.parameters = Some(parameters);
}

fn requested(observed: &mut Observed, name: &str, hours_ago: i64) {
    let time = Time(Timestamp::from_millisecond(NOW - hours_ago * HOUR).expect("a time"));
    let gpu_node = observed
        .machines
        .get_mut(name)
        .and_then(|machine| machine.gpu_node.as_mut());
    gpu_node.expect("a machine").answer = Some(MaintenanceStatus {
        state: MaintenanceStage::Waiting,
        message: String::new(),
        requested_time: time.clone(),
        since_time: time,
        expected_release_time: None,
        queue_position: None,
        observed_generation: None,
    });
}

#[rstest]
#[case::later_today("22:30", "23:00", "UTC", MIDNIGHT - 3 * HOUR / 2, MIDNIGHT - HOUR)]
#[case::tomorrow("02:00", "06:00", "UTC", MIDNIGHT + 2 * HOUR, MIDNIGHT + 6 * HOUR)]
#[case::over_midnight_and_begun("20:00", "01:00", "UTC", MIDNIGHT - 4 * HOUR, MIDNIGHT + HOUR)]
#[case::somewhere_else("09:00", "12:00", "Asia/Tokyo", MIDNIGHT, MIDNIGHT + 3 * HOUR)]
fn hours_are_those_that_are_or_come_next(
    #[case] from: &str,
    #[case] until: &str,
    #[case] zone: &str,
    #[case] from_ms: i64,
    #[case] until_ms: i64,
) {
    assert_eq!(period(&hours(from, until, zone), NOW), Ok(Period { from_ms, until_ms }));
}

#[test]
fn the_night_in_which_clocks_go_back_is_an_hour_longer() {
    // 29 October 2023, 00:00 in Berlin.
    let night = period(&hours("01:00", "04:00", "Europe/Berlin"), 1_698_530_400_000).expect("a period");
    assert_eq!(night.until_ms - night.from_ms, 4 * HOUR);
}

#[test]
fn a_machine_waits_for_its_hours_and_goes_when_they_come() {
    let mut observed = fleet(3, 2);
    prefer(&mut observed, "n0", hours("02:00", "06:00", "UTC"));
    pass(&mut observed);
    let waits = turn(&observed, "n0");
    assert_eq!(
        (waits.stage, waits.expected_ms),
        (MaintenanceStage::Waiting, Some(MIDNIGHT + 2 * HOUR))
    );
    assert!(waits.message.contains("02:00 to 06:00 UTC"), "{}", waits.message);
    observed.now_ms = MIDNIGHT + 2 * HOUR;
    let host = observed.hosts.get_mut(OURS).expect("a host");
    host.facts.observed_ms = observed.now_ms;
    assert_eq!(turn(&observed, "n0").stage, MaintenanceStage::Draining);
}

#[test]
fn whoever_waits_for_hours_holds_up_nobody() {
    let mut observed = fleet(6, 2);
    prefer(&mut observed, "n3", hours("02:00", "06:00", "UTC"));
    wish(&mut observed, "n4");
    let turns = turns(&observed);
    assert_eq!(turns["n4"].stage, MaintenanceStage::Released);
    assert_eq!(turns["n3"].stage, MaintenanceStage::Waiting);
    assert_eq!(turns["n3"].expected_ms, Some(MIDNIGHT + 2 * HOUR));
}

#[test]
fn those_in_their_hours_go_before_others() {
    let mut observed = fleet(6, 2);
    wish(&mut observed, "n3");
    prefer(&mut observed, "n4", hours("22:00", "23:00", "UTC"));
    let turns = turns(&observed);
    assert_eq!(turns["n4"].stage, MaintenanceStage::Released);
    assert_eq!(turns["n3"].stage, MaintenanceStage::Waiting);
}

#[test]
fn hours_forbid_nothing() {
    // A day is over.
    let mut observed = fleet(3, 2);
    prefer(&mut observed, "n0", hours("02:00", "06:00", "UTC"));
    requested(&mut observed, "n0", 21);
    assert_eq!(turn(&observed, "n0").stage, MaintenanceStage::Draining);
    // The wish lapses before they come.
    let mut observed = fleet(3, 2);
    prefer(&mut observed, "n0", hours("02:00", "06:00", "UTC"));
    let gpu_node = observed
        .machines
        .get_mut("n0")
        .and_then(|machine| machine.gpu_node.as_mut());
    let lapses = Timestamp::from_millisecond(MIDNIGHT).expect("a time");
    gpu_node.expect("n0").wish.not_after_time = Some(Time(lapses));
    assert_eq!(turn(&observed, "n0").stage, MaintenanceStage::Draining);
    // There is no such clock, and whoever asks is told.
    let mut observed = fleet(3, 2);
    prefer(&mut observed, "n0", hours("02:00", "06:00", "Asia/Atlantis"));
    assert_eq!(turn(&observed, "n0").stage, MaintenanceStage::Draining);
    let host = observed.hosts.get_mut(OURS).expect("a host");
    host.facts.window = Window::Sprint;
    let waits = turn(&observed, "n0");
    assert!(
        waits.message.contains("no time zone is called Asia/Atlantis"),
        "{}",
        waits.message
    );
}

#[test]
fn without_spares_hours_without_a_green_window_are_not_waited_for() {
    // Green is 03:55 to 05:00.
    let late = |from: &str, until: &str| {
        let mut observed = fleet(40, 40);
        prefer(&mut observed, "n7", hours(from, until, "UTC"));
        turn(&observed, "n7").message
    };
    assert!(late("03:00", "06:00").contains("preferred hours"));
    assert!(
        late("04:30", "06:00").contains("no rehearsed spare"),
        "half an hour is too short"
    );
    assert!(late("22:30", "02:00").contains("no rehearsed spare"));
}
