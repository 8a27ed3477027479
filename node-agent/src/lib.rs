//! What runs on a GPU machine and inside its slot pods.
//!
//! | module | binary | what it is |
//! |---|---|---|
//! | [`slot`] | `slot` | a slot pod: PID 1, the ML-node doors, the CPU engine |

pub mod slot;
