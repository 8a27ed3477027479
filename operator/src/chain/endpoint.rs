//! Box 2, observe: one endpoint. Two tasks, so that a slow REST door does not hide new blocks.

use std::time::Duration;

use crds::sprint_schedule::Endpoint;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};

use super::answers::{self, Block};
use super::client::get;
use super::decide::Wanted;
use super::notice;
use super::view::{Door, Failure, News};

const RPC_TIMEOUT: Duration = Duration::from_secs(3);
const REST_TIMEOUT: Duration = Duration::from_secs(5);
/// Shortest and longest time between polls of `/status`.
const QUICKEST: Duration = Duration::from_millis(250);
const SLOWEST: Duration = Duration::from_secs(1);
/// REST is asked at least this often, and at most this often.
const REST_IDLE: Duration = Duration::from_secs(2);
const REST_GAP: Duration = Duration::from_millis(200);
/// Time between questions that change rarely.
const RARELY: Duration = Duration::from_secs(20);
/// Most blocks that are fetched after a gap.
const GAP_BLOCKS: i64 = 8;

/// What a task of an endpoint is given.
#[derive(Clone, Debug)]
pub(super) struct Reading {
    /// The endpoint.
    pub(super) endpoint: Endpoint,
    /// HTTP client.
    pub(super) http: reqwest::Client,
    /// Where news go: name and news.
    pub(super) news: mpsc::Sender<(String, News)>,
    /// What to ask beside the usual.
    pub(super) wanted: watch::Receiver<Wanted>,
}

impl Reading {
    async fn tell(&self, news: News) -> bool {
        self.news.send((self.endpoint.name.clone(), news)).await.is_ok()
    }

    async fn rpc(&self, path: &str) -> Result<serde_json::Value, Failure> {
        let url = format!("{}{path}", self.endpoint.rpc_url.trim_end_matches('/'));
        get(&self.http, &url, RPC_TIMEOUT).await
    }

    async fn rest(&self, path: &str) -> Result<serde_json::Value, Failure> {
        let url = format!("{}{path}", self.endpoint.rest_url.trim_end_matches('/'));
        get(&self.http, &url, REST_TIMEOUT).await
    }

    async fn block(&self, height: i64) -> Result<Block, Failure> {
        Ok(answers::block(&self.rpc(&format!("/block?height={height}")).await?)?)
    }
}

/// Reads blocks until nobody listens. `tip` wakes the REST task.
pub(super) async fn read_rpc(reading: Reading, tip: watch::Sender<i64>) {
    let (notices, mut blocks_told) = mpsc::channel(64);
    let listening = notice::listen(reading.endpoint.name.clone(), reading.endpoint.rpc_url.clone(), notices);
    let polling = async {
        let mut blocks = Blocks::default();
        let mut next_poll = Instant::now();
        let mut wanted = reading.wanted.clone();
        loop {
            let going = tokio::select! {
                Some(block) = blocks_told.recv() => blocks.noticed(&reading, block).await,
                changed = wanted.changed() => changed.is_ok() && blocks.older(&reading).await,
                () = sleep_until(next_poll) => {
                    let going = blocks.poll(&reading).await && blocks.older(&reading).await;
                    next_poll = Instant::now() + blocks.interval();
                    going
                }
                () = reading.news.closed() => false,
            };
            tip.send_if_modified(|known| std::mem::replace(known, blocks.height) != blocks.height);
            if !going {
                return;
            }
        }
    };
    tokio::select! {
        () = polling => {}
        () = listening => {}
    }
}

/// What the RPC task remembers of blocks.
#[derive(Debug, Default)]
struct Blocks {
    height: i64,
    time_ms: i64,
    block_millis: i64,
    fetched: Vec<i64>,
}

impl Blocks {
    /// A quarter of a block.
    fn interval(&self) -> Duration {
        let quarter = Duration::from_millis(u64::try_from(self.block_millis / 4).unwrap_or_default());
        if self.block_millis == 0 {
            SLOWEST
        } else {
            quarter.clamp(QUICKEST, SLOWEST)
        }
    }

    fn seen(&mut self, block: &Block) {
        if self.height > 0 && block.height > self.height {
            self.block_millis = ((block.time_ms - self.time_ms) / (block.height - self.height)).max(1);
        }
        self.height = block.height;
        self.time_ms = block.time_ms;
    }

    async fn noticed(&mut self, reading: &Reading, block: Block) -> bool {
        if block.height <= self.height {
            return true;
        }
        let going = self.fill(reading, &block).await;
        self.seen(&block);
        going
            && reading
                .tell(News::Tip {
                    block,
                    catching_up: None,
                })
                .await
    }

    async fn poll(&mut self, reading: &Reading) -> bool {
        let status = match reading.rpc("/status").await {
            Ok(answer) => grown(&answer).and_then(|()| Ok(answers::status(&answer)?)),
            Err(failure) => Err(failure),
        };
        match status {
            Ok(status) => {
                let going = self.fill(reading, &status.block).await;
                self.seen(&status.block);
                let catching_up = Some(status.catching_up);
                going
                    && reading
                        .tell(News::Tip {
                            block: status.block,
                            catching_up,
                        })
                        .await
            }
            Err(failure) => reading.tell(News::Failed(Door::Rpc, failure)).await,
        }
    }

    /// Blocks passed over are fetched: endpoints are compared height by height.
    async fn fill(&self, reading: &Reading, newest: &Block) -> bool {
        let first = (self.height + 1).max(newest.height - GAP_BLOCKS);
        if self.height == 0 {
            return true;
        }
        for height in first..newest.height {
            let Ok(block) = reading.block(height).await else { break };
            if !reading
                .tell(News::Tip {
                    block,
                    catching_up: None,
                })
                .await
            {
                return false;
            }
        }
        true
    }

    async fn older(&mut self, reading: &Reading) -> bool {
        let heights = reading.wanted.borrow().blocks.clone();
        self.fetched.retain(|height| heights.contains(height));
        for height in heights {
            if self.fetched.contains(&height) || height > self.height {
                continue;
            }
            // Asked again with the next poll when it fails.
            if let Ok(block) = reading.block(height).await {
                self.fetched.push(height);
                if !reading.tell(News::Older(block)).await {
                    return false;
                }
            }
        }
        true
    }
}

fn grown(answer: &serde_json::Value) -> Result<(), Failure> {
    if answers::is_before_first_block(answer) {
        return Err(Failure::Unreachable("the chain has no block yet".to_owned()));
    }
    Ok(())
}

/// Reads the clock after each block until nobody listens.
pub(super) async fn read_rest(reading: Reading, mut tip: watch::Receiver<i64>) {
    const INFERENCE: &str = "/productscience/inference/inference";
    let mut rarely = Instant::now();
    loop {
        let clock = match reading.rest(&format!("{INFERENCE}/epoch_info")).await {
            Ok(answer) => grown(&answer).and_then(|()| Ok(answers::clock(&answer)?)),
            Err(failure) => Err(failure),
        };
        let news = match clock {
            Ok(clock) => News::Clock(Box::new(clock)),
            Err(failure) => News::Failed(Door::Rest, failure),
        };
        let answered = matches!(news, News::Clock(_));
        if !reading.tell(news).await {
            return;
        }
        if answered && reading.wanted.borrow().preserved {
            let asked = reading.rest(&format!("{INFERENCE}/preserved_nodes_snapshot")).await;
            if let Ok(Ok(preserved)) = asked.map(|answer| answers::preserved(&answer)) {
                reading.tell(News::Preserved(preserved)).await;
            }
        }
        if answered && Instant::now() >= rarely {
            rarely = Instant::now() + RARELY;
            read_upgrade(&reading, INFERENCE).await;
        }
        sleep(REST_GAP).await;
        tokio::select! {
            changed = tip.changed() => if changed.is_err() { return },
            () = sleep(REST_IDLE) => {}
            () = reading.news.closed() => return,
        }
    }
}

/// A plan that cannot be read is not "no plan": nothing is told then, and the last answer stands.
async fn read_upgrade(reading: &Reading, inference: &str) {
    let plan = reading.rest("/cosmos/upgrade/v1beta1/current_plan").await;
    let Ok(Ok(plan)) = plan.map(|answer| answers::upgrade_plan(&answer)) else {
        return;
    };
    let last = reading.rest(&format!("{inference}/last_upgrade_height")).await;
    let last = last
        .ok()
        .and_then(|answer| answers::last_upgrade(&answer).ok().flatten());
    let votes = reading.rest("/cosmos/gov/v1/proposals?proposal_status=2").await;
    let votes = votes.ok().and_then(|answer| answers::upgrade_votes(&answer).ok());
    reading.tell(News::Upgrade { plan, last, votes }).await;
}
