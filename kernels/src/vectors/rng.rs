//! `v2_rng.json`: seeds, hashes, normals, inputs, reflections, picks, rotation, artifacts from given hidden states.

use super::{
    Problem,
    array::{Array, bf16_bits, widen_bf16},
    item::Item,
    tally::{NORMAL, Tally},
};
use crate::{
    artifact,
    decoder::{Bf16, Dtype, F32},
    householder, pick, prefill_v2, rng, rotation,
    scheme::Round,
    seed,
};

const MAX_DIM: usize = 1 << 16;
const MAX_SEQ_LEN: usize = 1 << 14;
const MAX_K: usize = 1 << 10;

/// What the entries of a set have in common.
struct Set<'a> {
    block_hash: &'a str,
    public_key: &'a str,
    nonces: Vec<i64>,
}

pub(super) fn check(root: &Item<'_>, tally: &mut Tally) {
    tally.each(root, "sets", |item, tally| {
        let set = Set {
            block_hash: item.field("block_hash")?.text()?,
            public_key: item.field("public_key")?.text()?,
            nonces: item.field("nonces")?.list(Item::integer)?,
        };
        tally.each(item, "seeds_from_string", seeds);
        tally.section(item, "murmur3_32", murmur);
        let result = generators(item, tally);
        tally.absorb(result);
        tally.each(item, "inputs", |item, tally| set.inputs(item, tally));
        tally.each(item, "inputs_fullsize", |item, tally| set.inputs_fullsize(item, tally));
        tally.each(item, "householder_vectors", |item, tally| {
            set.householder_vectors(item, tally)
        });
        tally.section(item, "apply_householder", |item, tally| {
            set.apply_householder(item, tally)
        });
        tally.each(item, "pick_indices", |item, tally| set.pick_indices(item, tally));
        tally.section(item, "haar_rotation", |item, tally| set.haar_rotation(item, tally));
        tally.each(item, "postprocess_last_hidden_to_artifact", |item, tally| {
            set.postprocess(item, tally)
        });
        tally.each(item, "pseudo_input_ids", |item, tally| {
            set.pseudo_input_ids(item, tally)
        });
        tally.section(item, "target_vector_unused_in_production", |item, tally| {
            set.target(item, tally)
        });
        Ok(())
    });
    tally.section(root, "pseudo_ids_frozen_doc_vectors", frozen_ids);
}

fn seeds(entry: &Item<'_>, tally: &mut Tally) -> Result<(), Problem> {
    let seed = entry.field("seed_u32")?;
    tally.equal(
        &seed,
        &seed::seed_from_string(entry.field("string")?.text()?),
        &seed.u32()?,
    );
    Ok(())
}

fn murmur(section: &Item<'_>, tally: &mut Tally) -> Result<(), Problem> {
    let seed = section.field("seed_u32")?.u32()?;
    for (keys, hashes) in [("keys", "hash_u32"), ("keys_sparse", "hash_sparse")] {
        let (keys, hashes) = (section.field(keys)?.list(Item::u32)?, section.field(hashes)?);
        let found: Vec<u32> = keys.iter().map(|&key| rng::hash32(key, seed)).collect();
        tally.equal(&hashes, &found, &hashes.list(Item::u32)?);
    }
    Ok(())
}

/// Uniforms and normals of the first seed string's seed, whatever their counts.
fn generators(set: &Item<'_>, tally: &mut Tally) -> Result<(), Problem> {
    let first = set.field("seeds_from_string")?.items()?;
    let Some(first) = first.first() else { return Ok(()) };
    let seed = seed::seed_from_string(first.field("string")?.text()?);
    for (name, item) in set.fields()? {
        if name.starts_with("uniform_f32_n") {
            let array = Array::read(&item, tally)?;
            let count: usize = array.shape().iter().product();
            let found: Vec<f32> = (0..count as u32).map(|index| rng::uniform(seed, index)).collect();
            array.compare_floats(&found, 0.0, tally)?;
        } else if name.starts_with("normal_f32_n") {
            let array = Array::read(&item, tally)?;
            array.compare_floats(&rng::normal(seed, array.shape().iter().product()), NORMAL, tally)?;
        } else if name.starts_with("batched_normal_f32_") {
            let array = Array::read(&item, tally)?;
            let (rows, columns) = array.rows_columns()?;
            let row = |row: usize| rng::normal(seed.wrapping_add(row as u32), columns);
            array.compare_floats(&(0..rows).flat_map(row).collect::<Vec<_>>(), NORMAL, tally)?;
        }
    }
    Ok(())
}

impl Set<'_> {
    fn round(&self, seq_len: usize, stronger_rng: bool) -> Round {
        let (block_hash, public_key) = (self.block_hash.to_owned(), self.public_key.to_owned());
        Round {
            block_hash,
            public_key,
            seq_len,
            k_dim: 1,
            stronger_rng,
        }
    }

    fn input(&self, nonce: i64, seq_len: usize, dim: usize, stronger_rng: bool) -> Vec<f32> {
        let mut out = vec![0.0; seq_len * dim];
        prefill_v2::fill_input(&self.round(seq_len, stronger_rng), nonce, &mut out);
        out
    }

    fn inputs(&self, entry: &Item<'_>, tally: &mut Tally) -> Result<(), Problem> {
        let nonce = entry.field("nonce")?.integer()?;
        for (name, item) in entry.fields()? {
            let Some(stronger_rng) = generator(name) else { continue };
            let array = Array::read(&item, tally)?;
            let (seq_len, dim) = array.rows_columns()?;
            let found = self.input(nonce, seq_len, dim, stronger_rng);
            if name.contains("bf16") {
                array.compare_bf16(&bf16_bits(&found), tally)?;
            } else {
                array.compare_floats(&found, NORMAL, tally)?;
            }
        }
        Ok(())
    }

    fn inputs_fullsize(&self, entry: &Item<'_>, tally: &mut Tally) -> Result<(), Problem> {
        let scheme = entry.field("scheme")?;
        let stronger_rng = generator(scheme.text()?).ok_or_else(|| scheme.problem("is not a known input scheme"))?;
        let (seq_len, dim) = (
            entry.field("seq_len")?.size(MAX_SEQ_LEN)?,
            entry.field("dim")?.size(MAX_DIM)?,
        );
        let nonce = entry.field("nonce")?.integer()?;
        let (f32, bf16) = (
            Array::read(&entry.field("f32")?, tally)?,
            Array::read(&entry.field("bf16_bits_u16")?, tally)?,
        );
        if *f32.shape() != [seq_len, dim] {
            return Err(entry.problem(format!("shape {:?} is not {seq_len} x {dim}", f32.shape())));
        }
        let found = self.input(nonce, seq_len, dim, stronger_rng);
        f32.compare_floats(&found, NORMAL, tally)?;
        bf16.compare_bf16(&bf16_bits(&found), tally)?;
        let count = found.len() as f64;
        let mean = found.iter().copied().map(f64::from).sum::<f64>() / count;
        let std = (found.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / count).sqrt();
        for (name, computed, tolerance) in [
            ("mean_f64", mean, NORMAL),
            ("std_f64", std, NORMAL),
            ("sum_f64", mean * count, NORMAL * count),
        ] {
            let Some(item) = entry.optional(name) else { continue };
            let published = item.number()?;
            tally.that(&item, (computed - published).abs() <= tolerance, || {
                format!("published {published}, computed {computed}")
            });
        }
        Ok(())
    }

    fn householder_vectors(&self, entry: &Item<'_>, tally: &mut Tally) -> Result<(), Problem> {
        let (layer, dim) = (
            entry.field("layer")?.u32()? as usize,
            entry.field("dim")?.size(MAX_DIM)?,
        );
        let seed_string = entry.field("seed_string")?;
        let text = seed::layer(self.block_hash, layer);
        tally.equal(&seed_string, &text.as_str(), &seed_string.text()?);
        let unit = Array::read(&entry.field("unit_vector_f32")?, tally)?;
        unit.compare_floats(
            &householder::reflection_vector(self.block_hash, layer, dim),
            NORMAL,
            tally,
        )?;
        let norm = entry.field("raw_normal_norm_f32")?;
        let found = householder::norm(&rng::normal(seed::seed_from_string(&text), dim));
        let published = norm.number()?;
        tally.that(
            &norm,
            (f64::from(found) - published).abs() <= NORMAL * published.abs(),
            || format!("published {published}, computed {found}"),
        );
        Ok(())
    }

    fn apply_householder(&self, section: &Item<'_>, tally: &mut Tally) -> Result<(), Problem> {
        let array = |name: &str, tally: &mut Tally| Array::read(&section.field(name)?, tally);
        let (x, y) = (array("x_f32", tally)?, array("y_f32", tally)?);
        let (_, dim) = x.rows_columns()?;
        let seed = seed::seed_from_string(&format!("{}_apply_test", self.block_hash));
        let mut rows = rng::normal(seed, x.shape().iter().product());
        x.compare_floats(&rows, NORMAL, tally)?;
        let v = householder::reflection_vector(self.block_hash, 0, dim);
        householder::reflect::<F32>(&mut rows, &v);
        // The dot product of 64 numbers, each within the tolerance, is within a few times it.
        y.compare_floats(&rows, 4.0 * NORMAL, tally)?;

        let (x, v, y) = (
            array("x_bf16_bits", tally)?,
            array("v_bf16_bits", tally)?,
            array("y_bf16_bits", tally)?,
        );
        x.compare_bf16(&bf16_bits(&rng::normal(seed, x.shape().iter().product())), tally)?;
        v.compare_bf16(
            &bf16_bits(&householder::reflection_vector(self.block_hash, 0, dim)),
            tally,
        )?;
        let (mut rows, v) = (widen_bf16(&x.bits()?), widen_bf16(&v.bits()?));
        householder::reflect::<Bf16>(&mut rows, &v);
        y.compare_bf16(&bf16_bits(&rows), tally)
    }

    fn pick_indices(&self, entry: &Item<'_>, tally: &mut Tally) -> Result<(), Problem> {
        let nonce = entry.field("nonce")?.integer()?;
        let (dim, k) = (entry.field("dim")?.size(MAX_DIM)?, entry.field("k")?.size(MAX_K)?);
        let seed = seed::seed_from_string(&seed::pick(self.block_hash, self.public_key, nonce, k));
        let scored = pick::by_score(seed, dim, k);
        let order = entry.field("indices_cuda_topk_order")?;
        let picked: Vec<u32> = pick::pick(seed, dim, k).into_iter().map(|index| index as u32).collect();
        tally.equal(&order, &picked, &order.list(Item::u32)?);
        if let Some(indices) = entry.optional("indices_by_ascending_score") {
            let found: Vec<u32> = scored.iter().map(|&(_, index)| index).collect();
            tally.equal(&indices, &found, &indices.list(Item::u32)?);
        }
        if let Some(scores) = entry.optional("scores_u32_by_ascending") {
            let found: Vec<u32> = scored.iter().map(|&(score, _)| score).collect();
            tally.equal(&scores, &found, &scores.list(Item::u32)?);
        }
        Ok(())
    }

    fn haar_rotation(&self, section: &Item<'_>, tally: &mut Tally) -> Result<(), Problem> {
        let k = section.field("k")?.size(MAX_K)?;
        let row = |nonce: &i64| {
            rng::normal(
                seed::seed_from_string(&format!("{}_haar_test_{nonce}", self.block_hash)),
                k,
            )
        };
        let mut rows: Vec<f32> = self.nonces.iter().flat_map(row).collect();
        Array::read(&section.field("x_f32")?, tally)?.compare_floats(&rows, NORMAL, tally)?;
        for (row, &nonce) in rows.chunks_exact_mut(k).zip(&self.nonces) {
            rotation::rotate(row, self.block_hash, self.public_key, nonce);
        }
        // Eleven reflections, each adding a few rounding errors of numbers up to about three.
        Array::read(&section.field("y_f32")?, tally)?.compare_floats(&rows, 4.0 * NORMAL, tally)?;
        let (Some(&nonce), Some(raw)) = (
            self.nonces.first(),
            section.optional("reflection_vectors_raw_normals_nonce0"),
        ) else {
            return Ok(());
        };
        for (index, item) in raw.items()?.iter().enumerate() {
            let text = seed::rotation(self.block_hash, self.public_key, nonce, k, index);
            let found = rng::normal(seed::seed_from_string(&text), k);
            Array::read(item, tally)?.compare_floats(&found, NORMAL, tally)?;
        }
        Ok(())
    }

    fn postprocess(&self, entry: &Item<'_>, tally: &mut Tally) -> Result<(), Problem> {
        let dim = entry.field("dim")?.size(MAX_DIM)?;
        let (xk, yk) = (
            Array::read(&entry.field("xk_f32")?, tally)?,
            Array::read(&entry.field("yk_f32_unit")?, tally)?,
        );
        let (_, k) = xk.rows_columns()?;
        let texts = entry.field("vector_b64_cuda_order")?.items()?;
        if texts.len() != self.nonces.len() {
            return Err(entry.problem(format!("{} vectors for {} nonces", texts.len(), self.nonces.len())));
        }
        let (mut picked, mut rotated) = (Vec::new(), Vec::new());
        for (row, (text, &nonce)) in texts.iter().zip(&self.nonces).enumerate() {
            let published = text.base64()?;
            let candidates = self.last_hiddens(nonce, dim, k);
            let projections: Vec<_> = candidates
                .iter()
                .filter_map(|hidden| artifact::project(hidden, self.block_hash, self.public_key, nonce, k))
                .collect();
            let matching = projections
                .iter()
                .find(|p| Tally::is_same_artifact(&p.encode(), &published));
            tally.that(text, matching.is_some(), || {
                "computed artifact differs by more than two half-precision steps".into()
            });
            let Some(projection) = matching.or_else(|| projections.first()) else {
                continue;
            };
            picked.extend_from_slice(&projection.picked);
            rotated.extend_from_slice(&projection.rotated);
            if let Some(decoded) = entry
                .optional("vectors_f16")
                .and_then(|all| all.items().ok()?.into_iter().nth(row))
            {
                let numbers = decoded.list(|x| Ok(x.number()? as f32))?;
                tally.equal(&decoded, &artifact::decode(&published), &Some(numbers));
            }
        }
        xk.compare_floats(&picked, NORMAL, tally)?;
        yk.compare_floats(&rotated, 4.0 * NORMAL, tally)
    }

    /// The test's hidden state, and one variant for every picked element whose normal lies so close to a bf16
    /// rounding boundary that another libm may have rounded it the other way.
    fn last_hiddens(&self, nonce: i64, dim: usize, k: usize) -> Vec<Vec<f32>> {
        let raw = rng::normal(
            seed::seed_from_string(&format!("{}_post_test_{nonce}", self.block_hash)),
            dim,
        );
        let rounded: Vec<f32> = raw.iter().map(|&x| Dtype::Bf16.round(x)).collect();
        let mut candidates = vec![rounded.clone()];
        let seed = seed::seed_from_string(&seed::pick(self.block_hash, self.public_key, nonce, k));
        for index in pick::pick(seed, dim, k) {
            for neighbour in [raw[index] - NORMAL as f32, raw[index] + NORMAL as f32].map(|x| Dtype::Bf16.round(x)) {
                if neighbour.to_bits() != rounded[index].to_bits() {
                    let mut candidate = rounded.clone();
                    candidate[index] = neighbour;
                    candidates.push(candidate);
                }
            }
        }
        candidates
    }

    fn pseudo_input_ids(&self, entry: &Item<'_>, tally: &mut Tally) -> Result<(), Problem> {
        let nonce = entry.field("nonce")?.integer()?;
        let (seq_len, vocabulary) = (
            entry.field("seq_len")?.size(MAX_SEQ_LEN)?,
            entry.field("vocab")?.size(1 << 30)?,
        );
        let seed = seed::seed_from_string(&seed::input_ids(self.block_hash, self.public_key, nonce));
        let ids = entry.field("ids")?;
        tally.equal(
            &ids,
            &rng::token_ids(seed, seq_len as u32, vocabulary as u32),
            &ids.list(Item::u32)?,
        );
        Ok(())
    }

    fn target(&self, section: &Item<'_>, tally: &mut Tally) -> Result<(), Problem> {
        let array = Array::read(section, tally)?;
        let text = format!("{}_{}_target", self.block_hash, self.public_key);
        let mut vector = rng::normal(seed::seed_from_string(&text), array.shape().iter().product());
        let norm = householder::norm(&vector);
        for x in &mut vector {
            *x /= norm;
        }
        array.compare_floats(&vector, NORMAL, tally)
    }
}

/// Which generator an input belongs to, by its name.
pub(super) fn generator(name: &str) -> Option<bool> {
    if name.starts_with("legacy") {
        Some(false)
    } else {
        name.starts_with("concat_murmur").then_some(true)
    }
}

fn frozen_ids(section: &Item<'_>, tally: &mut Tally) -> Result<(), Problem> {
    let (block_hash, public_key) = (
        section.field("block_hash")?.text()?,
        section.field("public_key")?.text()?,
    );
    let vocabulary = section.field("vocab")?.size(1 << 30)? as u32;
    let seq_len = section.field("seq_len")?.size(MAX_SEQ_LEN)? as u32;
    let nonces = section.field("nonces")?.list(Item::integer)?;
    let ids: Vec<Vec<u32>> = nonces
        .iter()
        .map(|&nonce| seed::seed_from_string(&seed::input_ids(block_hash, public_key, nonce)))
        .map(|seed| rng::token_ids(seed, seq_len, vocabulary))
        .collect();
    let first16 = section.field("first16")?;
    let found: Vec<Vec<u32>> = ids.iter().map(|ids| ids.iter().copied().take(16).collect()).collect();
    tally.equal(&first16, &found, &first16.list(|row| row.list(Item::u32))?);
    for (index, ids) in ids.into_iter().enumerate() {
        let ids = || ids.iter().copied().map(i64::from);
        for (name, found) in [("sum", Some(ids().sum())), ("min", ids().min()), ("max", ids().max())] {
            let item = section.field(name)?;
            tally.equal(&item, &found, &item.list(Item::integer)?.get(index).copied());
        }
    }
    Ok(())
}
