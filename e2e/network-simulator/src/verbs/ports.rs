//! What is done to ports: closed, silent, slow, wrong, lossy.

use crate::{
    event::Effect,
    faults::{Port, PortFault},
    network::Network,
    scenario::verb::{Arguments, Verb},
};

pub(super) fn apply(
    net: &mut Network,
    verb: Verb,
    arguments: &Arguments,
    ports: &[Port],
) -> Result<Vec<Effect>, String> {
    let height = net.height();
    match verb {
        Verb::Burst | Verb::Price => return Err(format!("{verb} works on the chain as a whole only")),
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
    let of_chain = matches!(
        verb,
        Verb::Fork | Verb::HaltAt | Verb::Skew | Verb::Jump | Verb::Rollback | Verb::ChainId
    );
    if of_chain && ports.iter().any(|port| port.endpoint().is_none()) {
        return Err(format!("{verb} works on chain endpoints only"));
    }
    for port in ports {
        put(net.faults.port_mut(*port), verb, arguments, Some(height));
    }
    Ok(Vec::new())
}

/// Puts a fault in place, at the height at which it begins, or takes it away.
fn put(fault: &mut PortFault, verb: Verb, arguments: &Arguments, begins: Option<i64>) {
    let on = begins.is_some();
    let blocks = i64::from(arguments.blocks.filter(|_| on).unwrap_or_default());
    match verb {
        Verb::Stall => fault.stalled = on,
        Verb::Slow => fault.bytes_per_second = arguments.bytes_per_second.filter(|_| on),
        Verb::Answer => fault.status = arguments.status.filter(|_| on),
        Verb::Fork => fault.forked_after = begins,
        Verb::HaltAt => fault.halt_at = arguments.height.filter(|_| on),
        Verb::Skew => fault.skew_ms = arguments.ms.filter(|_| on).unwrap_or_default(),
        Verb::Drop => fault.lost_percent = arguments.percent.filter(|_| on).unwrap_or_default(),
        Verb::Jump => fault.off_by = blocks,
        Verb::Rollback => fault.off_by = -blocks,
        Verb::ChainId => {
            let id = arguments.value.as_ref().and_then(serde_json::Value::as_str);
            fault.chain_id = id.filter(|_| on).map(str::to_owned);
        }
        Verb::Lie => match (&arguments.field, &arguments.value) {
            (Some(field), Some(value)) if on => {
                fault.lies.insert(field.clone(), value.clone());
            }
            (Some(field), _) if !on => {
                fault.lies.remove(field);
            }
            _ => {}
        },
        // Not about ports, or done before.
        Verb::Stop
        | Verb::Start
        | Verb::Restart
        | Verb::Burst
        | Verb::Price
        | Verb::TriggerConfirmation
        | Verb::VoteInvalid
        | Verb::Vote
        | Verb::PartialStart
        | Verb::ProposeUpgrade
        | Verb::Report
        | Verb::MissBlocks
        | Verb::Unjail
        | Verb::Grant
        | Verb::ScheduleMaintenance
        | Verb::CancelMaintenance
        | Verb::Challenge
        | Verb::Deposit
        | Verb::LoseDatabase
        | Verb::Weight => {}
    }
}

pub(super) fn undo(net: &mut Network, verb: Verb, arguments: &Arguments, ports: &[Port]) -> Vec<Effect> {
    let effects = if matches!(verb, Verb::Stop | Verb::Restart) {
        start(net, ports)
    } else {
        Vec::new()
    };
    for port in ports {
        put(net.faults.port_mut(*port), verb, arguments, None);
    }
    effects
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
