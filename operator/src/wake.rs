//! Box 2: wakes controllers when the chain enters another window, stage, epoch or exam. Heights alone wake nobody.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crds::references::{Stage, Window};
use futures::Stream;
use futures::stream;

use crate::context::Book;
use crate::facts::Facts;

/// How often facts are compared with what was last told.
const PERIOD: Duration = Duration::from_millis(200);

/// What of the facts is worth a pass.
pub type Turn = (Window, Stage, i64, Option<(i64, i64)>);

/// What wakes hosts when it changes.
pub fn turn(facts: &Facts) -> Turn {
    let exam = facts
        .exam
        .as_ref()
        .map(|exam| (exam.trigger_height, exam.generation_start_height));
    (facts.window, facts.stage, facts.epoch, exam)
}

/// One item for each turn of any schedule, also of schedules that are added later.
pub fn on_windows(book: Arc<Book>) -> impl Stream<Item = ()> + Send {
    stream::unfold((book, BTreeMap::new()), |(book, mut told)| async move {
        loop {
            let now: BTreeMap<String, Turn> = book
                .schedules()
                .into_iter()
                .map(|name| (name.clone(), turn(&book.facts(&name))))
                .collect();
            if now != told {
                told = now;
                return Some(((), (book, told)));
            }
            tokio::time::sleep(PERIOD).await;
        }
    })
}
