//! The state machine: an event changes the network and asks for effects. No clock, no sockets, no randomness but what
//! follows from the scenario's seed, so the same events give the same run.

use crate::{
    chain,
    dapi::{job, validation},
    event::{Effect, Event, Origin, Timer},
    exam::Judgement,
    network::Network,
    rivals,
    truth::Survey,
    verbs,
};

/// One event at `now_ms` (Unix time).
pub fn step(net: &mut Network, now_ms: u64, event: Event) -> Vec<Effect> {
    net.now_ms = net.now_ms.max(now_ms);
    match event {
        Event::Block | Event::Timer(Timer::Block) => chain::on_block(net),
        Event::Timer(Timer::Commit { exam }) => on_commit_interval(net, exam),
        Event::Timer(Timer::Produce { exam }) => rivals::on_produce(net, exam),
        Event::Timer(Timer::Dispatch { exam }) => validation::dispatch(net, exam),
        Event::Timer(Timer::Command(command)) => match verbs::apply(net, &command) {
            Ok(effects) => effects,
            Err(refused) => {
                tracing::warn!(verb = %command.verb, target = command.arguments.target, %refused, "step had no effect");
                Vec::new()
            }
        },
        Event::Timer(Timer::Undo(command)) => verbs::undo(net, &command),
        Event::Reply {
            to: Origin::Job { node_id, job },
            result,
        } => job::on_reply(net, &node_id, job, &result),
        Event::Reply {
            to: Origin::Validation { exam, subject, model },
            result,
        } => {
            validation::on_reply(net, exam, &(subject, model), &result);
            Vec::new()
        }
        Event::Produced {
            exam,
            host,
            node,
            artifacts,
        } => {
            rivals::on_produced(net, exam, (host, node), artifacts);
            Vec::new()
        }
        Event::Judged {
            exam,
            host,
            model,
            total,
            fraud,
        } => {
            if let Some(exam) = net.exam.as_mut().filter(|running| running.id == exam) {
                exam.entries[host].judged.insert(model, Judgement { total, fraud });
            }
            Vec::new()
        }
        Event::Surveyed { stage_height, units } => {
            net.survey = Some(Survey::new(net, stage_height, units));
            Vec::new()
        }
    }
}

/// Every host sends a commitment to what it has, while a block may still take it.
fn on_commit_interval(net: &mut Network, exam_id: u64) -> Vec<Effect> {
    let height = net.height();
    let (ours, can_transact) = (net.ours, net.dapi.can_transact());
    let interval = net.dapi.timing.commit_interval_ms;
    let Some(exam) = net
        .exam
        .as_mut()
        .filter(|exam| exam.id == exam_id && height < exam.window.last_commit)
    else {
        return Vec::new();
    };
    for (index, entry) in exam.entries.iter_mut().enumerate() {
        if index != ours || can_transact {
            entry.books.values_mut().for_each(crate::exam::book::Book::submit);
        }
    }
    vec![Effect::After {
        ms: interval,
        timer: Timer::Commit { exam: exam_id },
    }]
}
