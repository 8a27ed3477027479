//! Headers of every answer: which assignment gave it. Whoever looks at a takeover from outside sees the very request from
//! which on the new pod answers.

use crate::slot::serve::memory::Assignment;
use http::{HeaderName, HeaderValue};

/// Index of the slot; -1 = none is held.
pub const SLOT: HeaderName = HeaderName::from_static("x-gonka-slot");
/// Generation of the assignment; 0 = none is held.
pub const GENERATION: HeaderName = HeaderName::from_static("x-gonka-slot-generation");

/// The headers of an assignment, or of none.
pub fn of(held: Option<&Assignment>) -> [(HeaderName, HeaderValue); 2] {
    let (slot, generation) = held.map_or((-1, 0), |held| (held.slot, held.generation));
    [
        (SLOT, HeaderValue::from(slot)),
        (GENERATION, HeaderValue::from(generation)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_without_a_slot_says_so_as_its_key_does() {
        let values = of(None).map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()));
        let expected = [("x-gonka-slot", "-1"), ("x-gonka-slot-generation", "0")];
        assert_eq!(
            values,
            expected.map(|(name, value)| (name.to_owned(), value.to_owned()))
        );
    }
}
