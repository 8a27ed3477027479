//! A whole fleet in virtual time: the network of `network_simulator::virtual_time`, an API server in memory, machines, slot pods,
//! and the operator's own decisions between them. A run is a function of its plan: same plan, same history, byte for byte.
//!
//! | module | what |
//! |---|---|
//! | [`plan`], [`story`], [`random`] | what is given: network, fleet, what happens to them, chance by seed |
//! | [`switches`] | what strangers set on machines, and whether it is there when nothing of ours is |
//! | [`store`], [`cache`] | the API server, and what a process believes of it |
//! | [`cluster`], [`slot`] | machines, pods and `serve`: the node agent's own state around engines that count |
//! | [`chain`], [`operator`] | the operator's process: it reads late and writes in order; what it decides is the operator's |
//! | [`ground`], [`agenda`], [`history`] | what all stand on, what comes next, what was |
//! | [`fleet`] | the loop: who hears of which event |
//! | [`lives`] | many runs side by side |
//! | [`check`], [`table`], [`minimise`] | what must hold, what was lost, and the smallest story in which it breaks |

#![forbid(unsafe_code)]

pub mod agenda;
pub mod cache;
pub mod chain;
pub mod check;
pub mod cluster;
pub mod fleet;
pub mod ground;
pub mod history;
pub mod lives;
pub mod minimise;
pub mod operator;
pub mod plan;
pub mod random;
pub mod slot;
pub mod store;
pub mod story;
pub mod switches;
pub mod table;

/// The model that the fleet proves.
pub const MODEL: &str = "gonka-fleet/tiny_qwen3_dense";
/// Namespace of everything that has one.
pub const NAMESPACE: &str = "gonka";
/// The SprintSchedule.
pub const SCHEDULE: &str = "devnet";
/// The GonkaHost.
pub const HOST: &str = "ours";
/// The ModelDeployment.
pub const DEPLOYMENT: &str = "tiny";
