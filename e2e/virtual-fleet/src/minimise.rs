//! The smallest story in which a run still fails: delta debugging over its moments.

/// Drops halves, quarters and single items as long as `fails` holds. What is left fails, and without any single one of its items
/// it does not. Items keep their order.
pub fn minimise<T: Clone>(items: &[T], mut fails: impl FnMut(&[T]) -> bool) -> Vec<T> {
    let mut left = items.to_vec();
    let mut parts = 2;
    while left.len() > 1 {
        let size = left.len().div_ceil(parts);
        let smaller = (0..parts).find_map(|part| {
            let without: Vec<T> = left
                .iter()
                .enumerate()
                .filter(|(place, _)| place / size != part)
                .map(|(_, item)| item.clone())
                .collect();
            (without.len() < left.len() && fails(&without)).then_some(without)
        });
        match smaller {
            Some(without) => {
                left = without;
                parts = (parts - 1).max(2);
            }
            None if size == 1 => break,
            None => parts = (2 * parts).min(left.len()),
        }
    }
    if left.len() == 1 && fails(&[]) {
        left.clear();
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_matters_is_left_in_its_order() {
        let items: Vec<u32> = (0..40).collect();
        let mut runs = 0;
        let left = minimise(&items, |items| {
            runs += 1;
            items.contains(&7) && items.contains(&31)
        });
        assert_eq!(left, [7, 31]);
        assert!(runs < 60, "{runs} runs");
    }

    #[test]
    fn a_run_that_fails_without_a_story_needs_none() {
        assert!(minimise(&[1, 2, 3], |_| true).is_empty());
    }

    #[test]
    fn a_story_of_which_everything_is_needed_stays_whole() {
        let items = [1, 2, 3, 4, 5];
        assert_eq!(minimise(&items, |left| left.len() == 5), items);
    }
}
