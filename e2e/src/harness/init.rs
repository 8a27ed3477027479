//! Process 1 of a machine, and the step before it.
//!
//! [`enter`] moves itself into the machine's control groups and turns into `nsenter … unshare … harness machine-init`;
//! [`run`] is what that becomes: it mounts, sets, then keeps the components as they are wanted, and reaps orphans.

pub mod supervise;

use std::{
    ffi::CString,
    fs,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use nix::{
    mount::{MsFlags, mount},
    unistd::{execvp, sethostname},
};

use super::{
    cgroup::{self, Layout},
    machine::Spec,
    process::read_json,
};

/// Turns the calling process into the machine. Returns only when that failed.
pub fn enter(spec_file: &Path) -> Result<()> {
    let spec: Spec = read_json(spec_file)?;
    let netns = format!("--net=/run/netns/{}", spec.netns());
    let mut argv: Vec<&str> = vec![
        "nsenter",
        &netns,
        "unshare",
        "--mount",
        "--pid",
        "--fork",
        "--kill-child=SIGKILL",
    ];
    if let Some(layout) = &spec.cgroups {
        layout.enter(&spec.cluster.prefix(), &spec.machine.to_string())?;
        argv.extend(["--ipc", "--uts", "--cgroup"]);
    }
    let own = std::env::current_exe().context("cannot tell the path of this program")?;
    let mut argv: Vec<CString> = argv.into_iter().map(CString::new).collect::<Result<_, _>>()?;
    for argument in [
        "--".as_ref(),
        own.as_os_str(),
        "machine-init".as_ref(),
        spec_file.as_os_str(),
    ] {
        argv.push(CString::new(argument.as_bytes())?);
    }
    match execvp(&argv[0], &argv) {
        Err(error) => bail!("cannot run nsenter ({error}); is util-linux installed?"),
        Ok(never) => match never {},
    }
}

/// Process 1: returns only with an error, and the machine ends with it.
pub async fn run(spec_file: &Path) -> Result<()> {
    let spec: Spec = read_json(spec_file)?;
    mount_none("/", MsFlags::MS_REC | MsFlags::MS_PRIVATE)?;
    mount_new("proc", "/proc", "")?;
    if let Some(layout) = &spec.cgroups {
        become_node(&spec, layout)?;
    }
    supervise::run(&spec).await
}

fn become_node(spec: &Spec, layout: &Layout) -> Result<()> {
    sethostname(spec.machine.to_string()).context("cannot set the host name")?;
    mount_new("sysfs", "/sys", "")?;
    mount_cgroups(layout)?;
    mount(Some(&spec.var()), "/var", None::<&str>, MsFlags::MS_BIND, None::<&str>).context("cannot bind /var")?;
    mount_new("tmpfs", "/run", "mode=755")?;
    for folder in ["/var/lib", "/var/log", "/var/tmp", "/run/netns", "/run/lock"] {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {folder}"))?;
    }
    if fs::symlink_metadata("/var/run").is_err() {
        std::os::unix::fs::symlink("/run", "/var/run").context("cannot link /var/run")?;
    }
    // The kubelet passes mounts on to pods that ask for it.
    mount_none("/", MsFlags::MS_REC | MsFlags::MS_SHARED)?;
    fs::write("/proc/sys/net/ipv4/ip_forward", "1").context("cannot switch forwarding on")?;
    let bridged = Path::new("/proc/sys/net/bridge/bridge-nf-call-iptables");
    if bridged.exists() {
        fs::write(bridged, "1").context("cannot have bridged packets translated")?;
    }
    Ok(())
}

fn mount_cgroups(layout: &Layout) -> Result<()> {
    let root = Path::new("/sys/fs/cgroup");
    match layout {
        Layout::V1(hierarchies) => {
            mount_new("tmpfs", "/sys/fs/cgroup", "mode=755")?;
            for hierarchy in hierarchies {
                let folder = root.join(&hierarchy.folder);
                fs::create_dir(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
                mount_new("cgroup", &folder, &hierarchy.options)?;
                // Controllers mounted together are also found under each one's own name.
                for alias in hierarchy.folder.split(',').filter(|a| *a != hierarchy.folder) {
                    std::os::unix::fs::symlink(&hierarchy.folder, root.join(alias))?;
                }
            }
        }
        Layout::V2 => {
            mount_new("cgroup2", "/sys/fs/cgroup", "nsdelegate")?;
            // A group that gives controllers to its children may hold no process itself.
            let own = root.join("init");
            fs::create_dir_all(&own).context("cannot make a group for process 1")?;
            cgroup::move_self(&own)?;
            cgroup::delegate(root)?;
        }
    }
    Ok(())
}

fn mount_new(kind: &str, at: impl Into<PathBuf>, options: &str) -> Result<()> {
    let at = at.into();
    let options = Some(options).filter(|o| !o.is_empty());
    mount(Some(kind), &at, Some(kind), MsFlags::empty(), options).with_context(|| {
        format!(
            "cannot mount {kind} ({}) at {}",
            options.unwrap_or("no options"),
            at.display()
        )
    })
}

fn mount_none(at: &str, flags: MsFlags) -> Result<()> {
    mount(None::<&str>, at, None::<&str>, flags, None::<&str>)
        .with_context(|| format!("cannot change propagation of {at}"))
}
