//! What happens when: a heap of moments. Things of one moment happen in the order in which they were thought of, so
//! that a run does not depend on how a heap is made.

use super::Ticket;
use crate::event::{Effect, Event};
use std::{cmp::Ordering, collections::BinaryHeap};

/// Something that will happen.
#[derive(Debug)]
pub enum Item {
    Block,
    Event(Event),
    /// What a request from outside set off.
    Effects(Vec<Effect>),
    /// The outside wants to be woken.
    Wake(u64),
    /// A call has waited long enough.
    TimedOut(Ticket),
}

impl Item {
    /// Tells kinds of things apart, and things of a kind as far as that is cheap.
    pub fn number(&self) -> u64 {
        match self {
            Self::Block => 1,
            Self::Event(Event::Reply { .. }) => 2,
            Self::Event(Event::Timer(_)) => 3,
            Self::Event(_) => 4,
            Self::Effects(effects) => 5 + ((effects.len() as u64) << 8),
            Self::Wake(token) => 6 + (token << 8),
            Self::TimedOut(ticket) => 7 + (ticket.0 << 8),
        }
    }
}

#[derive(Debug)]
struct Entry {
    at_ms: u64,
    order: u64,
    item: Item,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    /// The earliest is the greatest: the standard heap gives that first.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at_ms, other.order).cmp(&(self.at_ms, self.order))
    }
}

/// Everything that will happen.
#[derive(Debug, Default)]
pub struct Queue {
    heap: BinaryHeap<Entry>,
    order: u64,
}

impl Queue {
    pub fn push(&mut self, at_ms: u64, item: Item) {
        self.order += 1;
        self.heap.push(Entry {
            at_ms,
            order: self.order,
            item,
        });
    }

    pub fn next_ms(&self) -> Option<u64> {
        self.heap.peek().map(|entry| entry.at_ms)
    }

    pub fn pop(&mut self) -> Option<(u64, Item)> {
        self.heap.pop().map(|entry| (entry.at_ms, entry.item))
    }

    pub fn len(&self) -> usize {
        self.heap.len()
    }

    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn things_come_by_their_time_and_then_in_the_order_they_were_put() {
        let mut queue = Queue::default();
        for (at_ms, token) in [(5, 1), (3, 2), (5, 3), (3, 4), (4, 5), (5, 6)] {
            queue.push(at_ms, Item::Wake(token));
        }
        let mut seen = Vec::new();
        while let Some((at_ms, Item::Wake(token))) = queue.pop() {
            seen.push((at_ms, token));
        }
        assert_eq!(seen, [(3, 2), (3, 4), (4, 5), (5, 1), (5, 3), (5, 6)]);
    }
}
