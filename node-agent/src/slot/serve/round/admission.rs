//! Decide: what a request to generate meets. Pure.

use super::{Round, enumeration};
use crate::slot::serve::request::RoundRequest;
use proto::v1::StartRequest;
use serde_json::Value;

/// What is known when it comes.
#[derive(Debug, Clone, Copy)]
pub struct Situation<'a> {
    /// The newest round, running or over.
    pub newest: Option<&'a Round>,
    /// The model this slot serves.
    pub model: &'a str,
    /// The scheme its engines compute.
    pub scheme: &'a str,
    /// Engines with the model loaded.
    pub ready: usize,
    /// Replica groups of this slot.
    pub groups: u32,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    /// Begin at these indices.
    Start(Vec<u64>),
    /// The same round runs: 200 with the first answer's body (none: it was lost with a restart). Upstream says 409
    /// here, which marks the node FAILED; the divergence is deliberate.
    Repeat(Option<Value>),
    /// Another round runs: 409.
    Conflict,
    /// Another model is served: 409.
    WrongModel,
    /// No engine is ready: 503; DAPI asks again with the next block.
    NoBackend,
}

/// Decides.
pub fn decide(request: &RoundRequest, situation: &Situation<'_>) -> Admission {
    let same = situation.newest.filter(|round| round.request.key() == request.key());
    match situation.newest {
        Some(active) if active.is_active() => {
            return same.map_or(Admission::Conflict, |round| Admission::Repeat(round.answer.clone()));
        }
        _ => {}
    }
    if request.model != situation.model || request.scheme != situation.scheme {
        return Admission::WrongModel;
    }
    if situation.ready == 0 {
        return Admission::NoBackend;
    }
    // The same exam once more, after a stop: what was delivered need not be computed again.
    let resume = (0..situation.groups)
        .map(|group| same.map_or(0, |round| round.resume_from(group)))
        .collect();
    Admission::Start(resume)
}

/// A round the operator hands over; the words say what is wrong with it.
pub fn from_operator(request: StartRequest) -> Result<RoundRequest, String> {
    let request = RoundRequest::from(request);
    check(&request)?;
    Ok(request)
}

/// Whether a round can be computed at all.
pub fn check(request: &RoundRequest) -> Result<(), String> {
    if request.seed.is_empty() || request.public_key.is_empty() {
        return Err("block_hash and public_key must not be empty".to_owned());
    }
    if request.seq_len < 1 || request.seq_len as usize > kernels::scheme::MAX_SEQ_LEN {
        return Err(format!(
            "seq_len is {}: it must lie between 1 and {}",
            request.seq_len,
            kernels::scheme::MAX_SEQ_LEN
        ));
    }
    if request.k_dim < 1 {
        return Err(format!("k_dim is {}: it must be at least 1", request.k_dim));
    }
    enumeration(request, 0, 1).map_err(|error| error.to_string())?;
    Ok(())
}

/// Where each group begins; groups that are not named begin at the bottom.
pub fn resume_indices(groups: u32, named: impl Iterator<Item = (u32, u64)>) -> Vec<u64> {
    let mut indices = vec![0; groups as usize];
    for (group, next) in named {
        if let Some(index) = indices.get_mut(group as usize) {
            *index = next;
        }
    }
    indices
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slot::serve::{
        journal::record::{End, Record},
        round::tests::request,
    };

    fn round(ended: bool) -> Round {
        let mut records = vec![
            Record::Started {
                request: request(),
                at: 1_000,
                groups: 2,
                resume: vec![0, 0],
            },
            Record::Answered {
                body: serde_json::json!({"first": true}),
            },
            Record::Batch {
                at: 1_100,
                group: 1,
                next: 7,
                count: 0,
                artifacts: Vec::new(),
            },
        ];
        if ended {
            records.push(Record::Ended {
                at: 2_000,
                end: End::Stopped,
            });
        }
        Round::replay(&records).unwrap()
    }

    fn situation(newest: Option<&Round>, ready: usize) -> Situation<'_> {
        Situation {
            newest,
            model: "gonka-fleet/tiny",
            scheme: "prefill_v2",
            ready,
            groups: 2,
        }
    }

    #[test]
    fn an_idle_slot_starts_at_the_bottom() {
        assert_eq!(decide(&request(), &situation(None, 2)), Admission::Start(vec![0, 0]));
        assert_eq!(decide(&request(), &situation(None, 1)), Admission::Start(vec![0, 0]));
    }

    #[test]
    fn the_same_request_while_active_is_answered_as_the_first_time() {
        let active = round(false);
        let first = Admission::Repeat(Some(serde_json::json!({"first": true})));
        assert_eq!(decide(&request(), &situation(Some(&active), 2)), first);
        assert_eq!(
            decide(&request(), &situation(Some(&active), 0)),
            first,
            "also while engines reload"
        );
        let other_url = RoundRequest {
            callback_url: "http://other".into(),
            ..request()
        };
        assert_eq!(
            decide(&other_url, &situation(Some(&active), 2)),
            first,
            "height, seed and node make the round"
        );
    }

    #[test]
    fn another_round_while_one_is_active_is_a_conflict() {
        let active = round(false);
        for other in [
            RoundRequest {
                height: 146,
                ..request()
            },
            RoundRequest {
                seed: "052955f4".into(),
                ..request()
            },
            RoundRequest {
                node_num: 2,
                ..request()
            },
        ] {
            assert_eq!(decide(&other, &situation(Some(&active), 2)), Admission::Conflict);
        }
    }

    #[test]
    fn after_a_stop_the_same_exam_goes_on_and_another_starts_anew() {
        let over = round(true);
        assert_eq!(
            decide(&request(), &situation(Some(&over), 2)),
            Admission::Start(vec![0, 7])
        );
        let next = RoundRequest {
            height: 245,
            ..request()
        };
        assert_eq!(decide(&next, &situation(Some(&over), 2)), Admission::Start(vec![0, 0]));
    }

    #[test]
    fn what_cannot_be_computed_is_refused() {
        let other = RoundRequest {
            model: "org/other".into(),
            ..request()
        };
        assert_eq!(decide(&other, &situation(None, 2)), Admission::WrongModel);
        let decode = RoundRequest {
            scheme: "decode_v3".into(),
            ..request()
        };
        assert_eq!(decide(&decode, &situation(None, 2)), Admission::WrongModel);
        assert_eq!(decide(&request(), &situation(None, 0)), Admission::NoBackend);
    }

    #[test]
    fn a_round_that_cannot_be_computed_is_named() {
        assert_eq!(check(&request()), Ok(()));
        for (broken, word) in [
            (
                RoundRequest {
                    seed: String::new(),
                    ..request()
                },
                "block_hash",
            ),
            (
                RoundRequest {
                    seq_len: 0,
                    ..request()
                },
                "seq_len",
            ),
            (RoundRequest { k_dim: -1, ..request() }, "k_dim"),
            (
                RoundRequest {
                    node_count: 0,
                    ..request()
                },
                "node_count",
            ),
            (
                RoundRequest {
                    node_num: -1,
                    ..request()
                },
                "node_id",
            ),
        ] {
            assert!(check(&broken).unwrap_err().contains(word), "{broken:?}");
        }
    }

    #[test]
    fn groups_the_operator_does_not_name_begin_at_the_bottom() {
        let indices = resume_indices(3, [(1, 40), (7, 9)].into_iter());
        assert_eq!(indices, [0, 40, 0]);
    }
}
