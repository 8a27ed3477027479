//! The program's life: sockets, blocks at their time, effects carried out, the ledger written, the end.

use super::{
    Shared,
    clock::Clock,
    ports::{self, Choice, Numbers},
};
use crate::{
    compute,
    event::{Call, Effect, Event, Work},
    faults::Port,
    http,
    ledger::{
        Ledger,
        files::{self, ArtifactsFile},
    },
    network::Network,
    scenario::Scenario,
    views::control,
};
use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::{Arc, mpsc as sync_mpsc},
    time::Duration,
};
use thiserror::Error;
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

const REOPEN_ATTEMPTS: u32 = 10;

/// Why a run ended early.
#[derive(Debug, Error)]
pub enum Error {
    #[error("ports")]
    Ports(#[from] ports::Error),
    #[error("the compute thread could not be started")]
    Compute(#[source] std::io::Error),
    #[error("the ledger could not be written")]
    Ledger(#[from] files::Error),
}

/// How to run.
#[derive(Debug, Clone)]
pub struct Options {
    pub listen: IpAddr,
    pub ports: Choice,
    pub ledger: PathBuf,
    /// Go on making blocks when the scenario is over.
    pub keep_running: bool,
}

/// A network that serves.
#[derive(Debug)]
pub struct Running {
    pub shared: Arc<Shared>,
    options: Options,
    effects: mpsc::UnboundedReceiver<Effect>,
    work: sync_mpsc::Sender<Work>,
    doors: HashMap<Port, Door>,
    tasks: JoinSet<()>,
    written: usize,
}

/// An open port: dropping the sender closes it.
#[derive(Debug)]
struct Door {
    _open: watch::Sender<()>,
}

/// Binds all ports and starts serving; no block is made yet.
pub async fn start(scenario: Scenario, options: Options) -> Result<Running, Error> {
    let sockets = ports::bind(options.listen, options.ports).await?;
    let clock = Clock::start();
    let scenario = Arc::new(scenario);
    let mut net = Network::new(Arc::clone(&scenario), clock.unix_ms());
    let numbers = sockets.numbers.clone();
    let url = |port: u16| format!("http://{}", SocketAddr::new(options.listen, port));
    if net.dapi.callback_base.is_empty() {
        net.dapi.callback_base = url(numbers.dapi.ml);
    }
    if net.dapi.public_url.is_empty() {
        net.dapi.public_url = url(numbers.dapi.public);
    }
    let (shared, effects) = Shared::new(net, clock, numbers);
    let reporter = Arc::clone(&shared);
    let work = compute::start(scenario.models.clone(), move |event| reporter.tell(event)).map_err(Error::Compute)?;
    let mut running = Running {
        shared,
        options,
        effects,
        work,
        doors: HashMap::new(),
        tasks: JoinSet::new(),
        written: 0,
    };
    for (port, listener) in sockets.listeners {
        running.open(port, listener);
    }
    running
        .tasks
        .spawn(http::serve_control(Arc::clone(&running.shared), sockets.control));
    Ok(running)
}

impl Running {
    pub fn numbers(&self) -> &Numbers {
        &self.shared.ports
    }

    /// Makes blocks and carries out effects until the scenario is over or `stop` says so. The ledger is on disk then.
    pub async fn run(mut self, stop: impl Future<Output = ()>) -> Result<Ledger, Error> {
        let network = self.shared.read(|net| net.scenario.network.clone());
        let block = Duration::from_millis(network.block_millis);
        let mut count = 0_u64;
        let mut origin = Instant::now();
        tokio::pin!(stop);
        loop {
            let jitter = crate::identity::number_below(2 * network.jitter_millis + 1, &["jitter", &count.to_string()]);
            let due = (count + 1) * network.block_millis + jitter - network.jitter_millis;
            let next = origin + Duration::from_millis(due);
            tokio::select! {
                () = sleep_until(next) => {
                    count += 1;
                    let late = next.elapsed();
                    if late > block {
                        // The machine was busy or asleep: blocks come later, never in a burst.
                        origin += late;
                    }
                    self.shared.tell(Event::Block);
                }
                Some(effect) = self.effects.recv() => {
                    if self.carry_out(effect).await? {
                        break;
                    }
                }
                Some(_) = self.tasks.join_next() => {}
                () = &mut stop => break,
            }
        }
        self.save().await
    }

    /// True when the run is to end.
    async fn carry_out(&mut self, effect: Effect) -> Result<bool, Error> {
        match effect {
            Effect::After { ms, timer } => {
                let shared = Arc::clone(&self.shared);
                self.tasks.spawn(async move {
                    sleep(Duration::from_millis(ms)).await;
                    shared.tell(Event::Timer(timer));
                });
            }
            Effect::Call(call) => self.call(call),
            Effect::Compute(work) => {
                // The thread lives as long as this sender.
                let _ = self.work.send(work);
            }
            Effect::Listen { port, open } => self.listen(port, open).await,
            Effect::Save => {
                self.save().await?;
            }
            // Machines are outside: nobody here knows what they could have done, and verbs on them are refused.
            Effect::Survey { .. } | Effect::Node(_) | Effect::NodeUndo(_) => {}
            Effect::Finish => return Ok(!self.options.keep_running),
        }
        Ok(false)
    }

    fn call(&mut self, call: Call) {
        let shared = Arc::clone(&self.shared);
        self.tasks.spawn(async move {
            let result = shared.nodes.send(&call).await;
            if let Err(error) = &result {
                tracing::debug!(path = call.path, host = call.host, port = call.port, error, "no answer");
            }
            shared.tell(Event::Reply {
                to: call.origin,
                result,
            });
        });
    }

    async fn listen(&mut self, port: Port, open: bool) {
        if !open {
            self.doors.remove(&port);
            return;
        }
        if self.doors.contains_key(&port) {
            return;
        }
        let address = SocketAddr::new(self.options.listen, self.shared.ports.of(port));
        for _ in 0..REOPEN_ATTEMPTS {
            match ports::listen(address).await {
                Ok(listener) => return self.open(port, listener),
                // The server that had it may still be letting go.
                Err(error) => tracing::warn!(%error, "port is not open yet"),
            }
            sleep(Duration::from_millis(50)).await;
        }
        tracing::error!(%address, "port stays closed");
    }

    fn open(&mut self, port: Port, listener: TcpListener) {
        let (sender, receiver) = watch::channel(());
        self.doors.insert(port, Door { _open: sender });
        self.tasks
            .spawn(http::serve(Arc::clone(&self.shared), port, listener, receiver));
    }

    async fn save(&mut self) -> Result<Ledger, Error> {
        let (ledger, artifacts): (Ledger, Vec<ArtifactsFile>) = self
            .shared
            .read(|net| (control::ledger(net), net.record.artifacts[self.written..].to_vec()));
        let directory = self.options.ledger.clone();
        let copy = ledger.clone();
        let count = artifacts.len();
        let written = tokio::task::spawn_blocking(move || files::write(&directory, &copy, &artifacts)).await;
        match written {
            Ok(result) => result?,
            Err(error) => tracing::error!(%error, "ledger writer"),
        }
        self.written += count;
        Ok(ledger)
    }
}
