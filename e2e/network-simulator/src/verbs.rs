//! Verbs applied to the network: what steps of a scenario and the control API do.

use crate::{
    confirmation,
    event::{Command, Effect, Timer},
    exam::book::Proof,
    faults::{Port, PortFault, Target},
    network::Network,
    scenario::{
        at::Span,
        verb::{Arguments, Verb},
    },
};

/// Most commands that are remembered for people to look at.
const MAX_REMEMBERED: usize = 1000;

/// Blocks of a burst unless it says how many.
const BURST_BLOCKS: u32 = 2;

/// A restart takes so long unless the verb says `for`.
const RESTART_BLOCKS: i64 = 2;

/// Does what the command says; a refusal says why in one line.
pub fn apply(net: &mut Network, command: &Command) -> Result<Vec<Effect>, String> {
    let Command { verb, arguments } = command;
    let wrong = arguments.problems(*verb);
    if !wrong.is_empty() {
        return Err(wrong.join("; "));
    }
    let mut effects = match verb {
        Verb::TriggerConfirmation => trigger(net, arguments)?,
        Verb::VoteInvalid => vote_invalid(net, arguments)?,
        Verb::LoseDatabase => lose_database(net, arguments)?,
        Verb::Weight if host(net, arguments).is_ok() => weight(net, arguments)?,
        _ => match target(net, &arguments.target)? {
            Target::Chain => on_chain(net, *verb, arguments)?,
            Target::Ports(ports) => on_ports(net, *verb, arguments, &ports)?,
            Target::Node(_) => on_node(net, command)?,
        },
    };
    let block_millis = net.scenario.network.block_millis;
    let lasting = match &arguments.lasting {
        Some(text) => Some(text.parse::<Span>().map_err(|error| format!("for: {error}"))?),
        None => (*verb == Verb::Restart).then_some(Span::Blocks(RESTART_BLOCKS)),
    };
    if let Some(span) = lasting {
        let ms = span.millis(block_millis).max(0) as u64;
        effects.push(Effect::After {
            ms,
            timer: Timer::Undo(Box::new(command.clone())),
        });
    }
    tracing::info!(%verb, target = arguments.target, height = net.height(), "verb");
    if net.commands.len() < MAX_REMEMBERED {
        net.commands.push((net.height(), command.clone()));
    }
    Ok(effects)
}

/// Ends what a command began.
pub fn undo(net: &mut Network, command: &Command) -> Vec<Effect> {
    let Command { verb, arguments } = command;
    if let (Verb::Weight, Ok(host)) = (verb, host(net, arguments)) {
        net.hosts[host].speed_percent = 100;
        return Vec::new();
    }
    match target(net, &arguments.target) {
        Ok(Target::Chain) => {
            net.faults.chain_halts_at = None;
            Vec::new()
        }
        Ok(Target::Node(_)) => vec![Effect::NodeUndo(Box::new(command.clone()))],
        Ok(Target::Ports(ports)) => {
            let effects = if matches!(verb, Verb::Stop | Verb::Restart) {
                start(net, &ports)
            } else {
                Vec::new()
            };
            for port in ports {
                let fault = net.faults.port_mut(port);
                match verb {
                    Verb::Stall => fault.stalled = false,
                    Verb::Slow => fault.bytes_per_second = None,
                    Verb::Answer => fault.status = None,
                    Verb::Fork => fault.forked_after = None,
                    Verb::HaltAt => fault.halt_at = None,
                    Verb::Skew => fault.skew_ms = 0,
                    Verb::Lie => {
                        arguments.field.as_ref().and_then(|field| fault.lies.remove(field));
                    }
                    Verb::Stop
                    | Verb::Start
                    | Verb::Restart
                    | Verb::Burst
                    | Verb::TriggerConfirmation
                    | Verb::VoteInvalid
                    | Verb::LoseDatabase
                    | Verb::Weight => {}
                }
            }
            effects
        }
        Err(_) => Vec::new(),
    }
}

fn target(net: &Network, text: &str) -> Result<Target, String> {
    if text == net.hosts[net.ours].name {
        return Ok(Target::Ports(Port::DAPI.to_vec()));
    }
    Target::parse(text).ok_or_else(|| format!("target {text:?} is nothing this verb works on"))
}

fn trigger(net: &mut Network, arguments: &Arguments) -> Result<Vec<Effect>, String> {
    if let Some(obstacle) = confirmation::obstacle(net, arguments.force == Some(true)) {
        return Err(obstacle);
    }
    net.confirmation_requested = true;
    Ok(Vec::new())
}

fn vote_invalid(net: &mut Network, arguments: &Arguments) -> Result<Vec<Effect>, String> {
    let host = host(net, arguments)?;
    net.faults.vote_invalid.insert(host, arguments.share.unwrap_or(1.0));
    Ok(Vec::new())
}

fn host(net: &Network, arguments: &Arguments) -> Result<usize, String> {
    let host = net.hosts.iter().position(|host| host.name == arguments.target);
    host.ok_or_else(|| format!("target {:?} is no host", arguments.target))
}

fn weight(net: &mut Network, arguments: &Arguments) -> Result<Vec<Effect>, String> {
    let host = host(net, arguments)?;
    if host == net.ours {
        return Err("weight works on simulated hosts and, in virtual time, on node/ID".to_owned());
    }
    net.hosts[host].speed_percent = arguments.percent.unwrap_or(100);
    Ok(Vec::new())
}

/// Machines are outside: whoever plays them carries this out.
fn on_node(net: &Network, command: &Command) -> Result<Vec<Effect>, String> {
    if net.proof == Proof::Computed {
        return Err("ML nodes are programs of their own in real time: break them where they run".to_owned());
    }
    Ok(vec![Effect::Node(Box::new(command.clone()))])
}

fn lose_database(net: &mut Network, arguments: &Arguments) -> Result<Vec<Effect>, String> {
    let ours = arguments.target == "dapi" || arguments.target == net.hosts[net.ours].name;
    if !ours {
        return Err(format!("target {:?} has no database here", arguments.target));
    }
    net.dapi.lose_database();
    Ok(Vec::new())
}

fn on_chain(net: &mut Network, verb: Verb, arguments: &Arguments) -> Result<Vec<Effect>, String> {
    net.faults.chain_halts_at = match verb {
        Verb::Start => None,
        Verb::Stop | Verb::Stall => Some(net.height()),
        Verb::HaltAt => arguments.height,
        Verb::Burst => {
            let block = || Effect::After {
                ms: 0,
                timer: Timer::Block,
            };
            let blocks = arguments.blocks.unwrap_or(BURST_BLOCKS);
            return Ok((0..blocks).map(|_| block()).collect());
        }
        _ => return Err(format!("{verb} does not work on the chain as a whole")),
    };
    Ok(Vec::new())
}

fn on_ports(net: &mut Network, verb: Verb, arguments: &Arguments, ports: &[Port]) -> Result<Vec<Effect>, String> {
    let height = net.height();
    match verb {
        Verb::Burst => return Err("burst works on the chain as a whole only".to_owned()),
        Verb::Weight => return Err("weight works on simulated hosts and, in virtual time, on node/ID".to_owned()),
        Verb::Stop | Verb::Restart => return Ok(stop(net, ports)),
        Verb::Start => {
            let effects = start(net, ports);
            for port in ports {
                net.faults.clear(*port);
            }
            return Ok(effects);
        }
        _ => {}
    }
    let of_chain = matches!(verb, Verb::Fork | Verb::HaltAt | Verb::Skew);
    if of_chain && ports.iter().any(|port| port.endpoint().is_none()) {
        return Err(format!("{verb} works on chain endpoints only"));
    }
    for port in ports {
        let fault = net.faults.port_mut(*port);
        set(fault, verb, arguments, height);
    }
    Ok(Vec::new())
}

fn set(fault: &mut PortFault, verb: Verb, arguments: &Arguments, height: i64) {
    match verb {
        Verb::Stall => fault.stalled = true,
        Verb::Slow => fault.bytes_per_second = arguments.bytes_per_second,
        Verb::Answer => fault.status = arguments.status,
        Verb::Fork => fault.forked_after = Some(height),
        Verb::HaltAt => fault.halt_at = arguments.height,
        Verb::Skew => fault.skew_ms = arguments.ms.unwrap_or_default(),
        Verb::Lie => {
            if let (Some(field), Some(value)) = (&arguments.field, &arguments.value) {
                fault.lies.insert(field.clone(), value.clone());
            }
        }
        Verb::Stop
        | Verb::Start
        | Verb::Restart
        | Verb::Burst
        | Verb::TriggerConfirmation
        | Verb::VoteInvalid
        | Verb::LoseDatabase
        | Verb::Weight => {}
    }
}

/// All three ports of the DAPI together are its process.
fn is_dapi(ports: &[Port]) -> bool {
    Port::DAPI.iter().all(|port| ports.contains(port))
}

fn stop(net: &mut Network, ports: &[Port]) -> Vec<Effect> {
    if is_dapi(ports) {
        net.dapi.up = false;
        net.dapi.nodes.iter_mut().for_each(|node| node.job = None);
    }
    let close = |port: &Port| {
        net.faults.port_mut(*port).stopped = true;
        Effect::Listen {
            port: *port,
            open: false,
        }
    };
    ports.iter().map(close).collect()
}

fn start(net: &mut Network, ports: &[Port]) -> Vec<Effect> {
    if is_dapi(ports) && !net.dapi.up {
        net.dapi.up = true;
        net.dapi.restart(net.now_ms);
    }
    let mut effects = Vec::new();
    for port in ports {
        let fault = net.faults.port_mut(*port);
        if std::mem::take(&mut fault.stopped) {
            effects.push(Effect::Listen {
                port: *port,
                open: true,
            });
        }
    }
    effects
}

#[cfg(test)]
mod tests;
