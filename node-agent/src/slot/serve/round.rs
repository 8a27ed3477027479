//! One round: a value that the journal's records build up, live and after a restart alike.

pub mod admission;
pub mod ending;

use super::{
    journal::record::{End, Record},
    outbox::{Entry, Outbox},
    request::RoundRequest,
};
use crate::slot::rate::RateMeter;
use ending::Ends;
use kernels::nonces::Enumeration;

/// Most artifacts kept for DAPI.
pub const MAX_ARTIFACTS: usize = 1_000_000;

/// A round, running or over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Round {
    /// Distinguishes it from every other round of this pod: its start, Unix milliseconds.
    pub id: i64,
    /// Unix milliseconds from which engines compute: its start, or a little later where starts are spread.
    pub begins_ms: i64,
    /// As asked for.
    pub request: RoundRequest,
    /// Replica groups it is dealt out over.
    pub groups: u32,
    /// First index each group has not computed.
    pub next: Vec<u64>,
    /// What DAPI has not got yet.
    pub outbox: Outbox,
    /// Body of the first answer.
    pub answer: Option<serde_json::Value>,
    /// Unix milliseconds of the first artifact, 0 = none yet.
    pub first_nonce_ms: i64,
    /// Unix milliseconds of the first accepted callback, 0 = none yet.
    pub first_callback_ms: i64,
    /// Artifacts the engines delivered.
    pub generated: u64,
    /// Artifacts delivered when generation ended on the chain; none while it has not, or nobody told.
    pub in_time: Option<u64>,
    /// Artifacts DAPI took.
    pub accepted: u64,
    /// Artifacts DAPI refused, and those that were dropped.
    pub refused: u64,
    /// How it ended.
    pub end: Option<End>,
    /// Unix milliseconds of its end.
    pub ended_ms: i64,
    /// Heights of its stage, once FleetSignal told them.
    pub ends: Option<Ends>,
    /// What is left may still be sent until then, though the round is over.
    pub flush_until_ms: i64,
    /// Speed.
    pub meter: RateMeter,
}

impl Round {
    /// The round a `Started` record begins; none for any other record.
    pub fn begin(record: &Record) -> Option<Self> {
        let Record::Started {
            request,
            at,
            groups,
            resume,
        } = record
        else {
            return None;
        };
        let mut next = resume.clone();
        next.resize(*groups as usize, 0);
        Some(Self {
            id: *at,
            begins_ms: *at,
            request: request.clone(),
            groups: *groups,
            next,
            outbox: Outbox::new(MAX_ARTIFACTS, *at),
            answer: None,
            first_nonce_ms: 0,
            first_callback_ms: 0,
            generated: 0,
            in_time: None,
            accepted: 0,
            refused: 0,
            end: None,
            ended_ms: 0,
            ends: None,
            flush_until_ms: 0,
            meter: RateMeter::default(),
        })
    }

    /// The round a journal tells of, as far as it goes.
    pub fn replay(records: &[Record]) -> Option<Self> {
        let (first, rest) = records.split_first()?;
        let mut round = Self::begin(first)?;
        for record in rest {
            round.apply(record);
        }
        Some(round)
    }

    /// Takes one record in.
    pub fn apply(&mut self, record: &Record) {
        match record {
            Record::Started { .. } => {}
            Record::Answered { body } => self.answer = Some(body.clone()),
            Record::Batch {
                at,
                group,
                next,
                count,
                artifacts,
            } => self.take_batch(*at, *group, *next, *count, artifacts),
            Record::Sent { at, accepted, refused } => {
                self.accepted += accepted;
                self.refused += refused;
                self.outbox.pop((accepted + refused) as usize);
                if *accepted > 0 && self.first_callback_ms == 0 {
                    self.first_callback_ms = *at;
                }
            }
            Record::StageEnd { reached: true, .. } => {
                self.in_time.get_or_insert(self.generated);
            }
            Record::StageEnd { reached: false, .. } => self.in_time = None,
            Record::Ended { at, end } => {
                self.end = Some(*end);
                self.ended_ms = *at;
            }
        }
    }

    fn take_batch(&mut self, at: i64, group: u32, next: u64, count: u32, artifacts: &[(i32, String)]) {
        let Some(position) = self.next.get_mut(group as usize) else {
            return;
        };
        let from_index = *position;
        *position = next.max(from_index);
        if count > 0 && self.first_nonce_ms == 0 {
            self.first_nonce_ms = at;
        }
        self.generated += u64::from(count);
        self.meter.record(at, u64::from(count));
        self.refused += self.outbox.push(artifacts.iter().map(|(nonce, vector_b64)| Entry {
            group,
            from_index,
            nonce: *nonce,
            vector_b64: vector_b64.clone(),
        }));
    }

    /// Artifacts that existed before generation ended on the chain, as far as that is known.
    pub fn generated_in_time(&self) -> u64 {
        self.in_time.unwrap_or(self.generated)
    }

    /// Whether its engines should compute.
    pub fn is_active(&self) -> bool {
        self.end.is_none()
    }

    /// Whether callbacks may still leave.
    pub fn may_send(&self, now_ms: i64) -> bool {
        self.is_active() || now_ms < self.flush_until_ms
    }

    /// Gives up what waits; it counts as refused. Should the same exam start once more, it is computed again.
    pub fn drop_outbox(&mut self) {
        self.next = (0..self.groups).map(|group| self.resume_from(group)).collect();
        self.refused += self.outbox.clear();
    }

    /// Where another pod would have to go on for nothing to be missing.
    pub fn resume_from(&self, group: u32) -> u64 {
        let computed = self.next.get(group as usize).copied().unwrap_or(0);
        self.outbox.undelivered_from(group).unwrap_or(computed)
    }

    /// Whether a group has nonces left.
    pub fn has_work(&self, group: u32) -> bool {
        let next = self.next.get(group as usize).copied().unwrap_or(u64::MAX);
        enumeration(&self.request, group, self.groups).is_ok_and(|numbers| next < numbers.len())
    }
}

/// The nonces of one group.
pub fn enumeration(request: &RoundRequest, group: u32, groups: u32) -> Result<Enumeration, kernels::nonces::Error> {
    Enumeration::new(
        i64::from(request.node_num),
        i64::from(request.node_count),
        i64::from(group),
        i64::from(groups),
    )
}

#[cfg(test)]
pub mod tests;
