//! Records of the journal: one line each, a checksum in front. Pure.
//!
//! Input: bytes of a file that may end anywhere. Output: every record before the first line that is not whole.

use crate::slot::serve::request::RoundRequest;
use serde::{Deserialize, Serialize};

/// Longest line that is read back; a batch of 4,096 artifacts takes a quarter of it.
const MAX_LINE: usize = 1 << 20;

/// How a round ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// By `stop`, or by the operator taking the slot away.
    Stopped,
    /// By nobody: the stage was over.
    StoppedBySelf,
    /// No engine took it.
    Failed,
}

/// Something that happened in a round.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "t", rename_all = "snake_case")]
pub enum Record {
    /// It began.
    Started {
        /// As asked for.
        request: RoundRequest,
        /// Unix milliseconds.
        at: i64,
        /// Replica groups.
        groups: u32,
        /// First index of each group.
        resume: Vec<u64>,
    },
    /// What the asker was told.
    Answered {
        /// The body.
        body: serde_json::Value,
    },
    /// A batch of an engine.
    Batch {
        /// Unix milliseconds.
        at: i64,
        /// The group.
        group: u32,
        /// First index not covered by it.
        next: u64,
        /// Artifacts in the batch, also when they are not listed for want of room.
        count: u32,
        /// Nonce and vector.
        artifacts: Vec<(i32, String)>,
    },
    /// A callback was answered for good.
    Sent {
        /// Unix milliseconds.
        at: i64,
        /// Taken.
        accepted: u64,
        /// Refused.
        refused: u64,
    },
    /// Generation of its exam is over on the chain, or is not after all: the height that said so was a guess.
    StageEnd {
        /// Unix milliseconds.
        at: i64,
        /// Whether it is over.
        reached: bool,
    },
    /// It ended.
    Ended {
        /// Unix milliseconds.
        at: i64,
        /// Why.
        end: End,
    },
}

/// One line.
///
/// # Panics
/// Never: a record holds nothing that JSON cannot say.
pub fn encode(record: &Record) -> Vec<u8> {
    let json = serde_json::to_vec(record).expect("a record holds nothing JSON cannot say");
    let mut line = format!("{:08x} ", crc32(&json)).into_bytes();
    line.extend_from_slice(&json);
    line.push(b'\n');
    line
}

/// Every whole record from the start, and how many bytes they take.
pub fn decode(bytes: &[u8]) -> (Vec<Record>, usize) {
    let mut records = Vec::new();
    let mut read = 0;
    while let Some(length) = bytes[read..].iter().take(MAX_LINE).position(|byte| *byte == b'\n') {
        let Some(record) = decode_line(&bytes[read..read + length]) else {
            break;
        };
        records.push(record);
        read += length + 1;
    }
    (records, read)
}

fn decode_line(line: &[u8]) -> Option<Record> {
    let (sum, json) = (line.get(..8)?, line.get(9..)?);
    let sum = u32::from_str_radix(std::str::from_utf8(sum).ok()?, 16).ok()?;
    if crc32(json) != sum {
        return None;
    }
    serde_json::from_slice(json).ok()
}

/// CRC-32 (IEEE 802.3), bit by bit: lines are few and short.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xEDB8_8320 & 0_u32.wrapping_sub(crc & 1))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn request() -> RoundRequest {
        RoundRequest {
            height: 145,
            seed: "052955F4".into(),
            public_key: "03c8".into(),
            node_num: 1,
            node_count: 4,
            model: "gonka-fleet/tiny".into(),
            seq_len: 16,
            k_dim: 12,
            batch_size: 32,
            stronger_rng: false,
            callback_url: "http://10.0.0.1:9100/v2/poc-batches/gonka-fleet%252Ftiny".into(),
            scheme: "prefill_v2".into(),
        }
    }

    fn record() -> impl Strategy<Value = Record> {
        prop_oneof![
            (any::<i64>(), 1..4_u32).prop_map(|(at, groups)| Record::Started {
                request: request(),
                at,
                groups,
                resume: vec![0; groups as usize],
            }),
            any::<u8>().prop_map(|n| Record::Answered {
                body: serde_json::json!({ "n_groups": n, "text": "line\nbreak" }),
            }),
            (
                any::<i64>(),
                0..4_u32,
                any::<u64>(),
                prop::collection::vec((any::<i32>(), "[A-Za-z0-9+/]{8}"), 0..6)
            )
                .prop_map(|(at, group, next, artifacts)| Record::Batch {
                    at,
                    group,
                    next,
                    count: artifacts.len() as u32,
                    artifacts,
                }),
            (any::<i64>(), any::<u64>(), any::<u64>()).prop_map(|(at, accepted, refused)| Record::Sent {
                at,
                accepted,
                refused
            }),
            (any::<i64>(), any::<bool>()).prop_map(|(at, reached)| Record::StageEnd { at, reached }),
            any::<i64>().prop_map(|at| Record::Ended { at, end: End::Stopped }),
        ]
    }

    proptest! {
        #[test]
        fn whatever_a_file_lost_at_its_end_a_prefix_of_its_records_is_recovered(
            records in prop::collection::vec(record(), 0..12),
            cut in any::<prop::sample::Index>(),
        ) {
            let lines: Vec<_> = records.iter().map(encode).collect();
            let bytes = lines.concat();
            let kept = cut.index(bytes.len() + 1);
            let (recovered, read) = decode(&bytes[..kept]);
            let mut whole = 0;
            let mut length = 0;
            while whole < lines.len() && length + lines[whole].len() <= kept {
                length += lines[whole].len();
                whole += 1;
            }
            prop_assert_eq!(recovered, &records[..whole]);
            prop_assert_eq!(read, length);
        }

        #[test]
        fn a_flipped_bit_ends_the_recovery_at_its_line(
            records in prop::collection::vec(record(), 1..8),
            at in any::<prop::sample::Index>(),
            bit in 0..8_u8,
        ) {
            let mut bytes: Vec<u8> = records.iter().flat_map(encode).collect();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            let (recovered, _) = decode(&bytes);
            prop_assert!(recovered.len() <= records.len());
            prop_assert_eq!(&recovered[..], &records[..recovered.len()]);
        }

        #[test]
        fn no_bytes_make_the_recovery_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let (_, read) = decode(&bytes);
            prop_assert!(read <= bytes.len());
        }
    }

    #[test]
    fn the_checksum_is_the_common_one() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
    }
}
