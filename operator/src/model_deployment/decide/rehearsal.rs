//! Rehearsals: who is asked for one, and what one is worth. Pure.

use std::collections::BTreeMap;

use base64::Engine as _;
use crds::conditions::Reason;
use crds::references::Window;

use super::handoff;
use super::steps::Rehearse;
use super::world::{Health, World};
use crate::gate::{ActionKind, Verdict};
use crate::model_deployment::observed::{Golden, GoldenSeen, Link, Live, Observed, PodSeen, Rehearsed, Start};

/// A rehearsal that failed, or did not prove the way back to DAPI, is tried again after this long.
const RETRY_MILLIS: i64 = 30_000;
/// Nonces of a rehearsal without golden artifacts.
const NONCES: i32 = 8;
/// Tokens per nonce without golden artifacts: short, so that it is over soon.
const SEQ_LEN: i32 = 16;
/// Values per artifact without golden artifacts; the network's own.
const K_DIM: i32 = 12;
/// Block hash of rehearsals without golden artifacts: of no real block.
const BLOCK_HASH: &str = "5EED5EED5EED5EED5EED5EED5EED5EED5EED5EED5EED5EED5EED5EED5EED5EED";
/// Key of rehearsals without golden artifacts: of no real account.
const PUBLIC_KEY: &str = "02feedface00112233445566778899aabbccddeeff00112233445566778899aabb";
/// Largest L2 distance without a golden ConfigMap: the network's own default.
const DISTANCE: f64 = 0.020;

/// What a pod's rehearsal is worth.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Proof {
    /// None since its engines started.
    #[default]
    Missing,
    /// It failed, or its artifacts are wrong.
    Failed(String),
    /// It ran, and there is nothing to compare it with.
    Uncompared,
    /// It ran and agrees.
    Passed,
}

impl Proof {
    /// It ran and nothing speaks against it.
    pub fn ran(&self) -> bool {
        matches!(self, Self::Passed | Self::Uncompared)
    }
}

/// What each connected pod's rehearsal is worth, by pod name.
pub fn proofs(seen: &Observed) -> BTreeMap<String, Proof> {
    let done: BTreeMap<&String, (&PodSeen, &Rehearsed)> = seen
        .pods
        .iter()
        .filter_map(|(name, pod)| {
            let live = seen.live.get(&pod.uid)?;
            // A restart of an engine voids what it proved; the pod says so.
            let void = says(live, Reason::NotRehearsed);
            let rehearsed = live
                .rehearsal
                .as_ref()
                .filter(|rehearsed| rehearsed.time_ms > 0 && !void)?;
            Some((name, (pod, rehearsed)))
        })
        .collect();
    let mut peers: BTreeMap<&str, Vec<(&String, &Rehearsed)>> = BTreeMap::new();
    for (name, (pod, rehearsed)) in done.iter().filter(|(_, (_, rehearsed))| rehearsed.error.is_empty()) {
        peers.entry(&pod.revision).or_default().push((name, rehearsed));
    }
    done.iter()
        .map(|(name, (pod, rehearsed))| {
            let others = peers.get(pod.revision.as_str()).into_iter().flatten();
            let others = others
                .filter(|(other, _)| other != name)
                .map(|(_, rehearsed)| *rehearsed);
            ((*name).clone(), proof(seen, rehearsed, others))
        })
        .collect()
}

fn proof<'a>(seen: &Observed, rehearsed: &Rehearsed, others: impl Iterator<Item = &'a Rehearsed>) -> Proof {
    if !rehearsed.error.is_empty() {
        return Proof::Failed(rehearsed.error.clone());
    }
    match &seen.golden {
        GoldenSeen::Artifacts(golden) => {
            let limit = seen
                .deployment
                .spec
                .golden
                .as_ref()
                .map_or(DISTANCE, |golden| f64::from(golden.max_distance_milli) / 1000.0);
            match distance(&rehearsed.artifacts, &golden.artifacts) {
                Some(far) if far <= limit => Proof::Passed,
                Some(far) => Proof::Failed(format!(
                    "artifacts are {far:.4} from the golden ones, {limit:.4} is allowed"
                )),
                None => Proof::Failed("no artifact has a golden one of the same nonce and length".to_owned()),
            }
        }
        GoldenSeen::None | GoldenSeen::Unusable { .. } => match nearest(rehearsed, others) {
            None => Proof::Uncompared,
            Some(near) if near <= DISTANCE => Proof::Passed,
            Some(near) => Proof::Failed(format!(
                "artifacts differ from those of every other pod, by {near:.4} at least"
            )),
        },
    }
}

/// Distance to the first that agrees, else to the nearest; absent when there is nothing to compare with. Whoever agrees
/// with one is right, so that the cost of a fleet that agrees grows with its size and not with its square.
fn nearest<'a>(rehearsed: &Rehearsed, others: impl Iterator<Item = &'a Rehearsed>) -> Option<f64> {
    let mut nearest: Option<f64> = None;
    for far in others.filter_map(|other| distance(&rehearsed.artifacts, &other.artifacts)) {
        if far <= DISTANCE {
            return Some(far);
        }
        nearest = Some(nearest.map_or(far, |near| near.min(far)));
    }
    nearest
}

/// Largest L2 distance over the nonces both have; absent when they share none.
fn distance(left: &BTreeMap<i32, String>, right: &BTreeMap<i32, String>) -> Option<f64> {
    left.iter()
        .filter_map(|(nonce, vector)| {
            let (vector, other) = (decode(vector)?, decode(right.get(nonce)?)?);
            (vector.len() == other.len() && !vector.is_empty()).then(|| {
                let square: f64 = vector.iter().zip(&other).map(|(a, b)| (a - b).powi(2)).sum();
                // A vector with a value that is no number is as far as can be.
                if square.is_nan() { f64::INFINITY } else { square.sqrt() }
            })
        })
        .reduce(f64::max)
}

/// Base64 of little-endian fp16.
fn decode(text: &str) -> Option<Vec<f64>> {
    let bytes = base64::engine::general_purpose::STANDARD.decode(text).ok()?;
    (bytes.len() % 2 == 0).then(|| {
        bytes
            .chunks_exact(2)
            .map(|pair| half::f16::from_le_bytes([pair[0], pair[1]]).to_f64())
            .collect()
    })
}

/// Pods that are asked for a rehearsal now.
pub fn wanted(world: &World<'_>, holders: &BTreeMap<String, i32>, generations: &BTreeMap<i32, i64>) -> Vec<Rehearse> {
    let exam = matches!(
        world.seen.facts.window,
        Window::Sprint | Window::Confirmation | Window::Challenge
    ) || world.exam.is_some();
    let slots_allowed = matches!(world.ask(ActionKind::Rehearsal, 0), Verdict::Allow { .. });
    world
        .seen
        .pods
        .iter()
        .filter(|(name, pod)| due(world, name, pod))
        .filter(|(name, _)| !exam && (slots_allowed || !holders.contains_key(*name)))
        .map(|(name, pod)| {
            let slot = holders.get(name).copied();
            let (round, nonces) = test_round(world.seen);
            Rehearse {
                pod: name.clone(),
                pod_uid: pod.uid.clone(),
                address: pod.address.clone(),
                slot: slot.unwrap_or(-1),
                generation: slot
                    .and_then(|slot| generations.get(&slot).copied())
                    .unwrap_or_default(),
                round,
                nonces,
            }
        })
        .collect()
}

fn due(world: &World<'_>, name: &str, pod: &PodSeen) -> bool {
    let Some(live) = world.live(pod).filter(|live| live.link == Link::Connected) else {
        return false;
    };
    let busy = live.rehearsing || live.round.as_ref().is_some_and(|round| round.active);
    let rested = live
        .rehearsal
        .as_ref()
        .is_none_or(|last| world.seen.now_ms - last.time_ms >= RETRY_MILLIS);
    let due = match world.proof(name) {
        Proof::Missing => true,
        Proof::Failed(_) => rested,
        Proof::Uncompared | Proof::Passed => {
            rested && says(live, Reason::CallbackUnproven) && !handoff::callback_base(world.seen).is_empty()
        }
    };
    due && !busy && world.health(pod) == Health::Usable && world.loaded(pod)
}

/// The pod says this keeps it from being ready.
fn says(live: &Live, reason: Reason) -> bool {
    let name: &str = reason.into();
    live.not_ready.iter().any(|said| said == name)
}

/// When rehearsals that failed, or did not prove the way back, may be tried again.
pub fn repeats(world: &World<'_>) -> impl Iterator<Item = i64> {
    let open = world.seen.pods.iter().filter(|(name, pod)| is_open(world, name, pod));
    let live = open.filter_map(|(_, pod)| world.live(pod)?.rehearsal.as_ref());
    live.map(|rehearsed| rehearsed.time_ms + RETRY_MILLIS)
}

fn is_open(world: &World<'_>, name: &str, pod: &PodSeen) -> bool {
    matches!(world.proof(name), Proof::Failed(_))
        || world.live(pod).is_some_and(|live| says(live, Reason::CallbackUnproven))
}

/// True when the clock alone will make a rehearsal due.
pub fn pending(world: &World<'_>) -> bool {
    world.seen.pods.iter().any(|(name, pod)| is_open(world, name, pod))
}

/// The round of a rehearsal and its nonces: golden ones where they are, else fixed ones.
fn test_round(seen: &Observed) -> (Start, Vec<i32>) {
    let spec = &seen.deployment.spec;
    let scheme = spec
        .engine
        .native
        .as_ref()
        .map(|native| native.scheme.clone())
        .unwrap_or_default();
    let fixed = Golden {
        block_hash: BLOCK_HASH.to_owned(),
        public_key: PUBLIC_KEY.to_owned(),
        seq_len: SEQ_LEN,
        k_dim: K_DIM,
        stronger_rng: false,
        artifacts: (0..NONCES).map(|nonce| (nonce, String::new())).collect(),
    };
    let golden = match &seen.golden {
        GoldenSeen::Artifacts(golden) => golden,
        GoldenSeen::None | GoldenSeen::Unusable { .. } => &fixed,
    };
    let start = Start {
        height: 0,
        seed: golden.block_hash.clone(),
        public_key: golden.public_key.clone(),
        node_num: 0,
        node_count: 1,
        model: spec.model.id.clone(),
        seq_len: golden.seq_len,
        k_dim: golden.k_dim,
        batch_size: u32::try_from(NONCES).unwrap_or(8),
        stronger_rng: golden.stronger_rng,
        callback_url: handoff::callback_url(seen),
        scheme,
    };
    (start, golden.artifacts.keys().copied().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(values: &[f32]) -> String {
        let bytes: Vec<u8> = values
            .iter()
            .flat_map(|value| half::f16::from_f32(*value).to_le_bytes())
            .collect();
        base64::engine::general_purpose::STANDARD.encode(bytes)
    }

    fn one(values: &[f32]) -> BTreeMap<i32, String> {
        BTreeMap::from([(3, encoded(values))])
    }

    #[test]
    fn distance_is_the_largest_over_shared_nonces() {
        let far = distance(&one(&[0.5, 0.25]), &one(&[0.5, 0.75])).expect("both have nonce 3");
        assert!((far - 0.5).abs() < 1e-6, "{far}");
        assert_eq!(distance(&one(&[1.0]), &BTreeMap::from([(4, encoded(&[1.0]))])), None);
    }

    #[test]
    fn a_vector_with_nan_is_infinitely_far_and_a_broken_one_is_not_compared() {
        assert_eq!(distance(&one(&[f32::NAN]), &one(&[0.0])), Some(f64::INFINITY));
        assert_eq!(distance(&BTreeMap::from([(3, "%%".to_owned())]), &one(&[0.0])), None);
        assert_eq!(distance(&one(&[0.0, 1.0]), &one(&[0.0])), None);
    }
}
