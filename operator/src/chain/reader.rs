//! One SprintSchedule's reader: endpoints' news in, facts out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crds::references::Window;
use crds::sprint_schedule::{Endpoint, EndpointState, SprintScheduleSpec, Trust};
use strum::VariantArray as _;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::cache::{Cache, Cached};
use super::decide::{Decision, Memory, Observed, Wanted, decide};
use super::endpoint::{Reading, read_rest, read_rpc};
use super::view::{News, View};
use super::{Queries, now_ms};
use crate::context::Book;
use crate::facts::Facts;
use crate::metrics::Metrics;

/// Time without news after which facts are judged again: silence ages them.
const TICK: Duration = Duration::from_secs(1);
/// Time between writes of the cache when only the pace moved.
const STORE_EVERY: Duration = Duration::from_secs(60);
/// News waiting to be taken in.
const NEWS: usize = 1024;

/// What a reader is made of.
#[derive(Debug)]
pub(super) struct Reader {
    /// Name of the SprintSchedule.
    pub(super) name: String,
    /// Its spec; changes with the API server's word.
    pub(super) spec: watch::Receiver<SprintScheduleSpec>,
    /// What was believed before a restart.
    pub(super) memory: Memory,
    /// Where it is kept.
    pub(super) cache: Cache,
    /// Where facts are found.
    pub(super) book: Arc<Book>,
    /// Metrics.
    pub(super) metrics: Arc<Metrics>,
    /// HTTP client.
    pub(super) http: reqwest::Client,
}

#[derive(Debug)]
struct State {
    views: BTreeMap<String, View>,
    running: BTreeMap<String, (Endpoint, Vec<AbortHandle>)>,
    tasks: JoinSet<()>,
    memory: Memory,
    stored: Option<Cached>,
    stored_at: Instant,
}

struct Channels {
    facts: watch::Sender<Arc<Facts>>,
    bases: watch::Sender<Vec<String>>,
    wanted: watch::Sender<Wanted>,
    news: mpsc::Sender<(String, News)>,
}

impl Reader {
    /// Reads until `stop`.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let (facts, facts_seen) = watch::channel(Arc::new(Facts {
            schedule: self.name.clone(),
            ..Facts::default()
        }));
        let (bases, bases_seen) = watch::channel(Vec::new());
        let (news, mut incoming) = mpsc::channel(NEWS);
        let channels = Channels {
            facts,
            bases,
            wanted: watch::channel(Wanted::default()).0,
            news,
        };
        let queries = Arc::new(Queries::new(self.http.clone(), bases_seen));
        self.book.insert(&self.name, facts_seen, queries);
        let mut state = State {
            views: BTreeMap::new(),
            running: BTreeMap::new(),
            tasks: JoinSet::new(),
            memory: std::mem::take(&mut self.memory),
            stored: None,
            stored_at: Instant::now(),
        };
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.follow_spec(&mut state, &channels);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Some((name, news)) = incoming.recv() => {
                    take(&mut state.views, &name, news);
                    while let Ok((name, news)) = incoming.try_recv() {
                        take(&mut state.views, &name, news);
                    }
                }
                changed = self.spec.changed() => {
                    if changed.is_err() {
                        break;
                    }
                    self.follow_spec(&mut state, &channels);
                }
                _ = tick.tick() => while state.tasks.try_join_next().is_some() {},
            }
            self.step(&mut state, &channels).await;
        }
        state.tasks.shutdown().await;
        self.book.remove(&self.name);
    }

    /// Starts and stops endpoints so that they are those of the spec; what is known of unchanged ones stays.
    fn follow_spec(&mut self, state: &mut State, channels: &Channels) {
        let spec = self.spec.borrow_and_update().clone();
        state.running.retain(|_, (endpoint, handles)| {
            let kept = spec.endpoints.contains(endpoint);
            if !kept {
                handles.iter().for_each(AbortHandle::abort);
                state.views.remove(&endpoint.name);
                self.forget(&endpoint.name);
            }
            kept
        });
        for endpoint in spec.endpoints {
            if state.running.contains_key(&endpoint.name) {
                continue;
            }
            state.views.insert(endpoint.name.clone(), View::default());
            let reading = Reading {
                endpoint: endpoint.clone(),
                http: self.http.clone(),
                news: channels.news.clone(),
                wanted: channels.wanted.subscribe(),
            };
            let (tip, tip_seen) = watch::channel(0);
            let handles = vec![
                state.tasks.spawn(read_rpc(reading.clone(), tip)),
                state.tasks.spawn(read_rest(reading, tip_seen)),
            ];
            state.running.insert(endpoint.name.clone(), (endpoint, handles));
        }
    }

    /// Takes an endpoint's metrics away; whether there were any does not matter.
    fn forget(&self, endpoint: &str) {
        for metric in [&self.metrics.endpoint_up, &self.metrics.endpoint_lag] {
            drop(metric.remove_label_values(&[endpoint]));
        }
    }

    async fn step(&self, state: &mut State, channels: &Channels) {
        let spec = self.spec.borrow().clone();
        let now_ms = now_ms();
        let Decision { memory, facts, wanted } = decide(
            &state.memory,
            &Observed {
                schedule: &self.name,
                spec: &spec,
                views: &state.views,
                now_ms,
            },
        );
        state.memory = memory;
        channels
            .wanted
            .send_if_modified(|known| std::mem::replace(known, wanted.clone()) != wanted);
        let bases = bases(&spec, &facts);
        channels
            .bases
            .send_if_modified(|known| std::mem::replace(known, bases.clone()) != bases);
        self.measure(&facts, now_ms);
        log_transitions(&channels.facts.borrow(), &facts);
        channels.facts.send_if_modified(|known| {
            let changed = **known != facts;
            if changed {
                *known = Arc::new(facts);
            }
            changed
        });
        self.store(state, spec).await;
    }

    fn measure(&self, facts: &Facts, now_ms: i64) {
        let metrics = &self.metrics;
        metrics
            .chain_height
            .with_label_values(&[&facts.chain_id])
            .set(facts.height);
        for endpoint in &facts.endpoints {
            let up = i64::from(endpoint.state == EndpointState::Up);
            metrics.endpoint_up.with_label_values(&[&endpoint.name]).set(up);
            let lag = if endpoint.height == 0 {
                0
            } else {
                (facts.height - endpoint.height).max(0)
            };
            metrics.endpoint_lag.with_label_values(&[&endpoint.name]).set(lag);
        }
        for window in Window::VARIANTS {
            let name: &str = window.into();
            metrics
                .window
                .with_label_values(&[self.name.as_str(), name])
                .set(i64::from(facts.window == *window));
        }
        let until = facts
            .heights
            .as_ref()
            .and_then(|heights| facts.millis_until(heights.next_poc_start_height, now_ms));
        if let Some(millis) = until {
            metrics
                .seconds_to_sprint
                .with_label_values(&[&self.name])
                .set(millis as f64 / 1000.0);
        }
    }

    /// At once when the spec or the anchor changed, else now and then for the pace.
    async fn store(&self, state: &mut State, spec: SprintScheduleSpec) {
        let same = state.stored.as_ref().is_some_and(|stored| {
            stored.spec == spec
                && stored.memory.anchor == state.memory.anchor
                && stored.memory.upgrade == state.memory.upgrade
                && stored.memory.seed == state.memory.seed
        });
        if same && state.stored_at.elapsed() < STORE_EVERY {
            return;
        }
        let cached = Cached {
            name: self.name.clone(),
            spec,
            memory: state.memory.clone(),
        };
        if let Err(error) = self.cache.store(&cached).await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                schedule = self.name,
                "what is known of the chain was not written to the cache folder; a restart would ask the API server first"
            );
        }
        state.stored_at = Instant::now();
        state.stored = Some(cached);
    }
}

fn take(views: &mut BTreeMap<String, View>, name: &str, news: News) {
    // Late words of an endpoint that left the spec are dropped.
    if let Some(view) = views.get_mut(name) {
        view.apply(news);
    }
}

/// REST doors of endpoints that are up, own ones first.
fn bases(spec: &SprintScheduleSpec, facts: &Facts) -> Vec<String> {
    let is_up = |endpoint: &&Endpoint| {
        facts
            .endpoints
            .iter()
            .any(|fact| fact.name == endpoint.name && fact.state == EndpointState::Up)
    };
    let mut up: Vec<&Endpoint> = spec.endpoints.iter().filter(is_up).collect();
    up.sort_by_key(|endpoint| endpoint.trust != Trust::Own);
    up.into_iter().map(|endpoint| endpoint.rest_url.clone()).collect()
}

fn log_transitions(before: &Facts, after: &Facts) {
    if before.window != after.window {
        tracing::info!(
            schedule = after.schedule,
            height = after.height,
            from = %before.window,
            to = %after.window,
            problems = ?after.problems,
            "window changed"
        );
    }
    for endpoint in &after.endpoints {
        let known = before.endpoints.iter().find(|known| known.name == endpoint.name);
        if known.is_some_and(|known| known.state != endpoint.state) {
            tracing::info!(
                schedule = after.schedule,
                endpoint = endpoint.name,
                state = %endpoint.state,
                message = endpoint.message,
                "endpoint changed"
            );
        }
    }
}
