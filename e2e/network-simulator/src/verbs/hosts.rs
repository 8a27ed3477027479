//! What is done to hosts: how they vote, how fast they are, how many of their nodes start, what their DAPI forgets.

use crate::{
    event::Effect,
    network::{Conduct, Network},
    scenario::{
        Voting,
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
