//! A client of one slot as DAPI is one: on the network's machine, over connections it keeps, request after request. Notes
//! which assignment answered when.

use std::fs::File;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result};
use k8s_openapi::jiff::Timestamp;
use nix::sched::{CloneFlags, setns};

use crate::harness::{Cluster, Machine};

/// Between an answer and the next request.
const PAUSE: Duration = Duration::from_millis(20);
/// Longer than any answer of a pod that lives.
const PATIENCE: Duration = Duration::from_secs(5);
/// Says under which generation a pod answered.
const GENERATION: &str = "x-gonka-slot-generation";

/// One request.
#[derive(Clone, Debug)]
pub struct Answer {
    /// When it was there, Unix milliseconds.
    pub at_ms: i64,
    /// How long it took.
    pub took: Duration,
    /// The generation that answered with success; else what went wrong.
    pub generation: Result<i64, String>,
}

/// Asks until it is dropped.
#[derive(Debug)]
pub struct Prober {
    answers: Arc<Mutex<Vec<Answer>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Prober {
    /// Asks the slot at `address` (its Service's) how its round stands.
    pub fn start(cluster: &Cluster, address: &str) -> Result<Self> {
        let netns = cluster.options()?.id.netns(Machine::Network);
        let netns = File::open(format!("/run/netns/{netns}")).context("the network's machine has no namespace")?;
        let url = format!("http://{address}:8080/v3.0.8/api/v1/inference/pow/status");
        let answers = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let (into, until) = (Arc::clone(&answers), Arc::clone(&stop));
        // Of its own, because a thread moves into a namespace for good.
        let thread = std::thread::spawn(move || {
            let asked = setns(netns, CloneFlags::CLONE_NEWNET)
                .context("cannot enter the network's machine")
                .and_then(|()| ask(&url, &into, &until));
            if let Err(error) = asked {
                note(&into, Timestamp::now(), Err(format!("{error:#}")));
            }
        });
        Ok(Self {
            answers,
            stop,
            thread: Some(thread),
        })
    }

    /// Everything that was answered so far.
    pub fn answers(&self) -> Vec<Answer> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It never panics, and a request ends in time.
            let _ended = thread.join();
        }
    }
}

fn note(answers: &Mutex<Vec<Answer>>, began: Timestamp, generation: Result<i64, String>) {
    let now = Timestamp::now();
    let took = now.duration_since(began).unsigned_abs();
    answers.lock().unwrap_or_else(PoisonError::into_inner).push(Answer {
        at_ms: now.as_millisecond(),
        took,
        generation,
    });
}

fn ask(url: &str, answers: &Mutex<Vec<Answer>>, stop: &AtomicBool) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let client = reqwest::Client::builder().timeout(PATIENCE).no_proxy().build()?;
        while !stop.load(Ordering::Relaxed) {
            let began = Timestamp::now();
            note(
                answers,
                began,
                once(&client, url).await.map_err(|error| format!("{error:#}")),
            );
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    })
}

async fn once(client: &reqwest::Client, url: &str) -> Result<i64> {
    let response = client.get(url).send().await?.error_for_status()?;
    let generation = response
        .headers()
        .get(GENERATION)
        .context("no generation")?
        .to_str()?
        .parse()?;
    response.bytes().await?;
    Ok(generation)
}
