//! The node agent: box 5 of the design, the same three steps on a machine.
//!
//! ```text
//! NVML ─┐ one thread per source                         ┌► publish: GpuNode status, server-side apply
//! /proc ─┼─► observe: Sample ─► evaluate ─► report ──────┤
//! kubelet┘   plain value          pure        pure       └► metrics: text, rendered once per sample
//! ```
//!
//! | module | what it is |
//! |---|---|
//! | [`args`] | flags and environment; their only reader |
//! | [`run`], [`check`] | the commands: daemon, burn-in of the GPUs one was given, one look |
//! | [`engine`] | another command, another process: the proof on a GPU that a slot was given |
//! | [`observe`] | everything that is read, errors as data |
//! | [`history`], [`state_file`] | what outlives a sample, and a restart |
//! | [`evaluate`], [`report`], [`step`] | the decision: history and sample to findings, to status |
//! | [`publish`] | the one write |
//! | [`metrics`], [`admin`] | the same sample as Prometheus text; probes |
//!
//! The daemon never opens CUDA, never resets a GPU, and a call into NVML that does not return stops nothing but the sampling.

pub mod admin;
pub mod args;
pub mod check;
pub mod engine;
pub mod evaluate;
pub mod history;
pub mod metrics;
pub mod observe;
pub mod policy;
pub mod publish;
pub mod report;
pub mod run;
pub mod state_file;
pub mod step;
pub mod telemetry;
