use super::*;

fn unit(node_id: Option<&str>, rate_milli: u64) -> Unit {
    Unit {
        id: node_id.unwrap_or("spare").to_owned(),
        node_id: node_id.map(str::to_owned),
        model: "m".to_owned(),
        rate_milli,
        healthy: true,
        loaded: true,
        reachable: true,
        assignable: true,
    }
}

fn survey(slots: &[&str], units: Vec<Unit>) -> Survey {
    let slot = |id: &&str| Slot {
        node_id: (*id).to_owned(),
        model: "m".to_owned(),
    };
    Survey {
        stage_height: 1,
        slots: slots.iter().map(slot).collect(),
        units,
        looks: Vec::new(),
    }
}

#[test]
fn every_unit_that_is_healthy_loaded_and_reachable_counts_for_its_own_slot() {
    let mut units = vec![
        unit(Some("a"), 10),
        unit(Some("b"), 20),
        unit(Some("c"), 30),
        unit(Some("d"), 40),
    ];
    units[1].healthy = false;
    units[2].loaded = false;
    units[3].reachable = false;
    let survey = survey(&["a", "b", "c", "d"], units);
    assert_eq!(survey.rates(), [("a", 10)].into());
}

#[test]
fn a_spare_that_is_ready_counts_for_a_slot_that_has_nothing() {
    let mut dead = unit(Some("b"), 20);
    dead.healthy = false;
    let survey = survey(&["a", "b"], vec![unit(Some("a"), 10), dead, unit(None, 7)]);
    assert_eq!(survey.rates(), [("a", 10), ("b", 7)].into());
}

#[test]
fn there_is_no_more_to_be_had_than_there_are_slots() {
    let units = vec![
        unit(None, 10),
        unit(Some("a"), 10),
        unit(None, 9),
        unit(Some("gone"), 8),
    ];
    assert_eq!(
        survey(&["a"], units.clone()).rates(),
        [("a", 10)].into(),
        "its own before a spare as fast"
    );
    assert_eq!(survey(&["a", "b"], units).rates(), [("a", 10), ("b", 10)].into());
    assert!(survey(&[], vec![unit(None, 10)]).rates().is_empty());
}

#[test]
fn a_unit_of_another_model_fills_no_slot() {
    let mut other = unit(None, 10);
    other.model = "another".to_owned();
    assert!(survey(&["a"], vec![other]).rates().is_empty());
}
