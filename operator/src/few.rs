//! Lists that people read: the first few by name, the rest by number.

/// Items named in a message; the rest is counted.
pub const NAMED: usize = 8;

/// `a, b, and 3 more`: the first [`NAMED`] items, and how many there are beside them.
pub fn few<T: ToString>(items: impl IntoIterator<Item = T>, separator: &str) -> String {
    let mut items = items.into_iter();
    let mut parts: Vec<String> = items.by_ref().take(NAMED).map(|item| item.to_string()).collect();
    let more = items.count();
    if more > 0 {
        parts.push(format!("and {more} more"));
    }
    parts.join(separator)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::few;

    #[rstest]
    #[case::nothing(0, "")]
    #[case::one(1, "0")]
    #[case::all_that_are_named(8, "0, 1, 2, 3, 4, 5, 6, 7")]
    #[case::the_rest_is_counted(11, "0, 1, 2, 3, 4, 5, 6, 7, and 3 more")]
    fn the_first_are_named_and_the_rest_is_counted(#[case] items: u32, #[case] text: &str) {
        assert_eq!(few(0..items, ", "), text);
    }
}
