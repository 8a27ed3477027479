//! What `serve` was told on its command line, once and for all.

use super::fence::Identity;
use crate::slot::{args::ServeArgs, telemetry::LogFormat};
use proto::v1::PrepareRequest;
use std::{path::PathBuf, time::Duration};

/// The slot's settings.
#[derive(Debug, Clone)]
pub struct Config {
    /// Who this pod is.
    pub identity: Identity,
    /// Name of this pod, for other people's logs.
    pub pod_name: String,
    /// Sockets, state and journal.
    pub run_dir: PathBuf,
    /// Copy of the journal.
    pub journal_dir: Option<PathBuf>,
    /// Least free bytes of both.
    pub journal_min_free: u64,
    /// Replica groups.
    pub replicas: u32,
    /// Engine binary; none = this one.
    pub engine_binary: Option<PathBuf>,
    /// What every engine loads.
    pub prepare: PrepareRequest,
    /// Digest the weights must have; empty = any.
    pub weights_digest: String,
    /// Between two callbacks.
    pub callback_interval_ms: i64,
    /// What starts of exams are spread over.
    pub start_stagger: Duration,
    /// Longest time a slot that nobody takes is kept when the pod ends.
    pub farewell_ms: i64,
    /// Length of the generation stage.
    pub stage_ms: i64,
    /// Handed on to the engines.
    pub log_format: LogFormat,
}

impl Config {
    /// Reads the flags that concern the slot itself; doors, signal and trust are read where they are opened.
    pub fn from_args(args: &ServeArgs, log_format: LogFormat) -> Self {
        Self {
            identity: Identity {
                pod_uid: args.pod_uid.clone(),
                deployment_uid: args.deployment_uid.clone(),
            },
            pod_name: args.pod_name.clone(),
            run_dir: args.run_dir.clone(),
            journal_dir: (!args.journal_dir.is_empty()).then(|| PathBuf::from(&args.journal_dir)),
            journal_min_free: args.journal_min_free_bytes,
            replicas: args.replicas,
            engine_binary: args.engine_binary.clone(),
            prepare: PrepareRequest {
                scheme: args.scheme.clone(),
                model: args.model.clone(),
                weights_path: args.weights.clone(),
                dtype: args.dtype.clone(),
                device: args.device.clone(),
                max_nonces_per_second: args.max_nonces_per_second,
            },
            weights_digest: args.weights_digest.clone(),
            callback_interval_ms: args.callback_interval.as_millis() as i64,
            start_stagger: args.start_stagger,
            farewell_ms: args.farewell.as_millis() as i64,
            stage_ms: args.stage_time.as_millis() as i64,
            log_format,
        }
    }

    /// The model this slot serves.
    pub fn model(&self) -> &str {
        &self.prepare.model
    }

    /// Where the assignment is kept.
    pub fn state_path(&self) -> PathBuf {
        self.run_dir.join("state.json")
    }
}

/// The port a replica group goes by in answers to DAPI; upstream's backends listen there.
pub fn backend_port(group: usize) -> u16 {
    5_001 + group as u16
}
