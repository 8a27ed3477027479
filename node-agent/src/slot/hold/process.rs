//! Apply: processes of the operating system. Started in a group of their own, signalled as a group, reaped here and
//! nowhere else: PID 1 also inherits the orphans of the pod.

use super::decide::{Exit, Signal, Spec};
use nix::{
    errno::Errno,
    sys::{
        prctl, signal,
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};
use std::{io, os::unix::process::CommandExt as _};

/// Makes orphans ours to reap also where hold is not PID 1.
pub fn adopt_orphans() {
    if let Err(error) = prctl::set_child_subreaper(true) {
        tracing::warn!(%error, "orphans will not be reaped here");
    }
}

/// Starts a process in its own group.
pub fn spawn(spec: &Spec) -> io::Result<i32> {
    let Some((program, arguments)) = spec.argv.split_first() else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the command line is empty"));
    };
    #[expect(
        clippy::disallowed_methods,
        reason = "every end is reaped by waitpid(-1) below; tokio's Child would reap a second time"
    )]
    let mut command = std::process::Command::new(program);
    command.args(arguments).envs(&spec.env).process_group(0);
    if !spec.gpu_uuids.is_empty() {
        let visible = spec.gpu_uuids.join(",");
        command
            .env("CUDA_VISIBLE_DEVICES", &visible)
            .env("NVIDIA_VISIBLE_DEVICES", &visible);
    }
    let child = command.spawn()?;
    i32::try_from(child.id()).map_err(io::Error::other)
}

/// Signals a process group that was not reaped yet.
pub fn signal(pid: i32, which: Signal) {
    let which = match which {
        Signal::Term => signal::Signal::SIGTERM,
        Signal::Kill => signal::Signal::SIGKILL,
    };
    match signal::killpg(Pid::from_raw(pid), which) {
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(error) => tracing::warn!(pid, %error, "cannot signal"),
    }
}

/// Everything that ended since the last call.
pub fn reap() -> Vec<(i32, Exit)> {
    let mut ended = Vec::new();
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) => ended.push((pid.as_raw(), Exit { code, signal: 0 })),
            Ok(WaitStatus::Signaled(pid, signal, _)) => ended.push((
                pid.as_raw(),
                Exit {
                    code: 0,
                    signal: signal as i32,
                },
            )),
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return ended,
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot reap");
                return ended;
            }
        }
    }
}
