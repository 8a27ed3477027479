//! Words that follow from their place, and the norm and attention of the retired scheme: whatever the order of threads.

use crate::{
    emulator::{Buffer, Shape, in_every_order, launch},
    numbers::{normals, widen},
};
use half::f16;
use rstest::rstest;

const SEED: u32 = 7;

fn filled(words: usize, segment: u32, form: u32) -> Buffer<u32> {
    let buffer = Buffer::new(&vec![0_u32; words]);
    let shape = Shape([3, 1, 1], 256, 0);
    launch("fill_words", shape, &[&buffer, &(words as u32), &segment, &SEED, &form]);
    buffer
}

/// Of each block: how many differ, place of the first, its bits.
fn found(buffer: &Buffer<u32>, segment: u32, form: u32) -> Vec<u32> {
    let out = Buffer::new(&[0xffff_ffff_u32; 12]);
    let shape = Shape([3, 1, 1], 256, 0);
    launch(
        "check_words",
        shape,
        &[buffer, &out, &(buffer.len() as u32), &segment, &SEED, &form],
    );
    out.to_vec()
}

#[rstest]
fn a_word_that_is_not_what_it_was_made_is_found_with_its_bits(
    #[values(4, 3076, 12_288)] words: usize,
    #[values(0, 1, 120)] form: u32,
) {
    let one = words - 3;
    let blocks = in_every_order(|| {
        let mut buffer = filled(words, 5, form);
        let clean = found(&buffer, 5, form);
        assert!(clean.chunks(4).all(|block| block[..3] == [0, u32::MAX, 0]), "{clean:?}");
        buffer[one] ^= 0x0008_0001;
        buffer[words - 1] ^= 2;
        found(&buffer, 5, form)
    });
    assert_eq!(blocks.chunks(4).map(|block| block[0]).sum::<u32>(), 2);
    let first = blocks.chunks(4).min_by_key(|block| block[1]).expect("blocks");
    assert_eq!(first[1..3], [one as u32, 0x0008_0001]);
}

#[test]
fn words_of_other_places_segments_and_forms_are_others() {
    let [a, b, c] = [(0, 0), (1, 0), (0, 1)].map(|(segment, form)| filled(1024, segment, form).to_vec());
    assert!(a.iter().zip(&c).all(|(word, other)| *word == !*other));
    assert!(a.iter().zip(&b).filter(|(word, other)| word == other).count() < 2);
    let mut all = a.clone();
    all.sort_unstable();
    all.dedup();
    assert!(all.len() > 1020, "{}", all.len());
}

#[test]
fn weights_have_the_mean_square_that_keeps_a_state() {
    let words = filled(1 << 16, 0, 127);
    let squares = words
        .iter()
        .flat_map(|word| [word << 16, word & 0xffff_0000])
        .map(|bits| {
            let x = f64::from(f32::from_bits(bits));
            x * x
        });
    let mean = squares.sum::<f64>() / f64::from(2 << 16);
    assert!((mean - 2.0).abs() < 0.03, "{mean}");
}

#[test]
fn every_multiprocessor_takes_a_block() {
    let out = Buffer::new(&[u32::MAX; 1056]);
    launch("multiprocessors", Shape([1056, 1, 1], 64, 0), &[&out]);
    assert!((0..132).all(|id| out.contains(&id)));
}

fn halves(seed: u32, count: usize) -> Vec<u16> {
    widen(&normals(seed, count))
        .into_iter()
        .map(|x| f16::from_f32(x).to_bits())
        .collect()
}

#[rstest]
fn half_precision_norm_and_attention_do_not_depend_on_the_order(#[values(8, 28, 300)] width: usize) {
    let (tokens, heads) = (9_usize, 2_usize);
    let rows = halves(3, tokens * heads * width);
    let weight = halves(4, width);
    let normed = in_every_order(|| {
        let out = Buffer::new(&vec![0xffff_u16; rows.len()]);
        let (x, weight) = (Buffer::new(&rows), Buffer::new(&weight));
        let shape = Shape([(tokens * heads) as u32, 1, 1], 256, 0);
        launch("v1_norm", shape, &[&x, &weight, &out, &(width as u32), &1e-5_f32]);
        out.to_vec()
    });
    assert!(normed.iter().all(|bits| f16::from_bits(*bits).is_finite()));
    let attended = in_every_order(|| {
        let out = Buffer::new(&vec![0xffff_u16; rows.len()]);
        let [q, k, v] = [0, 1, 2].map(|_| Buffer::new(&rows));
        let (head, stride, all) = (width as u32, (heads * width) as u32, tokens as u32);
        let shape = Shape([all, heads as u32, 1], 256, 4 * all);
        let root = (width as f32).sqrt();
        launch(
            "v1_attention",
            shape,
            &[&q, &k, &v, &out, &head, &1_u32, &all, &stride, &stride, &stride, &root],
        );
        out.to_vec()
    });
    // The first token sees itself alone.
    assert_eq!(attended[..heads * width], rows[..heads * width]);
    assert!(attended.iter().all(|bits| f16::from_bits(*bits).is_finite()));
}
