//! `v1_model_mainnet.json`: the main network's model of 17.8 billion parameters. Its pool is streamed, never held, to check
//! its digest, the place of every tensor and the tensors' digests; only [`Effort::Large`] holds it and computes.

use super::{
    Effort, Problem,
    array::{Array, Element},
    item::Item,
    tally::Tally,
    v1_model::{Case, DISTANCE, compare_logits},
    v1_rng::bytes,
};
use crate::cuda::{self, Device};
use crate::transformer_v1::{self as v1, Params, Placement, Pool, TensorSpec, rope};
use half::f16;
use sha2::{Digest, Sha256};
use std::{collections::HashMap, num::NonZero, ops::Range, sync::Arc};

/// Largest pool that is streamed: the main network's, with room.
const MAX_POOL: u64 = 1 << 30;
/// Largest difference of a state's elements: three half-precision steps at the size of its largest elements, and far less
/// than what the layers add.
const STATE: f64 = 6e-3;
/// Largest part of what the layers add that two orders of summation may differ by; 0.01 is seen, and one layer of 64 left out
/// would make about an eighth, were the layers' contributions independent.
const INCREMENT: f64 = 0.05;

pub(super) fn check(root: &Item<'_>, effort: Effort, tally: &mut Tally) -> Result<(), Problem> {
    let case = Case::read(root, tally)?;
    if case.params.pool_len() > MAX_POOL {
        return Err(root.field("params")?.problem("make a pool too large to be checked"));
    }
    tally.section(root, "freqs_cis_f16_rows0_1_255", |item, tally| {
        frequencies(item, &case.params, tally)
    });
    inputs(&root.field("inputs_f16_sha256_per_nonce")?, &case, tally)?;
    pool_and_tensors(root, &case, tally)?;
    if effort == Effort::Standard {
        tally.leave_out(format!(
            "the forward pass through {} layers: states after layers, logits, distances",
            case.params.n_layers
        ));
        return Ok(());
    }
    forward(root, &case, tally)
}

fn frequencies(item: &Item<'_>, params: &Params, tally: &mut Tally) -> Result<(), Problem> {
    let table = rope(params, params.seq_len);
    let pairs = params.head_dim() / 2;
    let found: Vec<f16> = [0, 1, 255]
        .into_iter()
        .filter_map(|row| table.get(row * pairs..(row + 1) * pairs))
        .flatten()
        .flat_map(|(cos, sin)| [f16::from_f32(*cos), f16::from_f32(*sin)])
        .collect();
    Array::read(item, tally)?.compare_exact(Element::F16, &bytes(&found, |x| x.to_le_bytes()), tally)
}

fn inputs(item: &Item<'_>, case: &Case<'_>, tally: &mut Tally) -> Result<(), Problem> {
    let published = item.items()?;
    tally.equal(item, &case.nonces.len(), &published.len());
    let mut input = vec![f16::ZERO; case.params.seq_len * case.params.dim];
    for (item, &nonce) in published.iter().zip(&case.nonces) {
        v1::input(case.block_hash, case.public_key, nonce, &mut input);
        let mut hash = Sha256::new();
        v1::digest_halves(&mut hash, &input);
        tally.equal(item, &hex::encode(hash.finalize()).as_str(), &item.text()?);
    }
    Ok(())
}

/// A stretch of the pool with what is published about it.
struct Window<'a> {
    item: Item<'a>,
    range: Range<usize>,
    hash: Option<Sha256>,
    first: Vec<f16>,
    last: Vec<f16>,
}

/// Elements kept of a window's ends.
const ENDS: usize = 64;

impl<'a> Window<'a> {
    fn new(item: Item<'a>, range: Range<usize>) -> Self {
        Self {
            hash: item.optional("sha256_le").map(|_| Sha256::new()),
            item,
            range,
            first: Vec::new(),
            last: Vec::new(),
        }
    }

    fn see(&mut self, at: usize, part: &[f16]) {
        let (start, end) = (self.range.start.max(at), self.range.end.min(at + part.len()));
        if start >= end {
            return;
        }
        let seen = &part[start - at..end - at];
        if let Some(hash) = &mut self.hash {
            v1::digest_halves(hash, seen);
        }
        let missing = ENDS.saturating_sub(self.first.len()).min(seen.len());
        self.first.extend_from_slice(&seen[..missing]);
        self.last.extend_from_slice(&seen[seen.len().saturating_sub(ENDS)..]);
        self.last.drain(..self.last.len().saturating_sub(ENDS));
    }

    fn judge(self, tally: &mut Tally) -> Result<(), Problem> {
        let Self {
            item,
            hash,
            first,
            last,
            ..
        } = self;
        if let Some(hash) = hash {
            let digest = item.field("sha256_le")?;
            tally.equal(&digest, &hex::encode(hash.finalize()).as_str(), &digest.text()?);
        }
        for (name, found, from_end) in [
            ("first_hex_le", &first, false),
            ("first4_hex_le", &first, false),
            ("last_hex_le", &last, true),
        ] {
            let Some(item) = item.optional(name) else { continue };
            let published = item.hex()?;
            let count = (published.len() / 2).min(found.len());
            let shown = if from_end {
                &found[found.len() - count..]
            } else {
                &found[..count]
            };
            tally.equal(
                &item,
                &hex::encode(bytes(shown, |x| x.to_le_bytes())),
                &hex::encode(published),
            );
        }
        Ok(())
    }
}

fn pool_and_tensors(root: &Item<'_>, case: &Case<'_>, tally: &mut Tally) -> Result<(), Problem> {
    let len = case.params.pool_len() as usize;
    let pool = root.field("pool_f16")?;
    let shape = pool.field("shape")?;
    tally.equal(&shape, &vec![len as i64], &shape.list(Item::integer)?);
    let mut windows = vec![Window::new(pool, 0..len)];
    let list = root.field("tensors")?;
    let specs: HashMap<String, TensorSpec> = case
        .params
        .tensors()
        .into_iter()
        .map(|spec| (spec.name.clone(), spec))
        .collect();
    let published = list.items()?;
    tally.equal(&list, &specs.len(), &published.len());
    for item in published {
        let name = item.field("name")?;
        let spec = specs
            .get(name.text()?)
            .ok_or_else(|| name.problem("is no tensor of this model"))?;
        let found: Vec<i64> = spec.shape.iter().map(|&size| size as i64).collect();
        tally.equal(&item, &found, &item.field("shape")?.list(Item::integer)?);
        let Placement::Slice { start } = Placement::of(case.block_hash, spec, len) else {
            return Err(item.problem("is larger than the pool: not the main network's model"));
        };
        tally.equal(&item.field("start")?, &(start as i64), &item.field("start")?.integer()?);
        windows.push(Window::new(item, start..start + spec.len() as usize));
    }
    v1::stream(case.block_hash, len, |at, part| {
        for window in &mut windows {
            window.see(at, part);
        }
    });
    windows.into_iter().try_for_each(|window| window.judge(tally))
}

fn forward(root: &Item<'_>, case: &Case<'_>, tally: &mut Tally) -> Result<(), Problem> {
    let layers = watched(root)?;
    let pool = Arc::new(Pool::new(case.block_hash, case.params.pool_len() as usize));
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    let output = case.run(&pool, threads, &layers);
    judge(root, case, &output, tally)
}

/// As the forward pass of [`check`], on a device.
pub(super) fn check_on(
    root: &Item<'_>,
    open: &dyn Fn() -> Result<Box<dyn Device>, cuda::Error>,
    tally: &mut Tally,
) -> Result<(), Problem> {
    let case = Case::read(root, tally)?;
    if case.params.pool_len() > MAX_POOL {
        return Err(root.field("params")?.problem("make a pool too large to be checked"));
    }
    let pool = Pool::new(case.block_hash, case.params.pool_len() as usize);
    let layers = watched(root)?;
    let output = open()
        .and_then(|device| case.run_on(device, &pool, &layers))
        .map_err(|error| root.problem(error.to_string()))?;
    judge(root, &case, &output, tally)
}

/// Layers whose last tokens' states are published.
fn watched(root: &Item<'_>) -> Result<Vec<usize>, Problem> {
    let states = root.field("hidden_last_token_after_layer")?.fields()?;
    Ok(states.iter().filter_map(|(layer, _)| layer.parse().ok()).collect())
}

/// States after layers, logits and distances.
fn judge(root: &Item<'_>, case: &Case<'_>, output: &v1::Output, tally: &mut Tally) -> Result<(), Problem> {
    let states = root.field("hidden_last_token_after_layer")?.fields()?;
    let (dim, len) = (case.params.dim, case.params.seq_len * case.params.dim);
    let mut apart = 0.0_f64;
    for ((_, list), found) in states.iter().zip(&output.last_states) {
        let published = list.items()?;
        tally.equal(list, &case.nonces.len(), &published.len());
        for ((item, &nonce), found) in published.iter().zip(&case.nonces).zip(found.chunks_exact(dim)) {
            let input = v1::inputs(case.block_hash, case.public_key, &[nonce], len);
            apart = apart.max(state(item, &input[len - dim..], found, tally)?);
        }
    }
    tally.note(format!(
        "what the layers added differs by at most {:.1} %",
        100.0 * apart
    ));
    compare_logits(&root.field("last_token_logits")?, &output.logits, tally)?;
    let first = root.field("last_token_logits_first32_per_nonce")?;
    let size = output.logits.iter().map(|x| f64::from(x * x)).sum::<f64>() / output.logits.len() as f64;
    for (row, logits) in first
        .items()?
        .iter()
        .zip(output.logits.chunks_exact(case.params.vocab_size))
    {
        let published = row.list(|x| Ok(x.number()? as f32))?;
        let found = &logits[..published.len().min(logits.len())];
        tally.close(row, found, &published, super::v1_model::LOGITS * size.sqrt());
    }
    let distances: Vec<f64> = case
        .distances(&output.logits)
        .into_iter()
        .map(|(_, distance)| distance)
        .collect();
    let item = root.field("distances")?;
    tally.close_doubles(&item, &distances, &item.list(Item::number)?, DISTANCE);
    Ok(())
}

/// A last token's state: close by itself, and what the layers added to the input close as a whole, because the input
/// dwarfs it. Returns the latter.
fn state(item: &Item<'_>, input: &[f32], found: &[f32], tally: &mut Tally) -> Result<f64, Problem> {
    let array = Array::read(item, tally)?;
    let published = array.published();
    let ends = published.len() / 2;
    let shown = |values: &[f32]| -> Vec<f64> {
        let (head, tail) = (&values[..ends], &values[values.len() - ends..]);
        head.iter().chain(tail).map(|&x| f64::from(x)).collect()
    };
    if published.len() > found.len() || !published.len().is_multiple_of(2) {
        return Err(item.problem("does not publish both ends of a state"));
    }
    let (input, shown) = (shown(input), shown(found));
    tally.close_doubles(item, &shown, &published, STATE);
    let length =
        |pairs: &mut dyn Iterator<Item = (&f64, &f64)>| pairs.map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt();
    let added = length(&mut published.iter().zip(&input));
    let apart = length(&mut shown.iter().zip(&published));
    tally.that(item, apart <= INCREMENT * added, || {
        format!(
            "what the layers added differs by {:.0} %, {:.0} % allowed",
            100.0 * apart / added,
            100.0 * INCREMENT
        )
    });
    let halves: Vec<f16> = found.iter().map(|&x| f16::from_f32(x)).collect();
    tally.informative_digest(array.has_digest(&Sha256::digest(bytes(&halves, |x| x.to_le_bytes()))));
    Ok(apart / added)
}
