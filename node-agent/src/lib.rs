//! What runs on a GPU machine and inside its slot pods.
//!
//! | module | binary | what it is |
//! |---|---|---|
//! | [`agent`] | `node-agent` | the DaemonSet: GPUs observed, judged, told to Kubernetes and Prometheus; `check`, `observe` |
//! | [`slot`] | `slot` | a slot pod: PID 1, the ML-node doors, the CPU engine |

pub mod agent;
pub mod slot;
