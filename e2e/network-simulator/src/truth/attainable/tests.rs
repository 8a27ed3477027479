use super::*;
use crate::truth::Slot;
use rstest::rstest;

/// A unit of so many nonces a second, by its name and what is wrong with it: `a10`, `a10 sick`, `a10 cold`, `a10 cut`, `a10 barred`.
fn unit(text: &str) -> Unit {
    let mut words = text.split(' ');
    let name = words.next().unwrap_or_default();
    let (id, rate) = name.split_at(name.find(|letter: char| letter.is_ascii_digit()).expect("a rate"));
    let troubles: Vec<&str> = words.collect();
    Unit {
        id: id.to_owned(),
        node_id: None,
        model: "m".to_owned(),
        rate_milli: rate.parse::<u64>().expect("a number") * 1000,
        healthy: !troubles.contains(&"sick"),
        loaded: !troubles.contains(&"cold"),
        reachable: !troubles.contains(&"cut"),
        assignable: !troubles.contains(&"barred"),
    }
}

/// So many slots in 100 seconds of generation, and looks: `second: units`, or `second deaf: units` while DAPI is not there.
fn nonces(slots: usize, from_s: u64, looks: &[&str]) -> u64 {
    let slot = |place: usize| Slot {
        node_id: place.to_string(),
        model: "m".to_owned(),
    };
    let look = |text: &&str| {
        let (when, units) = text.split_once(':').expect("second: units");
        let (second, deaf) = when
            .strip_suffix(" deaf")
            .map_or((when, false), |second| (second, true));
        Look {
            at_ms: second.parse::<u64>().expect("a second") * 1000,
            takes: !deaf,
            units: units
                .split(',')
                .map(str::trim)
                .filter(|text| !text.is_empty())
                .map(unit)
                .collect(),
        }
    };
    let survey = Survey {
        stage_height: 1,
        slots: (0..slots).map(slot).collect(),
        units: Vec::new(),
        looks: looks.iter().map(look).collect(),
    };
    let counts = survey.attainable(from_s * 1000, 100_000);
    counts.get("m").copied().unwrap_or_default()
}

#[rstest]
#[case::nothing_happens(2, &["0: a10, b10, c9"], 2000)]
#[case::one_is_lost_without_a_spare(2, &["0: a10, b10", "40: a10"], 1400)]
#[case::one_is_lost_and_the_spare_has_its_own_rate_from_then_on(2, &["0: a10, b10, c8", "40: a10, c8"], 1880)]
#[case::a_spare_that_is_lost_costs_nothing(2, &["0: a10, b10, c8", "40: a10, b10"], 2000)]
#[case::a_spare_that_has_still_to_load_counts_once_it_has(1, &["0: a10, c8 cold", "40: c8 cold", "70: c8"], 640)]
#[case::an_engine_that_loads_again_is_not_there_meanwhile(1, &["0: a10", "30: a10 cold", "50: a10"], 800)]
#[case::a_finding_takes_a_unit_away_for_as_long_as_it_lasts(1, &["0: a10", "30: a10 sick", "50: a10"], 800)]
#[case::power_that_comes_back_is_another_unit(1, &["0: a10", "30:", "60: a'10 cold", "80: a'10"], 500)]
#[case::flapping_counts_what_was_up(1, &["0: a10", "10:", "20: b10", "30:", "40: d10", "50:"], 300)]
#[case::there_is_no_more_than_there_are_slots(1, &["0: a10, b9, c8", "50: b9, c8"], 950)]
#[case::without_slots_there_is_nothing(0, &["0: a10"], 0)]
fn units_that_come_and_go_count_while_they_can_generate(
    #[case] slots: usize,
    #[case] looks: &[&str],
    #[case] expected: u64,
) {
    assert_eq!(nonces(slots, 0, looks), expected);
}

#[rstest]
#[case::cut_for_good_is_lost_from_the_cut_on(&["0: a10", "30: a10 cut"], 300)]
#[case::cut_and_back_in_time_delivers_everything(&["0: a10", "30: a10 cut", "90: a10"], 1000)]
#[case::cut_and_then_out_of_power_delivers_nothing_more(&["0: a10", "30: a10 cut", "90:", "95: a'10"], 350)]
#[case::cut_before_anybody_could_tell_it(&["0: a10 cut", "30: a10"], 700)]
#[case::cut_from_beginning_to_end(&["0: a10 cut"], 0)]
#[case::the_spare_fills_in_for_one_that_never_comes_back(&["0: a10, c8", "30: a10 cut, c8"], 860)]
#[case::the_spare_adds_nothing_to_one_that_delivers_later(&["0: a10, c8", "30: a10 cut, c8", "90: a10, c8"], 1000)]
#[case::cold_when_it_delivers_what_it_had(&["0: a10", "30: a10 cut", "60: a10 cut cold", "90: a10 cold"], 600)]
fn what_is_generated_behind_a_cut_counts_if_it_can_still_be_delivered(#[case] looks: &[&str], #[case] expected: u64) {
    assert_eq!(nonces(1, 0, looks), expected);
}

#[rstest]
#[case::deaf_for_a_while_costs_nothing(0, &["0: a10", "30 deaf: a10", "60: a10"], 1000)]
#[case::deaf_to_the_end_takes_what_was_not_delivered_before(0, &["0: a10", "30 deaf: a10"], 300)]
#[case::deaf_while_the_machine_is_lost(0, &["0: a10", "30 deaf: a10", "50 deaf:", "60:"], 300)]
#[case::deaf_all_the_time(0, &["0 deaf: a10"], 0)]
#[case::nobody_generates_before_dapi_has_asked(20, &["0 deaf: a10", "20: a10"], 800)]
#[case::cut_when_dapi_asks(20, &["0: a10", "10: a10 cut", "50: a10"], 500)]
#[case::it_never_asks(u64::MAX / 1000, &["0: a10"], 0)]
fn what_dapi_does_not_hear_is_lost_and_nobodys_fault(
    #[case] from_s: u64,
    #[case] looks: &[&str],
    #[case] expected: u64,
) {
    assert_eq!(nonces(1, from_s, looks), expected);
}

#[rstest]
#[case::a_spare_that_nobody_can_give_a_slot_fills_in_for_nobody(&["0: a10, c8", "20: a10, c8 barred", "40: c8 barred"], 400)]
#[case::it_fills_in_once_somebody_can(&["0: a10, c8 barred", "40: c8 barred", "70: c8"], 640)]
#[case::who_has_the_slot_goes_on(&["0: a10, c8", "20: a10, c8 barred"], 1000)]
#[case::a_faster_one_is_not_given_the_slot_either(&["0: a10, c20 barred"], 1000)]
fn nobody_computes_for_a_slot_that_nobody_could_give_it(#[case] looks: &[&str], #[case] expected: u64) {
    assert_eq!(nonces(1, 0, looks), expected);
}

#[test]
fn a_unit_that_is_slowed_down_may_go_on_as_it_began_and_one_that_is_faster_may_begin_again() {
    assert_eq!(nonces(1, 0, &["0: a10", "50: a5"]), 1000);
    assert_eq!(nonces(1, 0, &["0: a5", "50: a10"]), 750);
}

#[test]
fn units_of_another_model_fill_no_slot() {
    let mut survey = Survey {
        stage_height: 1,
        slots: vec![Slot {
            node_id: "0".to_owned(),
            model: "m".to_owned(),
        }],
        units: Vec::new(),
        looks: vec![Look {
            at_ms: 0,
            takes: true,
            units: vec![unit("a10")],
        }],
    };
    survey.looks[0].units[0].model = "another".to_owned();
    assert_eq!(survey.attainable(0, 1000), BTreeMap::new());
}
