//! What is done to hosts: how they vote, how fast they are, how many of their nodes start, what their DAPI forgets.

use crate::{
    challenge,
    economy::{
        self,
        allowance::{self, Allowance},
        deposit::Deposit,
    },
    event::Effect,
    network::{Conduct, Network},
    scenario::{
        Voting,
        at::Span,
        verb::{Arguments, Verb},
    },
};

/// The host that the arguments name.
pub(super) fn find(net: &Network, arguments: &Arguments) -> Result<usize, String> {
    let host = net.hosts.iter().position(|host| host.name == arguments.target);
    host.ok_or_else(|| format!("target {:?} is no host", arguments.target))
}

pub(super) fn apply(net: &mut Network, verb: Verb, arguments: &Arguments) -> Result<Vec<Effect>, String> {
    if verb == Verb::LoseDatabase {
        return lose_database(net, arguments);
    }
    let host = find(net, arguments)?;
    if net.hosts[host].conduct == Conduct::External && matches!(verb, Verb::Weight | Verb::Vote) {
        return Err(format!(
            "{verb} works on simulated hosts: {} decides for itself",
            arguments.target
        ));
    }
    match verb {
        Verb::VoteInvalid => {
            net.faults.vote_invalid.insert(host, arguments.share.unwrap_or(1.0));
        }
        Verb::Vote => net.hosts[host].votes = voting(arguments),
        Verb::Weight => net.hosts[host].speed_percent = arguments.percent.unwrap_or(100),
        Verb::PartialStart => {
            let percent = arguments.percent.unwrap_or_default();
            net.faults.partial_starts.insert(host, percent);
        }
        Verb::Report => {
            let counts = [arguments.served, arguments.missed, arguments.invalid];
            economy::report(net, host, counts.map(Option::unwrap_or_default));
        }
        Verb::MissBlocks => net.hosts[host].account.signing.away = true,
        Verb::Unjail => {
            let now_ms = net.now_ms;
            net.hosts[host].account.signing.unjail(now_ms)?;
        }
        Verb::Grant => grant(net, host, arguments)?,
        Verb::ScheduleMaintenance => {
            let (start, blocks) = (
                arguments.height.unwrap_or_default(),
                arguments.blocks.unwrap_or_default(),
            );
            economy::schedule_maintenance(net, host, start, blocks.into())?;
        }
        Verb::Challenge => challenge::create(net, host)?,
        Verb::CancelMaintenance => {
            let rule = &net.scenario.parameters.maintenance;
            net.hosts[host].account.maintenance.cancel(rule)?;
        }
        Verb::Deposit => net.hosts[host].account.deposit = Deposit(arguments.ngonka),
        _ => return Err(format!("{verb} does not work on a host")),
    }
    Ok(Vec::new())
}

/// Whether this was for a host to undo.
pub(super) fn undo(net: &mut Network, verb: Verb, arguments: &Arguments) -> bool {
    let Ok(host) = find(net, arguments) else {
        return false;
    };
    match verb {
        Verb::Weight => net.hosts[host].speed_percent = 100,
        Verb::Vote => net.hosts[host].votes = None,
        Verb::MissBlocks => net.hosts[host].account.signing.away = false,
        // It ends by its own clock.
        Verb::Grant | Verb::ScheduleMaintenance | Verb::CancelMaintenance | Verb::Challenge => {}
        Verb::VoteInvalid => {
            net.faults.vote_invalid.remove(&host);
        }
        Verb::PartialStart => {
            net.faults.partial_starts.remove(&host);
        }
        _ => return false,
    }
    true
}

fn grant(net: &mut Network, host: usize, arguments: &Arguments) -> Result<(), String> {
    let block_millis = net.scenario.network.block_millis;
    let lasting_ms = match &arguments.lasting {
        Some(text) => text
            .parse::<Span>()
            .map_err(|error| format!("for: {error}"))?
            .millis(block_millis)
            .max(0) as u64,
        None => allowance::USUAL_MS,
    };
    let ngonka = arguments.ngonka.unwrap_or(allowance::USUAL_NGONKA);
    net.hosts[host].account.allowance = Allowance::granted(ngonka, net.now_ms, lasting_ms);
    Ok(())
}

fn voting(arguments: &Arguments) -> Option<Voting> {
    let value = arguments.value.clone()?;
    serde_json::from_value(value).ok()
}

fn lose_database(net: &mut Network, arguments: &Arguments) -> Result<Vec<Effect>, String> {
    let ours = arguments.target == "dapi" || arguments.target == net.hosts[net.ours].name;
    if !ours {
        return Err(format!("target {:?} has no database here", arguments.target));
    }
    net.dapi.lose_database();
    Ok(Vec::new())
}
