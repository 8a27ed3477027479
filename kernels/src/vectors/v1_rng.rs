//! `v1_rng.json`: every layer of the v1 generator, inputs, permutations, targets. Exact, but for the length a target is
//! divided by, whose sum may be taken in another order.

use super::{
    Problem,
    array::{Array, Element},
    item::Item,
    tally::Tally,
};
use crate::transformer_v1::{self as v1, Pcg64};
use half::f16;

/// Most digests a seed is made of.
const MAX_HASHES: usize = 64;
/// Two sums of the same squares in different orders, in root mean squares of a unit vector's elements.
const TARGET: f64 = 4e-15;
/// Most dimensions of a permutation written as a list.
const MAX_LIST: usize = 1 << 20;

pub(super) fn check(root: &Item<'_>, tally: &mut Tally) {
    tally.each(root, "sets", |set, tally| {
        let (block_hash, public_key) = (set.field("block_hash")?.text()?, set.field("public_key")?.text()?);
        tally.each(set, "rng_layers", generator);
        for name in ["target_vocab_64", "target_vocab_8196"] {
            tally.section(set, name, |item, tally| {
                let array = Array::read(item, tally)?;
                let found = v1::target(block_hash, array.len());
                array.compare_doubles(&found, TARGET / (found.len() as f64).sqrt(), tally)
            });
        }
        tally.each(set, "cases", |case, tally| nonce(case, block_hash, public_key, tally));
        Ok(())
    });
}

fn generator(layer: &Item<'_>, tally: &mut Tally) -> Result<(), Problem> {
    let text = layer.field("seed_string")?.text()?;
    let hashes = layer.field("num_hashes")?.size(MAX_HASHES)?;
    let words = layer.field("entropy_u32")?;
    tally.equal(&words, &v1::entropy(text, hashes), &words.list(Item::u32)?);
    let mut stream = Pcg64::from_text(text, hashes);
    for (name, found) in [
        ("pcg64_state_dec", stream.state()),
        ("pcg64_inc_dec", stream.increment()),
    ] {
        let item = layer.field(name)?;
        tally.equal(&item, &found.to_string().as_str(), &item.text()?);
    }
    for item in layer.field("raw_u64_first8")?.items()? {
        tally.equal(&item, &stream.next_u64().to_string().as_str(), &item.text()?);
    }
    let array = Array::read(&layer.field("standard_normal_first32")?, tally)?;
    let found: Vec<f64> = v1::normals(text, hashes).take(array.len()).collect();
    array.compare_exact(Element::F64, &bytes(&found, |x| x.to_le_bytes()), tally)
}

fn nonce(case: &Item<'_>, block_hash: &str, public_key: &str, tally: &mut Tally) -> Result<(), Problem> {
    let nonce = case.field("nonce")?.integer()?;
    let (input, order) = (
        v1::input_seed(block_hash, public_key, nonce),
        v1::permutation_seed(block_hash, public_key, nonce),
    );
    for (name, found) in [("input_seed_string", &input), ("perm_seed_string", &order)] {
        let item = case.field(name)?;
        tally.equal(&item, &found.as_str(), &item.text()?);
    }
    tally.section(case, "input_seq8_dim64_f64", |item, tally| {
        let array = Array::read(item, tally)?;
        let found: Vec<f64> = v1::normals(&input, 4).take(array.len()).collect();
        array.compare_exact(Element::F64, &bytes(&found, |x| x.to_le_bytes()), tally)
    });
    for name in ["input_seq8_dim64_f16", "input_seq256_dim1792_f16"] {
        tally.section(case, name, |item, tally| {
            let array = Array::read(item, tally)?;
            let mut found = vec![f16::ZERO; array.len()];
            v1::input(block_hash, public_key, nonce, &mut found);
            array.compare_exact(Element::F16, &bytes(&found, |x| x.to_le_bytes()), tally)
        });
    }
    let permutation = |count| v1::permutation(Pcg64::from_text(&order, 1), count);
    tally.section(case, "perm_dim64", |item, tally| {
        let published = item.list(Item::u32)?;
        if published.len() > MAX_LIST {
            return Err(item.problem("is too long"));
        }
        tally.equal(item, &permutation(published.len()), &published);
        Ok(())
    });
    tally.section(case, "perm_dim8196", |item, tally| {
        let array = Array::read(item, tally)?;
        let found = bytes(&permutation(array.len()), |index| i64::from(*index).to_le_bytes());
        array.compare_exact(Element::I64, &found, tally)
    });
    Ok(())
}

/// Little-endian bytes of elements.
pub(super) fn bytes<T, const SIZE: usize>(elements: &[T], to_bytes: impl Fn(&T) -> [u8; SIZE]) -> Vec<u8> {
    elements.iter().flat_map(to_bytes).collect()
}
