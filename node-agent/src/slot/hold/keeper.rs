//! The loop around the table: wishes, ends of processes, signals and time go in; what the table says is done at once.

use super::{
    decide::{Action, Event, Spec, Table},
    process, service,
};
use crate::slot::clock::now_ms;
use proto::v1::ProcState;
use std::time::Duration;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{broadcast, mpsc, oneshot},
};
use tonic::Status;

/// Ends are also looked for this often, should a signal have been merged away.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);
/// A watcher may fall this many changes behind.
const BACKLOG: usize = 256;

/// What the service may ask for.
#[derive(Debug)]
pub enum Request {
    /// Keep this process.
    Start(Spec),
    /// End it.
    Stop(String),
}

enum Message {
    Ask(Request, oneshot::Sender<Result<ProcState, Status>>),
    Snapshot(oneshot::Sender<Snapshot>),
}

/// All processes now, and their changes from now on.
pub type Snapshot = (Vec<ProcState>, broadcast::Receiver<ProcState>);

/// How the service talks to the keeper.
#[derive(Debug, Clone)]
pub struct Handle(mpsc::Sender<Message>);

impl Handle {
    /// Asks and waits for the state after it.
    pub async fn ask(&self, request: Request) -> Result<ProcState, Status> {
        let (answer, state) = oneshot::channel();
        self.0.send(Message::Ask(request, answer)).await.map_err(|_| ending())?;
        state.await.map_err(|_| ending())?
    }

    /// All processes and a subscription that misses nothing.
    pub async fn snapshot(&self) -> Result<Snapshot, Status> {
        let (answer, state) = oneshot::channel();
        self.0.send(Message::Snapshot(answer)).await.map_err(|_| ending())?;
        state.await.map_err(|_| ending())
    }
}

fn ending() -> Status {
    Status::unavailable("the pod is ending")
}

/// Owns the table.
pub struct Keeper {
    table: Table,
    boot_id: u64,
    messages: mpsc::Receiver<Message>,
    updates: broadcast::Sender<ProcState>,
    /// What watchers were told last.
    told: Vec<ProcState>,
}

impl std::fmt::Debug for Keeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keeper")
            .field("table", &self.table)
            .finish_non_exhaustive()
    }
}

impl Keeper {
    /// A keeper of nothing yet.
    pub fn new() -> (Self, Handle) {
        let (sender, messages) = mpsc::channel(64);
        let (updates, _) = broadcast::channel(BACKLOG);
        let keeper = Self {
            table: Table::default(),
            boot_id: now_ms().unsigned_abs(),
            messages,
            updates,
            told: Vec::new(),
        };
        (keeper, Handle(sender))
    }

    /// Keeps `first` and whatever is asked for, until the pod is told to end.
    pub async fn run(mut self, first: Spec) -> std::io::Result<()> {
        let mut children = signal(SignalKind::child())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut done = self.apply(Event::Start(first));
        while !done {
            let sleep = self.table.next_tick_ms().map_or(LONGEST_SLEEP, |at| {
                Duration::from_millis((at - now_ms()).max(0).unsigned_abs()).min(LONGEST_SLEEP)
            });
            tokio::select! {
                _ = children.recv() => {}
                _ = terminate.recv() => done |= self.apply(Event::Terminate),
                _ = interrupt.recv() => done |= self.apply(Event::Terminate),
                message = self.messages.recv() => {
                    if let Some(message) = message { done |= self.answer(message); }
                }
                () = tokio::time::sleep(sleep) => {}
            }
            for (pid, exit) in process::reap() {
                done |= self.apply(Event::Exited(pid, exit));
            }
            done |= self.apply(Event::Tick);
        }
        Ok(())
    }

    fn answer(&mut self, message: Message) -> bool {
        match message {
            Message::Snapshot(answer) => {
                // A watcher that is gone again needs no answer.
                drop(answer.send((self.states(), self.updates.subscribe())));
                false
            }
            Message::Ask(request, answer) => {
                if self.table.is_terminating() {
                    drop(answer.send(Err(ending())));
                    return false;
                }
                let (name, event) = match request {
                    Request::Start(spec) => (spec.name.clone(), Event::Start(spec)),
                    Request::Stop(name) => (name.clone(), Event::Stop(name)),
                };
                let done = self.apply(event);
                let state = self
                    .table
                    .get(&name)
                    .map(|process| service::render(process, self.boot_id))
                    .ok_or_else(|| Status::not_found(format!("no process is named {name:?}")));
                drop(answer.send(state));
                done
            }
        }
    }

    /// Takes a step and does what it says. True: nothing is left to keep.
    fn apply(&mut self, event: Event) -> bool {
        let mut done = false;
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            for action in self.table.step(event, now_ms()) {
                match action {
                    Action::Spawn(spec) => {
                        let pid = process::spawn(&spec)
                            .inspect(|pid| tracing::info!(name = spec.name, pid, "started"))
                            .inspect_err(
                                |error| tracing::error!(name = spec.name, argv = ?spec.argv, %error, "cannot start"),
                            )
                            .ok();
                        events.push(Event::Spawned(spec.name, pid));
                    }
                    Action::Signal(pid, which) => process::signal(pid, which),
                    Action::Exit => done = true,
                }
            }
        }
        self.tell();
        done
    }

    fn states(&self) -> Vec<ProcState> {
        self.table
            .processes()
            .map(|process| service::render(process, self.boot_id))
            .collect()
    }

    fn tell(&mut self) {
        let states = self.states();
        for state in states.iter().filter(|state| !self.told.contains(state)) {
            tracing::debug!(name = state.name, pid = state.pid, starts = state.starts, "changed");
            // Nobody watching is fine.
            drop(self.updates.send(state.clone()));
        }
        self.told = states;
    }
}
