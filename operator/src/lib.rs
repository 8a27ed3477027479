//! The gonka-fleet operator.
//!
//! ```text
//!        ┌────────────────────── API SERVER ────────────────────────┐
//!        │  spec (people write) · children · status · node reports  │
//!        └───┬──────────────────────────▲───────────────────────────┘
//!            │ watch, list              │ server-side apply
//!      ┌─────▼─────┐    ┌──────────┐  ┌─┴───────┐
//!      │ OBSERVE   ├───►│ DECIDE   ├─►│ APPLY   │      one folder per kind: observe, decide, status
//!      │ reads only│    │ pure     │  │ no ifs  │
//!      └─────▲─────┘    └──────────┘  └─────────┘
//!   chain ───┤ facts                   every replica: chain reader, FleetSignal (no API server needed)
//!   slots ───┘ live board              leader only: controllers
//! ```
//!
//! | module | what it is |
//! |---|---|
//! | [`args`], [`run`], [`admin`], [`telemetry`], [`metrics`], [`leader`] | the process |
//! | [`chain`], [`facts`] | what the chain says, from a quorum of endpoints |
//! | [`signal`], [`trust`], [`certificate`] | FleetSignal, who may listen, and what proves who serves |
//! | [`gate`] | the Window Gate: one pure function |
//! | [`live`] | what slots report, newest first |
//! | [`change`], [`apply`], [`unchanged`], [`conditions`], [`backoff`] | how any controller writes |
//! | [`sprint_schedule`], [`gonka_host`], [`model_deployment`], [`gpu_node`], [`machine`], [`protection`], [`sprint_run`] | the controllers |
//! | [`dapi`], [`slot_door`] | clients of what lives outside the API server |

pub mod admin;
pub mod apply;
pub mod args;
pub mod backoff;
pub mod certificate;
pub mod chain;
pub mod change;
pub mod conditions;
pub mod context;
pub mod dapi;
pub mod facts;
pub mod few;
pub mod gate;
#[cfg(test)]
mod golden;
pub mod gonka_host;
pub mod gpu_node;
pub mod leader;
pub mod live;
pub mod machine;
pub mod metrics;
pub mod model_deployment;
pub mod protection;
pub mod run;
pub mod schema;
pub mod signal;
pub mod slot_door;
pub mod sprint_run;
pub mod sprint_schedule;
pub mod sprint_view;
pub mod telemetry;
pub mod trust;
pub mod unchanged;
pub mod wake;
