//! The mistakes. Each is the smallest change of the reference that a second implementation could plausibly make.

/// Who can see a mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sight {
    /// Vectors, verifier and validators.
    All,
    /// Vectors and verifier: by the network's own rule the artifacts still pass, so nobody loses anything by it.
    NotValidators,
}

/// One mistake: in `file` of `kernels/src`, each text, which must be there once, is replaced.
#[derive(Debug)]
pub struct Mutant {
    pub name: &'static str,
    pub file: &'static str,
    pub swaps: &'static [(&'static str, &'static str)],
    pub sight: Sight,
}

const fn rejected(name: &'static str, file: &'static str, swaps: &'static [(&'static str, &'static str)]) -> Mutant {
    Mutant {
        name,
        file,
        swaps,
        sight: Sight::All,
    }
}

/// All of them, in the order of the computation.
pub const MUTANTS: &[Mutant] = &[
    rejected(
        "seeds: the digest read as little-endian",
        "seed.rs",
        &[("u32::from_be_bytes", "u32::from_le_bytes")],
    ),
    rejected(
        "random numbers: one constant of the hash is off by two",
        "rng.rs",
        &[("0x85eb_ca6b", "0x85eb_ca6d")],
    ),
    rejected(
        "random numbers: sine first, then cosine",
        "rng.rs",
        &[
            ("*cosine = radius * cos;", "*cosine = radius * sin;"),
            ("*sine = radius * sin;", "*sine = radius * cos;"),
        ],
    ),
    rejected(
        "index split: both uniforms of a pair side by side instead of half the count apart",
        "rng.rs",
        &[
            ("uniform(seed, index)", "uniform(seed, 2 * index)"),
            (
                "uniform(seed, (half as u32).wrapping_add(index))",
                "uniform(seed, 2 * index + 1)",
            ),
        ],
    ),
    rejected(
        "index split: the stronger generator deals its eight seeds out in turn",
        "rng.rs",
        &[(
            "out.chunks_mut(run).zip(seeds)",
            "out.chunks_mut(run.div_ceil(2)).zip(seeds.into_iter().cycle())",
        )],
    ),
    rejected(
        "reflections: the first member of the pair is left as it is",
        "decoder.rs",
        &[("householder::reflect::<A>(&mut work.hidden[rows.clone()], v);", "")],
    ),
    rejected(
        "reflections: the second member of the pair is left as it is",
        "decoder.rs",
        &[("householder::reflect::<A>(&mut work.residual[rows.clone()], v);", "")],
    ),
    rejected(
        "reflections: none after the last layer",
        "decoder.rs",
        &[(
            "if let Some(v) = reflections.get(index) {",
            "if let Some(v) = reflections.get(index).filter(|_| index + 1 < model.layers.len()) {",
        )],
    ),
    rejected(
        "reflections: layers counted from one",
        "prefill_v2.rs",
        &[(
            "householder::reflection_vector(&round.block_hash, layer, config.hidden)",
            "householder::reflection_vector(&round.block_hash, layer + 1, config.hidden)",
        )],
    ),
    rejected(
        "rounding: bf16 cut off instead of rounded to nearest",
        "decoder/arithmetic.rs",
        &[("bits.wrapping_add(0x7fff + ((bits >> 16) & 1))", "bits")],
    ),
    rejected(
        "pick order: best score first",
        "pick.rs",
        &[("better.sort_unstable_by_key(|&(_, index)| index);", "")],
    ),
    rejected(
        "pick order: all ascending, the worst winner not last",
        "pick.rs",
        &[(
            "if let Some((worst, better)) = winners.split_last_mut() {",
            "winners.sort_unstable_by_key(|&(_, index)| index);\n    if let Some((worst, better)) = winners.split_last_mut() {",
        )],
    ),
    rejected(
        "rotation: reflections in reverse order",
        "rotation.rs",
        &[(
            "for index in 0..k_dim.saturating_sub(1) {",
            "for index in (0..k_dim.saturating_sub(1)).rev() {",
        )],
    ),
    rejected(
        "rotation: one reflection too many",
        "rotation.rs",
        &[("0..k_dim.saturating_sub(1)", "0..k_dim")],
    ),
    Mutant {
        name: "encoding: halves cut off instead of rounded to nearest",
        file: "artifact.rs",
        swaps: &[(
            ".flat_map(|&value| f16::from_f32(value).to_le_bytes())",
            ".flat_map(|&value| f16::from_f32(f32::from_bits(value.to_bits() & 0xffff_e000)).to_le_bytes())",
        )],
        sight: Sight::NotValidators,
    },
    rejected(
        "encoding: big-endian halves",
        "artifact.rs",
        &[(
            "f16::from_f32(value).to_le_bytes()",
            "f16::from_f32(value).to_be_bytes()",
        )],
    ),
    rejected(
        "Merkle order: right child hashed first",
        "commitment.rs",
        &[(
            "        .chain_update(left)\n        .chain_update(right)",
            "        .chain_update(right)\n        .chain_update(left)",
        )],
    ),
    rejected(
        "Merkle order: leaves placed by reversed bits",
        "commitment.rs",
        &[(
            "let side = (place >> level & 1) as usize;",
            "let side = (place >> (self.depth - 1 - level) & 1) as usize;",
        )],
    ),
    rejected(
        "Merkle sum: the count of a node left out of its hash",
        "commitment.rs",
        &[(
            "        .chain_update(count.to_le_bytes())",
            "        .chain_update((count & 0).to_le_bytes())",
        )],
    ),
];
