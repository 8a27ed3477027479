//! Verbs applied to the network: what steps of a scenario and the control API do. [`ports`] has what is done to doors,
//! [`hosts`] what is done to those behind them.

mod hosts;
mod ports;

use crate::{
    confirmation,
    event::{Command, Effect, Timer},
    exam::book::Proof,
    faults::{Port, Target},
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
        Verb::VoteInvalid | Verb::Vote | Verb::PartialStart | Verb::LoseDatabase => {
            hosts::apply(net, *verb, arguments)?
        }
        Verb::Weight if hosts::find(net, arguments).is_ok() => hosts::apply(net, *verb, arguments)?,
        _ => match target(net, &arguments.target)? {
            Target::Chain => on_chain(net, *verb, arguments)?,
            Target::Ports(ports) => ports::apply(net, *verb, arguments, &ports)?,
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
    if hosts::undo(net, *verb, arguments) {
        return Vec::new();
    }
    match target(net, &arguments.target) {
        Ok(Target::Chain) if *verb == Verb::Price => {
            net.faults.price_percent = 100;
            Vec::new()
        }
        Ok(Target::Chain) => {
            net.faults.chain_halts_at = None;
            Vec::new()
        }
        Ok(Target::Node(_)) => vec![Effect::NodeUndo(Box::new(command.clone()))],
        Ok(Target::Ports(ports)) => ports::undo(net, *verb, arguments, &ports),
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

/// Machines are outside: whoever plays them carries this out.
fn on_node(net: &Network, command: &Command) -> Result<Vec<Effect>, String> {
    if net.proof == Proof::Computed {
        return Err("ML nodes are programs of their own in real time: break them where they run".to_owned());
    }
    Ok(vec![Effect::Node(Box::new(command.clone()))])
}

fn on_chain(net: &mut Network, verb: Verb, arguments: &Arguments) -> Result<Vec<Effect>, String> {
    net.faults.chain_halts_at = match verb {
        Verb::Start => None,
        Verb::Stop | Verb::Stall => Some(net.height()),
        Verb::HaltAt => arguments.height,
        Verb::Price => {
            net.faults.price_percent = arguments.percent.unwrap_or(100);
            return Ok(Vec::new());
        }
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

#[cfg(test)]
mod tests;
