//! What a host owns, owes and is known for beside its proof: deposit, vesting, fees, service record, signatures, choices. Each rule is a
//! function of numbers in a module of its own; here they meet the network.

pub mod allowance;
pub mod deposit;
pub mod maintenance;
pub mod participation;
pub mod service;
pub mod signing;
pub mod vesting;

use crate::{network::Network, settlement::Standing};
use allowance::Allowance;
use deposit::Deposit;
use maintenance::{Crowd, Maintenance, Reservation};
use participation::Choice;
use service::Service;
use signing::Signing;
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
};
use vesting::Vesting;

/// A host's books.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Account {
    pub deposit: Deposit,
    pub vesting: Vesting,
    /// What the warm key may spend on fees; nothing when it was never granted or is taken back.
    pub allowance: Option<Allowance>,
    pub service: Service,
    pub signing: Signing,
    pub maintenance: Maintenance,
    /// Per model id what it told the chain it does where it does not commit.
    pub choices: BTreeMap<String, Choice>,
}

/// A transaction of our host that costs something or nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fee {
    /// A commitment.
    Commit,
    /// What the network asks of everybody: weight distributions and votes.
    Duty,
    /// Seeds and claims.
    Free,
}

impl Network {
    /// A host's fee allowance, while it is in force.
    pub fn allowance(&self, host: usize) -> Option<Allowance> {
        let allowance = self.hosts[host].account.allowance;
        allowance.filter(|allowance| allowance.is_in_force(self.now_ms))
    }

    /// Sends a transaction of our host: false when DAPI is down or nobody pays, and then it does not exist.
    pub fn transacts(&mut self, fee: Fee) -> bool {
        let dapi = &self.scenario.dapi;
        let fee = match fee {
            Fee::Duty if dapi.duties_free => 0,
            Fee::Commit | Fee::Duty => dapi.fee_ngonka,
            Fee::Free => 0,
        };
        let (ours, now_ms) = (self.ours, self.now_ms);
        let host = &mut self.hosts[ours];
        let allowance = host.account.allowance.as_mut();
        self.dapi.up && allowance.is_some_and(|allowance| allowance.pay(&mut host.balance, fee, now_ms))
    }
}

/// A block is made: who does not sign it is counted, and jailed for too many.
pub fn on_block(net: &mut Network) {
    let (height, now_ms, epoch) = (net.height(), net.now_ms, net.effective_epoch());
    for host in &mut net.hosts {
        host.account.maintenance.on_block(height, epoch);
        if host.account.maintenance.active.is_none() && host.account.signing.on_block(height, now_ms) {
            host.account.deposit.slash_permille(signing::SLASH_PERMILLE);
        }
    }
}

/// The new validators rule: another epoch's part of what vests is free, and everybody's service is counted anew.
pub fn on_epoch(net: &mut Network) {
    for host in &mut net.hosts {
        host.balance = host.balance.saturating_add(host.account.vesting.release());
        host.account.service = Service::default();
    }
}

/// Others report on a host's service. What it misses in a maintenance window or a challenge is not counted. Enough evidence makes it inactive for the rest of the epoch, and costs a part of its deposit.
pub fn report(net: &mut Network, host: usize, [served, missed, invalid]: [u64; 3]) {
    let (height, epoch) = (net.height(), net.effective_epoch());
    let parameters = &net.scenario.parameters;
    let (rule, slash) = (parameters.service, parameters.deposit.slash_downtime_permille);
    let is_challenged = net.challenges.is_generating(host, height);
    let account = &mut net.hosts[host].account;
    let before = account.service.is_inactive(&rule);
    let is_waived = account.maintenance.active.is_some() || is_challenged;
    let missed = if is_waived { 0 } else { missed };
    account.service.count(served, missed, invalid);
    if !before && account.service.is_inactive(&rule) {
        account.deposit.slash_permille(slash);
        net.epoch_mut(epoch).excluded.entry(host).or_insert(height);
    }
}

/// Who is away at some height of these, and what it weighs.
pub fn crowd(net: &Network, heights: &RangeInclusive<i64>, asking: Option<usize>) -> Crowd {
    let powers = net.voting_powers();
    let mut crowd = Crowd {
        own_power: asking.map_or(0, |host| powers[host]),
        total_power: powers.iter().sum(),
        ..Crowd::default()
    };
    for (host, power) in net.hosts.iter().zip(powers) {
        let windows = host.account.maintenance.windows();
        let count = windows.filter(|window| window.meets(heights)).count() as u64;
        crowd.count += count;
        crowd.power += if count > 0 { power } else { 0 };
    }
    crowd
}

/// Heights at which the network needs everybody, of the epochs that a window touches.
fn critical(net: &Network, heights: &RangeInclusive<i64>) -> Vec<(RangeInclusive<i64>, &'static str)> {
    const SPRINT: &str = "maintenance window overlaps a PoC phase";
    const VALIDATORS: &str = "maintenance window overlaps the DKG phase";
    let lengths = net.lengths();
    let epochs = lengths.latest_epoch(*heights.start())..=lengths.latest_epoch(*heights.end());
    let stages = epochs.filter(|epoch| *epoch > 0).map(|epoch| lengths.stages(epoch));
    stages
        .flat_map(|stages| {
            [
                (
                    stages.poc_start..=stages.poc_generation_end + lengths.poc_exchange_duration,
                    SPRINT,
                ),
                (stages.poc_validation_start..=stages.poc_validation_end, SPRINT),
                (stages.set_new_validators..=stages.set_new_validators, VALIDATORS),
            ]
        })
        .collect()
}

/// Why a host cannot book a window at a height.
pub fn maintenance_refusal(net: &Network, host: usize, height: i64, wanted: &Reservation) -> Option<&'static str> {
    if net.challenges.is_generating(host, height) {
        return Some("participant is generating for a challenge");
    }
    let rule = &net.scenario.parameters.maintenance;
    // Whatever is longer is refused for that.
    let blocks = wanted.blocks.min(rule.longest_blocks);
    let heights = wanted.start..=wanted.start.saturating_add(blocks);
    let crowd = crowd(net, &wanted.heights(), Some(host));
    let books = &net.hosts[host].account.maintenance;
    books.refusal(rule, height, wanted, &critical(net, &heights), crowd)
}

/// A host books a window.
pub fn schedule_maintenance(net: &mut Network, host: usize, start: i64, blocks: i64) -> Result<(), String> {
    let wanted = Reservation {
        id: net.reservations + 1,
        start,
        blocks,
    };
    if let Some(refusal) = maintenance_refusal(net, host, net.height(), &wanted) {
        return Err(refusal.to_owned());
    }
    net.reservations = wanted.id;
    net.hosts[host].account.maintenance.book(wanted);
    Ok(())
}

/// A claim pays: at once, or in as many epochs as the chain says.
pub fn pay(net: &mut Network, host: usize, ngonka: u64) {
    let epochs = net.scenario.parameters.reward_vesting_period;
    let host = &mut net.hosts[host];
    if epochs == 0 {
        host.balance = host.balance.saturating_add(ngonka);
    } else {
        host.account.vesting.add(ngonka, epochs);
    }
}

/// What counts of a confirmed weight when the epoch is paid: nothing of an inactive host's, what is covered of anybody's, less the
/// penalties.
pub fn standing(net: &Network, host: usize, epoch: u64, confirmed: Standing) -> Standing {
    let parameters = &net.scenario.parameters;
    let account = &net.hosts[host].account;
    if account.service.is_inactive(&parameters.service) {
        return Standing { weight: 0, ..confirmed };
    }
    let weight = if epoch > parameters.deposit.grace_period_end_epoch {
        account.deposit.counted(confirmed.weight, &parameters.deposit)
    } else {
        confirmed.weight
    };
    let committed: BTreeSet<&str> = seated_models(net, host, epoch);
    let models = net.scenario.models.iter().map(|model| model.id.as_str());
    let absent = models.filter(|model| !committed.contains(model));
    let choices = absent.map(|model| account.choices.get(model).copied().unwrap_or_default());
    let paid_bp = participation::paid_bp(choices, &parameters.participation);
    Standing {
        weight: (u128::from(weight) * u128::from(paid_bp) / 10_000) as u64,
        ..confirmed
    }
}

fn seated_models(net: &Network, host: usize, epoch: u64) -> BTreeSet<&str> {
    let seat = net.epoch(epoch).and_then(|epoch| epoch.seats.get(&host));
    seat.into_iter()
        .flat_map(|seat| &seat.nodes)
        .map(|node| node.model.as_str())
        .collect()
}

#[cfg(test)]
mod tests;
