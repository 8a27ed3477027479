//! The state machine: an event changes the network and asks for effects. No clock, no sockets, no randomness but what
//! follows from the scenario's seed, so the same events give the same run.

use crate::{
    chain,
    dapi::{job, validation},
    economy::Fee,
    event::{Effect, Event, Origin, Timer},
    exam::{Exam, Judgement, book::Book},
    network::Network,
    rivals,
    truth::{Survey, attainable},
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
            let judgement = Judgement { total, fraud };
            if net.challenges.judged(exam, host, &model, judgement) {
                return Vec::new();
            }
            if let Some(exam) = net.exam.as_mut().filter(|running| running.id == exam) {
                exam.entries[host].judged.insert(model, judgement);
            }
            Vec::new()
        }
        Event::Surveyed { stage_height, units } => {
            net.survey = Some(Survey::new(net, stage_height, units));
            Vec::new()
        }
        Event::Looked { units } => {
            attainable::look(net, units);
            Vec::new()
        }
    }
}

/// The exam, or our segment of a challenge, that has this number.
fn committing(net: &mut Network, id: u64) -> Option<&mut Exam> {
    let segment = net.challenges.segment_mut(net.ours);
    segment.into_iter().chain(&mut net.exam).find(|exam| exam.id == id)
}

/// Every host sends a commitment to what it has, while a block may still take it.
fn on_commit_interval(net: &mut Network, exam_id: u64) -> Vec<Effect> {
    let height = net.height();
    let ours = net.ours;
    let interval = net.dapi.timing.commit_interval_ms;
    let Some(exam) = committing(net, exam_id).filter(|exam| height < exam.window.last_commit) else {
        return Vec::new();
    };
    for (_, entry) in exam.entries.iter_mut().enumerate().filter(|(index, _)| *index != ours) {
        entry.books.values_mut().for_each(Book::submit);
    }
    let news = exam.entries[ours].books.iter().filter(|(_, book)| book.has_news());
    let models: Vec<String> = news.map(|(model, _)| model.clone()).collect();
    for model in models {
        if net.transacts(Fee::Commit)
            && let Some(book) = committing(net, exam_id).and_then(|exam| exam.entries[ours].books.get_mut(&model))
        {
            book.submit();
        }
    }
    vec![Effect::After {
        ms: interval,
        timer: Timer::Commit { exam: exam_id },
    }]
}
