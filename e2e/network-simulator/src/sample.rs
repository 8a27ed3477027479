//! Which committed artifacts a validator looks at.

use crate::{exam::book::Book, identity};
use kernels::scheme::Artifact;

/// How many artifacts that is.
pub fn size(book: &Book, most: usize) -> u32 {
    book.committed().min(most as u64) as u32
}

/// Up to `size` committed artifacts of a host, chosen by who looks at whom, in order of nonce.
pub fn draw(book: &Book, size: usize, name: &str) -> Vec<Artifact> {
    let committed = book.committed_by_nonce();
    let mut indices: Vec<usize> = (0..committed.len()).collect();
    if indices.len() > size {
        identity::shuffle(&mut indices, &["sample", name]);
        indices.truncate(size);
        indices.sort_unstable();
    }
    indices
        .into_iter()
        .filter_map(|index| committed.get(index))
        .map(|item| Artifact {
            nonce: i64::from(item.nonce),
            vector: item.vector.clone(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_distinct_committed_and_its_validators_own() {
        let mut book = Book::default();
        for nonce in 0..50 {
            book.accept(nonce, 1, vec![0; 24], 61);
        }
        book.submit();
        book.include("m", 62);
        book.accept(1000, 1, vec![0; 24], 63);
        let nonces = |name: &str| draw(&book, 20, name).iter().map(|item| item.nonce).collect::<Vec<_>>();
        let one = nonces("a/b");
        assert_eq!(one.len(), 20);
        assert!(one.is_sorted_by(|a, b| a < b) && !one.contains(&1000));
        assert_ne!(one, nonces("b/a"));
        assert_eq!(draw(&book, 200, "a/b").len(), 50);
    }
}
