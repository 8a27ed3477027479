//! What the parts of gonka-fleet say to each other, as generated from `proto/gonka/fleet/v1/*.proto`.
//!
//! | service | who serves | who calls | where |
//! |---|---|---|---|
//! | [`v1::fleet_signal_server::FleetSignal`] | operator, every replica | slots, gateways, `kubectl gonka` | TCP 9400, TLS |
//! | [`v1::slot_server::Slot`] | `slot serve` | operator | TCP 9410 |
//! | [`v1::hold_server::Hold`] | `slot hold`, PID 1 of a slot pod | `slot serve` | `/run/gonka/hold.sock` |
//! | [`v1::engine_server::Engine`] | an engine of any kind | `slot serve` | `/run/gonka/engine-<group>.sock` |
//!
//! Heights are `i64`, hashes strings with their case kept, times Unix milliseconds; an enum's 0 is "unknown".
//! The generated file is checked in; `tests/generated.rs` fails when it drifts from the `.proto` files and rewrites it
//! when `UPDATE_GENERATED=1` is set.

/// Version 1 of every message and service.
#[allow(
    clippy::all,
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    missing_debug_implementations,
    reason = "generated code"
)]
pub mod v1 {
    include!("gen/gonka.fleet.v1.rs");
}
