//! A reverse proxy that loses, delays and refuses what a program and its servers tell each other. It stands in front of
//! kube-apiserver and of a DAPI's admin port; what happens to which request is a value.
//!
//! | module | what it is |
//! |---|---|
//! | [`call`] | what a request is: verb, object, controller; pure |
//! | [`plan`] | what is to happen to which request; pure |
//! | [`log`] | what was written, and how often; pure |
//! | [`gate`] | plan and log, shared by every connection |
//! | [`door`] | sockets |

pub mod call;
pub mod door;
pub mod gate;
pub mod log;
pub mod plan;

pub use call::{Call, Verb};
pub use door::{Door, Upstream};
pub use gate::Gate;
pub use plan::{How, Lag, Of, Plan, Stale, Strike, Trouble};
