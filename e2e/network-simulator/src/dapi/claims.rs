//! Seeds and rewards: who may claim the epoch before, and when.
//!
//! At each Sprint a host makes the seed of the coming epoch and keeps it in its database; the reward of an epoch is
//! claimed in the next one with that seed, after a wait that follows from the host's address.

use super::Seed;
use crate::{identity, network::Network};

/// Most blocks that DAPI waits after the claim window opens, of 15,391 in a real epoch.
const REAL_WAIT: i64 = 500;
const REAL_EPOCH: i64 = 15_391;

/// A Sprint has begun: every host that can sends the seed of its epoch.
pub fn make_seeds(net: &mut Network, epoch: u64) {
    let ours = net.ours;
    let can = net.dapi.can_transact();
    let made: Vec<usize> = (0..net.hosts.len()).filter(|index| *index != ours || can).collect();
    if net.dapi.up {
        let address = net.hosts[ours].address.clone();
        let seed = identity::number_below(i64::MAX as u64, &["claim seed", &address, &epoch.to_string()]) as i64;
        let signature = signature(&address, epoch);
        net.dapi.seeds.insert(
            epoch,
            Seed {
                seed,
                signature,
                claimed: false,
            },
        );
    }
    net.epoch_mut(epoch).seeds = made.into_iter().collect();
}

/// The signature of a host's seed, as it stands on the chain.
pub fn signature(address: &str, epoch: u64) -> String {
    identity::signature(&["seed", address, &epoch.to_string()])
}

/// Blocks that a host waits after the claim window opens.
pub fn wait(address: &str, epoch_length: i64) -> i64 {
    1 + identity::number_below(longest_wait(epoch_length) as u64, &["claim wait", address]) as i64
}

/// The longest such wait.
pub fn longest_wait(epoch_length: i64) -> i64 {
    (REAL_WAIT * epoch_length / REAL_EPOCH).max(1)
}

/// A new block: everybody whose time came with the block before has a claim in it.
pub fn on_block(net: &mut Network) -> bool {
    let height = net.height();
    let ruling = net.effective_epoch();
    let Some(settled) = ruling.checked_sub(1) else {
        return false;
    };
    let lengths = *net.lengths();
    let opens = lengths.stages(ruling).claim_money;
    if height <= opens || !is_owed(net, settled) {
        return false;
    }
    let due: Vec<usize> = (0..net.hosts.len())
        .filter(|index| height > opens + net.hosts[*index].claim_wait)
        .filter(|index| can_claim(net, *index, settled))
        .collect();
    let mut any = false;
    for index in due {
        any |= claim(net, index, settled, height);
    }
    any
}

/// Whether anybody has still something to claim of an epoch.
fn is_owed(net: &Network, epoch: u64) -> bool {
    let settlement = net.epoch(epoch).and_then(|epoch| epoch.settlement.as_ref());
    settlement.is_some_and(|settlement| {
        let mut rewards = settlement.rewards.values();
        rewards.any(|reward| reward.claimed_height == 0 && reward.ngonka > 0)
    })
}

fn can_claim(net: &Network, index: usize, epoch: u64) -> bool {
    let seeded = net.epoch(epoch).is_some_and(|epoch| epoch.seeds.contains(&index));
    let able = index != net.ours || (net.dapi.can_transact() && net.dapi.seeds.contains_key(&epoch));
    seeded && able
}

/// Pays a host's reward of a settled epoch; false when there is none or it was paid before.
pub fn claim(net: &mut Network, index: usize, epoch: u64, height: i64) -> bool {
    let Some(reward) = net
        .epochs
        .get_mut(&epoch)
        .and_then(|epoch| epoch.settlement.as_mut())
        .and_then(|settlement| settlement.rewards.get_mut(&index))
        .filter(|reward| reward.claimed_height == 0 && reward.ngonka > 0)
    else {
        return false;
    };
    reward.claimed_height = height;
    let ngonka = reward.ngonka;
    net.hosts[index].balance = net.hosts[index].balance.saturating_add(ngonka);
    if index == net.ours
        && let Some(seed) = net.dapi.seeds.get_mut(&epoch)
    {
        seed.claimed = true;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_is_at_least_a_block_and_scales_with_the_epoch() {
        for name in ["a", "b", "c", "d", "e"] {
            assert!((1..=2).contains(&wait(name, 84)));
            assert!((1..=500).contains(&wait(name, 15_391)));
        }
    }
}
