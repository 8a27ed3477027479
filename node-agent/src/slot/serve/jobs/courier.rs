//! Apply: callbacks of finished jobs. Ten at a time, ten attempts each.

use super::Post;
use crate::slot::serve::{outbox::Outcome, sender, state::Core};
use std::{sync::Arc, time::Duration};
use tokio::task::JoinSet;

/// Callbacks on their way at the same time.
const CONCURRENT: usize = 10;
/// Attempts for one callback.
const ATTEMPTS: u32 = 10;
/// Longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Carries for ever.
pub async fn run(core: Arc<Core>, client: reqwest::Client) {
    let mut changed = core.subscribe();
    let mut under_way = JoinSet::new();
    loop {
        while under_way.len() < CONCURRENT {
            let Some(post) = core.plan(|state| state.jobs.take_post()) else {
                break;
            };
            under_way.spawn(deliver(client.clone(), post));
        }
        tokio::select! {
            Some(_) = under_way.join_next() => {}
            _ = changed.changed(), if under_way.len() < CONCURRENT => {}
        }
    }
}

async fn deliver(client: reqwest::Client, post: Post) {
    for attempt in 0..ATTEMPTS {
        match sender::post(&client, &post.url, &post.body, sender::TIMEOUT).await {
            Outcome::Accepted => return,
            Outcome::OutOfPhase | Outcome::Transient | Outcome::Refused => {
                tokio::time::sleep(Duration::from_secs(1 << attempt).min(LONGEST_PAUSE)).await;
            }
        }
    }
    tracing::warn!(url = post.url, "callback given up");
}
