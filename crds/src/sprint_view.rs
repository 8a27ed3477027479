//! The live view the operator serves at `/fleet/v1/sprint` and `kubectl gonka sprint` shows. Not an object of the API server.

use serde::{Deserialize, Serialize};

use crate::references::{ExamKind, Stage, Window};

/// The whole view.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct View {
    /// Replica that answers.
    pub replica: String,
    /// Whether it leads, that is, watches slots.
    pub leader: bool,
    /// When this was made, Unix milliseconds.
    pub time_ms: i64,
    /// One entry per SprintSchedule.
    pub schedules: Vec<ScheduleView>,
    /// One entry per slot and spare; empty on a follower.
    pub slots: Vec<SlotView>,
}

/// What the Window Gate answered whom, served at `/fleet/v1/gate`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GateHistory {
    /// Whether the replica that answers leads; a follower asks nothing.
    pub leader: bool,
    /// One line per change of an answer in this replica's life, oldest first, at most 500.
    pub lines: Vec<GateView>,
}

/// One answer of the Window Gate.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GateView {
    /// Since when, Unix milliseconds.
    pub time_ms: i64,
    /// Who asked: `namespace/deployment`, or `machine NAME`.
    pub who: String,
    /// For what.
    pub action: String,
    /// `Allow`, `Wait` or `Deny`.
    pub verdict: String,
    /// Why not; empty with `Allow`.
    pub reason: String,
    /// Height until which it holds, or at which it may change. Absent when not known.
    pub until_height: Option<i64>,
}

/// One network.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ScheduleView {
    /// Name of the SprintSchedule.
    pub name: String,
    /// Chain id.
    pub chain_id: String,
    /// Newest agreed height.
    pub height: i64,
    /// Milliseconds since that block was seen here.
    pub age_ms: i64,
    /// Endpoints that agree.
    pub agreeing: u32,
    /// Endpoints of the spec.
    pub endpoints: usize,
    /// Epoch.
    pub epoch: i64,
    /// Stage.
    pub stage: Stage,
    /// Window.
    pub window: Window,
    /// Next Sprint's start height.
    pub next_poc_start_height: Option<i64>,
    /// Milliseconds until then.
    pub millis_to_sprint: Option<i64>,
    /// Half width of that estimate, milliseconds.
    pub error_ms: Option<i64>,
    /// Exam that is announced or running.
    pub exam: Option<ExamView>,
    /// What keeps the facts from being whole.
    pub problems: Vec<String>,
}

/// An exam that is announced or running.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ExamView {
    /// Kind.
    pub kind: ExamKind,
    /// First height of generation.
    pub generation_start_height: i64,
    /// Last height of generation.
    pub generation_end_height: i64,
}

/// One slot or spare.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SlotView {
    /// Namespace.
    pub namespace: String,
    /// GonkaHost.
    pub host: String,
    /// ModelDeployment.
    pub deployment: String,
    /// Index of the slot; −1 = spare.
    pub slot: i32,
    /// Pod, empty when none.
    pub pod: String,
    /// Machine.
    pub node: String,
    /// State of the slot or spare.
    pub state: String,
    /// Why it is not ready.
    pub reasons: Vec<String>,
    /// Generation of the assignment.
    pub generation: i64,
    /// Nonces computed in the running or last round.
    pub generated: u64,
    /// Nonces DAPI accepted.
    pub accepted: u64,
    /// Live rate, thousandths of a nonce per second.
    pub nonces_per_second_milli: u64,
    /// From the round's start to the first nonce, milliseconds.
    pub first_nonce_ms: Option<i64>,
    /// Whether the operator hears from the pod.
    pub connected: bool,
}
