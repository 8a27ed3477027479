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
        set(net.faults.port_mut(*port), verb, arguments, height);
    }
    Ok(Vec::new())
}

fn set(fault: &mut PortFault, verb: Verb, arguments: &Arguments, height: i64) {
    let blocks = i64::from(arguments.blocks.unwrap_or_default());
    match verb {
        Verb::Stall => fault.stalled = true,
        Verb::Slow => fault.bytes_per_second = arguments.bytes_per_second,
        Verb::Answer => fault.status = arguments.status,
        Verb::Fork => fault.forked_after = Some(height),
        Verb::HaltAt => fault.halt_at = arguments.height,
        Verb::Skew => fault.skew_ms = arguments.ms.unwrap_or_default(),
        Verb::Drop => fault.lost_percent = arguments.percent.unwrap_or_default(),
        Verb::Jump => fault.off_by = blocks,
        Verb::Rollback => fault.off_by = -blocks,
        Verb::ChainId => {
            let id = arguments.value.as_ref().and_then(serde_json::Value::as_str);
            fault.chain_id = id.map(str::to_owned);
        }
        Verb::Lie => {
            if let (Some(field), Some(value)) = (&arguments.field, &arguments.value) {
                fault.lies.insert(field.clone(), value.clone());
            }
        }
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
        clear(net.faults.port_mut(*port), verb, arguments);
    }
    effects
}

fn clear(fault: &mut PortFault, verb: Verb, arguments: &Arguments) {
    match verb {
        Verb::Stall => fault.stalled = false,
        Verb::Slow => fault.bytes_per_second = None,
        Verb::Answer => fault.status = None,
        Verb::Fork => fault.forked_after = None,
        Verb::HaltAt => fault.halt_at = None,
        Verb::Skew => fault.skew_ms = 0,
        Verb::Drop => fault.lost_percent = 0,
        Verb::Jump | Verb::Rollback => fault.off_by = 0,
        Verb::ChainId => fault.chain_id = None,
        Verb::Lie => {
            arguments.field.as_ref().and_then(|field| fault.lies.remove(field));
        }
        Verb::Stop
        | Verb::Start
        | Verb::Restart
        | Verb::Burst
        | Verb::Price
        | Verb::TriggerConfirmation
        | Verb::VoteInvalid
        | Verb::Vote
        | Verb::PartialStart
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
