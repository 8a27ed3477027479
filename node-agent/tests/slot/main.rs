//! A slot pod as it is deployed: the real binary, real processes, real sockets on loopback. Played against it: the
//! network's DAPI (as recorded), the operator, and whoever kills processes.

#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests read the clock, and what fails in their helpers is the test"
)]

mod chain_door;
mod dapi;
mod exams;
mod failures;
mod gpu;
mod operator_door;
mod pod;
mod recorded;
mod resume;
mod signal;
mod takeover;
