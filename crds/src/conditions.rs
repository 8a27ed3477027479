//! Condition types and reasons as enums. Every reason has a page in `docs/runbook/`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Types of conditions. Each kind lists its own in `<Kind>::CONDITIONS`; every type is present from the first reconcile on.
#[derive(
    Clone,
    Copy,
    Debug,
    Deserialize,
    Eq,
    Hash,
    JsonSchema,
    Ord,
    PartialEq,
    PartialOrd,
    Serialize,
    strum::Display,
    strum::IntoStaticStr,
    strum::VariantArray,
)]
pub enum ConditionType {
    /// The spec is valid; the message lists every reason when it is not.
    Accepted,
    /// The object does its job.
    Ready,
    /// kstatus: work is under way.
    Reconciling,
    /// kstatus: no progress without help.
    Stalled,
    /// SprintSchedule: heights follow the chain.
    Synced,
    /// SprintSchedule: a quorum of endpoints reports the same chain.
    EndpointsAgree,
    /// SprintSchedule: this epoch's parameters were read and understood.
    ParametersKnown,
    /// Evidence says the next exam will be passed.
    SprintReady,
    /// GonkaHost: DAPI holds what the spec says.
    NetworkNodeSynced,
    /// GonkaHost: every slot is registered with DAPI.
    NodesRegistered,
    /// GonkaHost: fees of the next epoch can be paid.
    FeesPayable,
    /// GonkaHost: warm-key grants are valid.
    GrantsCurrent,
    /// GonkaHost: collateral covers the weight.
    CollateralCovered,
    /// GonkaHost: rewards of the last epoch were claimed.
    ClaimsCurrent,
    /// GonkaHost: participation on chain is as in the spec.
    ParticipationApplied,
    /// GonkaHost: the public URL answers from outside.
    PubliclyReachable,
    /// GonkaHost: binaries of the next upgrade are staged.
    UpgradeStaged,
    /// GonkaHost: a paid challenge is active.
    Challenged,
    /// ModelDeployment: the engine takes the arguments.
    ArgsAccepted,
    /// ModelDeployment: pinned weights are on the nodes.
    WeightsStaged,
    /// ModelDeployment: every pod has the wanted revision.
    RolledOut,
    /// GpuNode: no GPU has a blocking finding.
    GpusHealthy,
    /// GpuNode: clocks are where they should be.
    ClocksNominal,
    /// GpuNode: driver, kernel module and library agree.
    DriverConsistent,
    /// GpuNode: disks have room.
    DiskOk,
    /// GpuNode: the clock is synchronised.
    ClockSynced,
    /// GpuNode: burn-in passed.
    SelfTested,
    /// GpuNode: weights inventory was read.
    WeightsCurrent,
    /// SprintRun: the record is complete and will not change.
    Sealed,
}

/// Reasons of conditions.
#[derive(
    Clone,
    Copy,
    Debug,
    Deserialize,
    Eq,
    Hash,
    JsonSchema,
    Ord,
    PartialEq,
    PartialOrd,
    Serialize,
    strum::Display,
    strum::EnumString,
    strum::IntoStaticStr,
    strum::VariantArray,
)]
pub enum Reason {
    /// True, as it should be.
    AsExpected,
    /// Not looked at yet.
    Pending,
    /// Work is under way.
    InProgress,
    /// Nobody has built or switched on what would tell.
    NotObserved,
    /// The spec breaks a rule.
    InvalidSpec,
    /// The spec names an object that is not there.
    MissingReference,
    /// No rehearsal since the engine's last start.
    NotRehearsed,
    /// The last rehearsal failed.
    RehearsalFailed,
    /// There is nothing to compare a rehearsal with.
    NoGolden,
    /// Another model is loaded.
    WrongModel,
    /// Fewer engines than expected.
    BackendsMissing,
    /// The weights' digest is not the wanted one.
    WeightsMismatch,
    /// A GPU has a blocking finding.
    GpuFinding,
    /// The way back to DAPI is not proven.
    CallbackUnproven,
    /// The journal's disk has no room.
    JournalFull,
    /// The cold account cannot pay the next epoch's fees.
    FeesUnpayable,
    /// The warm key lacks permissions of the cold account.
    GrantsMissing,
    /// A reward was not claimed while it could be.
    ClaimLost,
    /// The chain's state is not known.
    ChainUnknown,
    /// No block for too long.
    Halted,
    /// An endpoint is behind.
    Lagging,
    /// Endpoints report different blocks at the same height.
    EndpointsDisagree,
    /// An endpoint serves another chain.
    WrongChainID,
    /// Fewer endpoints than the quorum answer.
    QuorumLost,
    /// An answer has a shape this version does not know.
    ShapeUnknown,
    /// No answer.
    Unreachable,
    /// Management policy is Observe: nothing is written outside.
    Observing,
    /// A write was refused.
    ApplyFailed,
    /// Something outside had changed and was put right.
    DriftRepaired,
    /// DAPI has nodes that are not ours.
    ForeignNode,
    /// Node numbers have a hole; nonces of it stay unused until DAPI restarts.
    NumberingHole,
    /// Another installation owns these nodes.
    OwnedByAnotherInstall,
    /// A slot waits for the window to allow it.
    WaitingForWindow,
    /// A rollout waits for a rehearsed spare.
    WaitingForSpare,
    /// Paused by its owner.
    Paused,
    /// A few slots have the new revision, and no exam has judged it yet.
    CanaryUnproven,
    /// The new revision failed; the rollout is held.
    RolloutFailed,
    /// The new revision failed; pods have the one before.
    RolledBack,
    /// The installed CRD lacks fields this operator writes.
    CrdPruned,
    /// It is not proven that the old signer is gone.
    FencingUnproven,
    /// Too much would change at once, or facts contradict each other; a person looks and re-arms.
    BreakerTripped,
    /// The API server's objects are older than what slots report; a person looks and re-arms.
    ObjectsOlder,
    /// No slot holds its pod.
    SlotUnassigned,
    /// The sample is older than it may be, or the agent is gone.
    SampleStale,
    /// NVML is not there.
    NvmlAbsent,
    /// NVML answers with an error.
    NvmlFailing,
    /// Library, driver and kernel module are of different versions.
    DriverMismatch,
    /// Clocks of a GPU are held back.
    ClocksReduced,
    /// A disk has no room, no inodes, or is read-only.
    DiskLow,
    /// The machine's clock is off.
    ClockOff,
    /// The record is being collected.
    Collecting,
    /// The record is closed.
    Sealed,
}

/// `status` of a condition.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    Deserialize,
    Eq,
    Hash,
    JsonSchema,
    PartialEq,
    Serialize,
    strum::Display,
    strum::IntoStaticStr,
)]
pub enum ConditionStatus {
    /// It is so.
    True,
    /// It is not so.
    False,
    /// Not known; never read as permission.
    #[default]
    Unknown,
}
