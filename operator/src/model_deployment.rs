//! ModelDeployment controller: pods, slots and who holds them.
//!
//! ```text
//! observe  stores + live board ──► Observed      (fresh lists before anything is written)
//! decide   Observed ─────────────► Desired       (pure)
//! apply    demote → slice → promote per slot; then children, labels, status; rehearsals aside
//! ```
//! Without the API server assignments stay as they are and doors stay watched; nothing is decided that would need a write.

mod apply;
mod controller;
pub mod decide;
pub mod observe;
pub mod observed;
pub mod pass;

pub use controller::{Error, Transition, Watching, host_part, run, schedule_part, transition, watch};
pub use decide::{Demote, OPERATOR_PORT, Promote, Rehearse};
pub use observe::Believed;
