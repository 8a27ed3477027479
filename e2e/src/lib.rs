//! Everything that needs a cluster: the harness that makes one on this machine, and the suites that use it.

pub mod args;
pub mod device_plugin;
pub mod fault_proxy;
pub mod fleet;
pub mod harness;
