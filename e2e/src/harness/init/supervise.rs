//! Keeps a machine's components as they are wanted: started when their conditions hold, started again when they end,
//! killed or frozen on demand; and reaps the orphans that end up with process 1.

use std::{
    collections::BTreeSet,
    fs,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use nix::{
    sys::{
        signal::{Signal, kill},
        wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid},
    },
    unistd::Pid,
};
use tokio::{process::Child, task::JoinSet, time::sleep};

use crate::harness::{
    machine::{Actual, Component, Condition, Desired, Spec, State},
    process::{Cmd, write_json},
};

/// How soon a wish is seen; also how soon a condition is.
const TICK: Duration = Duration::from_millis(50);
const RESTART_PAUSE: Duration = Duration::from_millis(500);
const CONNECT_LIMIT: Duration = Duration::from_millis(500);

/// Children whose end belongs to whoever started them, not to the reaper.
type Own = Arc<Mutex<BTreeSet<i32>>>;

/// Runs until something that cannot fail fails.
pub async fn run(spec: &Spec) -> Result<()> {
    let own = Own::default();
    let mut tasks = JoinSet::new();
    for component in &spec.components {
        let keeper = Keeper {
            spec: spec.clone(),
            component: component.clone(),
            own: Arc::clone(&own),
            starts: 0,
        };
        tasks.spawn(keeper.run());
    }
    tasks.spawn(reap(own));
    match tasks.join_next().await {
        Some(Ok(Err(error))) => Err(error),
        Some(other) => bail!("a task of process 1 ended: {other:?}"),
        None => bail!("process 1 had nothing to do"),
    }
}

struct Keeper {
    spec: Spec,
    component: Component,
    own: Own,
    starts: u32,
}

impl Keeper {
    async fn run(mut self) -> Result<()> {
        loop {
            self.wait_for_start().await?;
            let mut child = self.start()?;
            let pid = child.id();
            self.watch(&mut child).await?;
            if let Some(pid) = pid {
                self.own
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .remove(&pid.cast_signed());
            }
            sleep(RESTART_PAUSE).await;
        }
    }

    async fn wait_for_start(&self) -> Result<()> {
        let mut last = None;
        loop {
            let killed = self.desired() == Desired::Killed;
            let state = if killed { State::Killed } else { State::Waiting };
            if last != Some(state) {
                self.report(state, false, None)?;
                last = Some(state);
            }
            if !killed && all_hold(&self.component.after).await {
                return Ok(());
            }
            sleep(TICK).await;
        }
    }

    fn start(&mut self) -> Result<Child> {
        self.starts += 1;
        let path = format!(
            "{}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            self.spec.programs.display()
        );
        let log = self
            .spec
            .logs
            .join(format!("{}-{}.log", self.spec.machine, self.component.name));
        let command = Cmd::new(&self.component.program).args(&self.component.args);
        let command = command.clear_env().env("PATH", path).env("HOME", "/root");
        // Held over the start, so that the reaper never sees a child it does not know.
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        let child = command.spawn_logged(&log)?;
        own.extend(child.id().map(u32::cast_signed));
        Ok(child)
    }

    /// Until the child has ended.
    async fn watch(&self, child: &mut Child) -> Result<()> {
        let pid = child.id();
        let (mut reported, mut ready) = (None, false);
        loop {
            tokio::select! {
                // Whatever the end was like, what follows is the same.
                _ = child.wait() => return Ok(()),
                () = sleep(TICK) => {}
            }
            let state = match self.desired() {
                Desired::Running => State::Running,
                Desired::Frozen => State::Frozen,
                Desired::Killed => {
                    child.kill().await.ok();
                    return Ok(());
                }
            };
            if reported.is_none_or(|(s, _)| s != state) {
                signal(
                    pid,
                    if state == State::Frozen {
                        Signal::SIGSTOP
                    } else {
                        Signal::SIGCONT
                    },
                );
            }
            if state == State::Running && !ready {
                ready = match &self.component.ready {
                    Some(condition) => holds(condition).await,
                    None => true,
                };
            }
            if reported != Some((state, ready)) {
                self.report(state, ready && state == State::Running, pid)?;
                reported = Some((state, ready));
            }
        }
    }

    fn desired(&self) -> Desired {
        let text = fs::read_to_string(self.spec.desired(&self.component.name)).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }

    fn report(&self, state: State, ready: bool, pid: Option<u32>) -> Result<()> {
        let path = self.spec.actual(&self.component.name);
        write_json(
            &path,
            &Actual {
                state,
                ready,
                starts: self.starts,
                pid,
            },
        )
    }
}

fn signal(pid: Option<u32>, signal: Signal) {
    if let Some(pid) = pid {
        // A child that has just ended is found out by the next look.
        kill(Pid::from_raw(pid.cast_signed()), signal).ok();
    }
}

async fn all_hold(conditions: &[Condition]) -> bool {
    for condition in conditions {
        if !holds(condition).await {
            return false;
        }
    }
    true
}

async fn holds(condition: &Condition) -> bool {
    match condition {
        Condition::File(path) => path.exists(),
        Condition::Unix(path) => connects(tokio::net::UnixStream::connect(path)).await,
        Condition::Tcp(address) => match address.parse::<SocketAddr>() {
            Ok(address) => connects(tokio::net::TcpStream::connect(address)).await,
            Err(_) => false,
        },
    }
}

async fn connects<T>(attempt: impl Future<Output = std::io::Result<T>>) -> bool {
    matches!(tokio::time::timeout(CONNECT_LIMIT, attempt).await, Ok(Ok(_)))
}

/// Containers' helpers lose their parents by design; process 1 has to take their end.
async fn reap(own: Own) -> Result<()> {
    loop {
        sleep(TICK).await;
        let own = own.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let peek = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
            let Some(pid) = waitid(Id::All, peek).ok().as_ref().and_then(WaitStatus::pid) else {
                break;
            };
            if own.contains(&pid.as_raw()) {
                break;
            }
            waitpid(pid, Some(WaitPidFlag::WNOHANG)).context("cannot reap an orphan")?;
        }
    }
}
