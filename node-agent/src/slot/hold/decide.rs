//! Decide: which processes run, when each is started again, whom to signal. Pure: events and the clock come in, actions
//! go out. The caller must report the outcome of a `Spawn` before anything else.

use std::collections::BTreeMap;

/// A process that ran at least this long starts its backoff anew.
const STABLE_MS: i64 = 10_000;
/// First and longest pause before a restart. An exam lasts minutes: even the longest pause must cost little of it.
const FIRST_PAUSE_MS: i64 = 50;
const LONGEST_PAUSE_MS: i64 = 5_000;
/// Exit code reported for a program that could not be started at all, as shells do.
const NOT_STARTED: i32 = 127;

/// What to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// Unique in the pod.
    pub name: String,
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Added to hold's own environment.
    pub env: BTreeMap<String, String>,
    /// GPUs the process may see; all when empty.
    pub gpu_uuids: Vec<String>,
    /// Whether its end is a reason to start it again.
    pub restart: bool,
    /// Between SIGTERM and SIGKILL.
    pub stop_grace_ms: i64,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// Its code, 0 when a signal ended it.
    pub code: i32,
    /// The signal, 0 when it exited.
    pub signal: i32,
}

/// Where a process stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// Asked to be spawned in this very step.
    Starting,
    /// Alive.
    Running {
        /// Its process and process group.
        pid: i32,
    },
    /// Ended; starts again at this time.
    Pausing {
        /// Unix milliseconds.
        until_ms: i64,
    },
    /// Told to end.
    Stopping {
        /// Its process group.
        pid: i32,
        /// When SIGTERM was not enough.
        kill_at_ms: i64,
        /// What takes its place afterwards.
        next: Option<Spec>,
    },
    /// Not running and not to be started.
    Ended,
}

/// One entry of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// What it is.
    pub spec: Spec,
    /// Where it stands.
    pub phase: Phase,
    /// Times it was started.
    pub starts: u32,
    /// How it ended last.
    pub last_exit: Option<Exit>,
    /// Unix milliseconds of its last start, 0 = never.
    pub started_ms: i64,
    /// Unix milliseconds of its last end, 0 = never.
    pub ended_ms: i64,
    failures: u32,
}

/// Everything hold knows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    processes: BTreeMap<String, Process>,
    /// The process that came first: the others work for it, so it ends before them.
    first: Option<String>,
    terminating: bool,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Somebody wants this process to run.
    Start(Spec),
    /// Somebody wants it to end for good.
    Stop(String),
    /// The outcome of a `Spawn`: its pid, or none.
    Spawned(String, Option<i32>),
    /// A process ended; it need not be one of ours.
    Exited(i32, Exit),
    /// Time passed.
    Tick,
    /// The pod is to end.
    Terminate,
}

/// Signals hold sends, always to the whole process group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM.
    Term,
    /// SIGKILL.
    Kill,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Start it and report `Spawned`.
    Spawn(Spec),
    /// Signal a process group.
    Signal(i32, Signal),
    /// Nothing is left to keep: exit.
    Exit,
}

impl Table {
    /// One step.
    pub fn step(&mut self, event: Event, now_ms: i64) -> Vec<Action> {
        match event {
            Event::Start(spec) => self.start(spec, now_ms),
            Event::Stop(name) => self
                .processes
                .get_mut(&name)
                .map_or_else(Vec::new, |process| process.stop(None, now_ms)),
            Event::Spawned(name, pid) => {
                if let Some(process) = self.processes.get_mut(&name) {
                    process.spawned(pid, now_ms);
                }
                Vec::new()
            }
            Event::Exited(pid, exit) => self.exited(pid, exit, now_ms),
            Event::Tick => self
                .processes
                .values_mut()
                .flat_map(|process| process.tick(now_ms))
                .collect(),
            Event::Terminate => self.terminate(now_ms),
        }
    }

    /// When `Tick` is due next, Unix milliseconds.
    pub fn next_tick_ms(&self) -> Option<i64> {
        self.processes
            .values()
            .filter_map(|process| match process.phase {
                Phase::Pausing { until_ms } => Some(until_ms),
                Phase::Stopping { kill_at_ms, .. } => Some(kill_at_ms),
                Phase::Starting | Phase::Running { .. } | Phase::Ended => None,
            })
            .min()
    }

    /// Whether the pod is ending; nothing new is started then.
    pub fn is_terminating(&self) -> bool {
        self.terminating
    }

    /// Every process, by name.
    pub fn processes(&self) -> impl Iterator<Item = &Process> {
        self.processes.values()
    }

    /// One process.
    pub fn get(&self, name: &str) -> Option<&Process> {
        self.processes.get(name)
    }

    fn start(&mut self, spec: Spec, now_ms: i64) -> Vec<Action> {
        if self.terminating {
            return Vec::new();
        }
        let Some(process) = self.processes.get_mut(&spec.name) else {
            self.first.get_or_insert_with(|| spec.name.clone());
            self.processes.insert(spec.name.clone(), Process::new(spec.clone()));
            return vec![Action::Spawn(spec)];
        };
        let same = process.spec == spec;
        match &mut process.phase {
            Phase::Starting | Phase::Running { .. } | Phase::Pausing { .. } if same => Vec::new(),
            Phase::Stopping { next, .. } => {
                *next = Some(spec);
                Vec::new()
            }
            Phase::Starting | Phase::Running { .. } => process.stop(Some(spec), now_ms),
            Phase::Pausing { .. } | Phase::Ended => {
                process.begin(spec.clone());
                vec![Action::Spawn(spec)]
            }
        }
    }

    fn exited(&mut self, pid: i32, exit: Exit, now_ms: i64) -> Vec<Action> {
        let Some(process) = self.processes.values_mut().find(|process| process.pid() == Some(pid)) else {
            return Vec::new();
        };
        let mut actions = process.ended(exit, now_ms);
        if self.terminating {
            process.phase = Phase::Ended;
            actions = self.terminate(now_ms);
        }
        actions
    }

    /// Ends the first process, then the others, then itself. Asked again it does nothing twice.
    fn terminate(&mut self, now_ms: i64) -> Vec<Action> {
        self.terminating = true;
        let first = self.first.as_ref().and_then(|name| self.processes.get_mut(name));
        if let Some(first) = first {
            let actions = first.stop(None, now_ms);
            if first.pid().is_some() {
                return actions;
            }
        }
        let mut actions: Vec<_> = self
            .processes
            .values_mut()
            .flat_map(|process| process.stop(None, now_ms))
            .collect();
        actions.extend(self.exit_when_empty());
        actions
    }

    fn exit_when_empty(&self) -> Option<Action> {
        (self.terminating && self.processes.values().all(|process| process.phase == Phase::Ended))
            .then_some(Action::Exit)
    }
}

impl Process {
    fn new(spec: Spec) -> Self {
        Self {
            spec,
            phase: Phase::Starting,
            starts: 0,
            last_exit: None,
            started_ms: 0,
            ended_ms: 0,
            failures: 0,
        }
    }

    /// Its process while there is one.
    pub fn pid(&self) -> Option<i32> {
        match self.phase {
            Phase::Running { pid } | Phase::Stopping { pid, .. } => Some(pid),
            Phase::Starting | Phase::Pausing { .. } | Phase::Ended => None,
        }
    }

    fn begin(&mut self, spec: Spec) {
        self.spec = spec;
        self.phase = Phase::Starting;
        self.failures = 0;
    }

    fn spawned(&mut self, pid: Option<i32>, now_ms: i64) {
        self.starts += 1;
        self.started_ms = now_ms;
        if let Some(pid) = pid {
            self.phase = Phase::Running { pid };
        } else {
            self.last_exit = Some(Exit {
                code: NOT_STARTED,
                signal: 0,
            });
            self.ended_ms = now_ms;
            self.pause_or_end(now_ms);
        }
    }

    fn stop(&mut self, next: Option<Spec>, now_ms: i64) -> Vec<Action> {
        match &mut self.phase {
            Phase::Running { pid } => {
                let pid = *pid;
                self.phase = Phase::Stopping {
                    pid,
                    kill_at_ms: now_ms + self.spec.stop_grace_ms,
                    next,
                };
                vec![Action::Signal(pid, Signal::Term)]
            }
            Phase::Stopping { next: planned, .. } => {
                *planned = next;
                Vec::new()
            }
            Phase::Starting | Phase::Pausing { .. } | Phase::Ended => {
                self.phase = Phase::Ended;
                Vec::new()
            }
        }
    }

    fn ended(&mut self, exit: Exit, now_ms: i64) -> Vec<Action> {
        self.last_exit = Some(exit);
        self.ended_ms = now_ms;
        let stopping = match &mut self.phase {
            Phase::Stopping { next, .. } => Some(next.take()),
            Phase::Starting | Phase::Running { .. } | Phase::Pausing { .. } | Phase::Ended => None,
        };
        match stopping {
            Some(Some(next)) => {
                self.begin(next.clone());
                vec![Action::Spawn(next)]
            }
            Some(None) => {
                self.phase = Phase::Ended;
                Vec::new()
            }
            None => {
                self.pause_or_end(now_ms);
                Vec::new()
            }
        }
    }

    fn pause_or_end(&mut self, now_ms: i64) {
        if !self.spec.restart {
            self.phase = Phase::Ended;
            return;
        }
        if now_ms - self.started_ms >= STABLE_MS {
            self.failures = 0;
        }
        self.phase = Phase::Pausing {
            until_ms: now_ms + pause_ms(self.failures),
        };
        self.failures = self.failures.saturating_add(1);
    }

    fn tick(&mut self, now_ms: i64) -> Vec<Action> {
        match &mut self.phase {
            Phase::Pausing { until_ms } if *until_ms <= now_ms => {
                self.phase = Phase::Starting;
                vec![Action::Spawn(self.spec.clone())]
            }
            Phase::Stopping { pid, kill_at_ms, .. } if *kill_at_ms <= now_ms => {
                // Asked again every grace period, in case the group gained a member.
                *kill_at_ms = now_ms + self.spec.stop_grace_ms.max(100);
                vec![Action::Signal(*pid, Signal::Kill)]
            }
            Phase::Starting | Phase::Running { .. } | Phase::Pausing { .. } | Phase::Stopping { .. } | Phase::Ended => {
                Vec::new()
            }
        }
    }
}

/// Pause before the restart that follows `failures` earlier ones.
pub fn pause_ms(failures: u32) -> i64 {
    FIRST_PAUSE_MS
        .saturating_mul(1_i64 << failures.min(20))
        .min(LONGEST_PAUSE_MS)
}

#[cfg(test)]
mod tests;
