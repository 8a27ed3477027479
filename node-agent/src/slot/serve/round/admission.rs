//! Decide: what a request to generate meets. Pure.

use super::{Round, enumeration};
use crate::slot::serve::request::RoundRequest;
use proto::v1::StartRequest;
use serde_json::Value;

/// What is known when it comes.
#[derive(Debug, Clone, Copy)]
pub struct Situation<'a> {
    /// Number DAPI gave the node of the slot held, 0 = not known; none: no slot is held.
    pub node_num: Option<i32>,
    /// It was turned away as meant for another node, and comes again though every way has been mended since.
    pub insisted: bool,
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
    /// Begin at these indices; a round under way ends.
    Start(Vec<u64>),
    /// The same round runs: 200 with the first answer's body (none: it was lost with a restart). Upstream says 409
    /// here, which marks the node FAILED; the divergence is deliberate.
    Repeat(Option<Value>),
    /// Another round runs, and this one is no newer: 409.
    Conflict,
    /// Another model is served: 409.
    WrongModel,
    /// No engine is ready: 503; DAPI asks again with the next block.
    NoBackend,
    /// The slot was taken away a moment ago: 503, as at any closed door.
    NoSlot,
    /// Meant for the node of this number, not ours: 503. Addresses are given away, and the way to the right pod is mended
    /// before DAPI asks again.
    OtherNode(i32),
}

/// Decides.
pub fn decide(request: &RoundRequest, situation: &Situation<'_>) -> Admission {
    let Some(node_num) = situation.node_num else {
        return Admission::NoSlot;
    };
    let is_ours = |request: &RoundRequest| node_num == 0 || request.node_num == node_num;
    let same = situation.newest.filter(|round| round.request.key() == request.key());
    let active = situation.newest.filter(|round| round.is_active());
    if let (Some(_), Some(same)) = (active, same) {
        return Admission::Repeat(same.answer.clone());
    }
    let ours_runs = active.is_some_and(|round| is_ours(&round.request));
    if !is_ours(request) && (ours_runs || !situation.insisted) {
        return Admission::OtherNode(node_num);
    }
    if let Some(active) = active
        && !goes_before(request, active)
        && (ours_runs || !is_ours(request))
    {
        return Admission::Conflict;
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

/// Whether DAPI's start ends the round under way. Exams never overlap: a newer one says that the older is over, though its
/// `stop` was lost. Of one exam, what DAPI asked for itself stands, and goes before what the operator handed over.
fn goes_before(request: &RoundRequest, active: &Round) -> bool {
    request.height > active.request.height || (request.height == active.request.height && active.answer.is_none())
}

/// Whether the round under way goes on when the operator hands another over: it is the same, newer, or DAPI's own word.
pub fn outlasts(active: &Round, handed: &RoundRequest) -> bool {
    let ours = &active.request;
    ours.key() == handed.key()
        || (ours.node_num == handed.node_num
            && (ours.height > handed.height || (ours.height == handed.height && active.answer.is_some())))
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
            node_num: Some(1),
            insisted: false,
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

    fn at(height: i64) -> RoundRequest {
        RoundRequest { height, ..request() }
    }

    #[test]
    fn a_newer_exam_ends_one_that_was_never_stopped_and_an_older_does_not() {
        let active = round(false);
        let bottom = Admission::Start(vec![0, 0]);
        assert_eq!(decide(&at(146), &situation(Some(&active), 2)), bottom);
        assert_eq!(decide(&at(144), &situation(Some(&active), 2)), Admission::Conflict);
        assert_eq!(
            decide(&at(146), &situation(Some(&active), 0)),
            Admission::NoBackend,
            "what runs goes on until the newer can"
        );
        let other_model = RoundRequest {
            model: "org/other".into(),
            ..at(146)
        };
        assert_eq!(
            decide(&other_model, &situation(Some(&active), 2)),
            Admission::WrongModel
        );
    }

    #[test]
    fn of_one_exam_what_dapi_asked_first_stands_and_goes_before_what_the_operator_handed_over() {
        let lower = RoundRequest {
            seed: "052955f4".into(),
            ..request()
        };
        let asked = round(false);
        assert_eq!(decide(&lower, &situation(Some(&asked), 2)), Admission::Conflict);
        let mut handed = round(false);
        handed.answer = None;
        assert_eq!(
            decide(&lower, &situation(Some(&handed), 2)),
            Admission::Start(vec![0, 0])
        );
        assert_eq!(
            decide(&request(), &situation(Some(&handed), 2)),
            Admission::Repeat(None)
        );
        assert!(outlasts(&asked, &lower) && !outlasts(&handed, &lower));
        assert!(outlasts(&handed, &request()) && outlasts(&handed, &at(144)) && !outlasts(&asked, &at(146)));
    }

    #[test]
    fn a_start_for_another_node_is_turned_away_until_it_is_insisted_on_and_never_takes_our_place() {
        let other = RoundRequest { node_num: 2, ..at(146) };
        let (idle, active) = (situation(None, 2), round(false));
        let running = situation(Some(&active), 2);
        assert_eq!(decide(&other, &idle), Admission::OtherNode(1));
        let insisted = |situation| Situation {
            insisted: true,
            ..situation
        };
        assert_eq!(decide(&other, &insisted(idle)), Admission::Start(vec![0, 0]));
        assert_eq!(decide(&other, &insisted(running)), Admission::OtherNode(1));
        let unknown = Situation {
            node_num: Some(0),
            ..idle
        };
        assert_eq!(decide(&other, &unknown), Admission::Start(vec![0, 0]));
        // Ours comes, whatever its height, while the other's is computed.
        let held_by_2 = Situation {
            node_num: Some(2),
            ..running
        };
        let ours = RoundRequest {
            node_num: 2,
            ..request()
        };
        assert_eq!(decide(&ours, &held_by_2), Admission::Start(vec![0, 0]));
    }

    #[test]
    fn a_pod_without_a_slot_starts_nothing() {
        let none = Situation {
            node_num: None,
            ..situation(None, 2)
        };
        assert_eq!(decide(&request(), &none), Admission::NoSlot);
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
