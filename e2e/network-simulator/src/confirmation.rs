//! Confirmations: announced by chance per block, or by a verb, two blocks before generation.

use crate::{
    exam::window::Window,
    identity,
    network::{Confirmation, Network},
    preserved,
};

/// Epochs before this one have no confirmation: there is nothing to confirm yet.
const FIRST_EPOCH: u64 = 2;

/// Why a confirmation cannot be announced now.
pub fn obstacle(net: &Network, force: bool) -> Option<String> {
    let trigger = net.height() + 1;
    let lengths = net.lengths();
    let epoch = lengths.latest_epoch(trigger);
    let stages = lengths.stages(epoch);
    let (first, last) = lengths.confirmation_triggers(epoch);
    let cleared = cleared(net, trigger);
    if net.exam.is_some() || net.confirmation().is_some() {
        Some("an exam is active".to_owned())
    } else if epoch == 0 {
        Some("there was no Sprint yet".to_owned())
    } else if trigger < stages.set_new_validators || cleared > stages.next_poc_start {
        Some(format!("it would run into a Sprint: it needs {trigger} to {cleared}"))
    } else if !force && (epoch < FIRST_EPOCH || !(first..=last).contains(&trigger)) {
        Some(format!(
            "the chain announces none at {trigger} (epoch {epoch}, {first} to {last}): say force to have it anyway"
        ))
    } else {
        None
    }
}

/// At a new block: the event's seed is known, or a new event begins, which is then said by its height.
pub fn on_block(net: &mut Network) -> Option<i64> {
    let height = net.height();
    let newest = net.latest_epoch();
    let before = net.blocks.get(height - 1);
    let active = net
        .epochs
        .range_mut(newest.saturating_sub(1)..=newest)
        .flat_map(|(_, epoch)| &mut epoch.confirmations)
        .find(|event| event.window.start == height);
    if let (Some(event), Some(before)) = (active, before) {
        event.seed = before.hash.to_lowercase();
    }
    let begins = std::mem::take(&mut net.confirmation_requested) || by_chance(net);
    begins.then(|| {
        announce(net);
        height
    })
}

fn by_chance(net: &Network) -> bool {
    let height = net.height();
    let expected = net.scenario.parameters.expected_confirmations_per_epoch;
    let epoch = net.latest_epoch();
    let (first, last) = net.lengths().confirmation_triggers(epoch);
    if expected == 0 || epoch < FIRST_EPOCH || !(first..=last).contains(&height) {
        return false;
    }
    if net.exam.is_some() || net.confirmation().is_some() {
        return false;
    }
    let window = (last - first + 1) as u64;
    identity::number_below(window, &["confirmation", &net.seed(), &height.to_string()]) < expected
}

fn cleared(net: &Network, trigger: i64) -> i64 {
    Window::confirmation(net.lengths(), trigger).validation_end + net.lengths().set_new_validators_delay
}

fn announce(net: &mut Network) {
    let trigger = net.height();
    let window = Window::confirmation(net.lengths(), trigger);
    let (epoch, cleared) = (net.latest_epoch(), cleared(net, trigger));
    preserved::pick(net, trigger);
    let events = &mut net.epoch_mut(epoch).confirmations;
    let sequence = events.len() as u64;
    events.push(Confirmation {
        epoch,
        sequence,
        window,
        seed: String::new(),
        cleared,
    });
    tracing::info!(trigger, epoch, "confirmation announced");
}
