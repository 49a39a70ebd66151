//! Which frames of a node and epoch are here: the first missing number, and what is ahead of it.
//!
//! At-least-once on the wire, exactly-once in the store: a duplicate falls here, before it is
//! written. Pure. What is ahead is bounded; beyond that a frame is refused and comes again.

use std::collections::BTreeMap;

use diarwatch_shared::limits::RUNS_AHEAD_MAX;
use diarwatch_shared::node::Seq;
use serde::{Deserialize, Serialize};

/// What to do with a run of frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not seen before; so many of its numbers were missing and are here now.
    New(u64),
    /// Here already.
    Duplicate,
    /// Too many holes before it; it must be sent again later.
    TooFarAhead,
}

/// The numbers of one epoch that are here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    next: Seq,
    /// Runs behind a hole: first number -> first number behind the run.
    ahead: BTreeMap<Seq, Seq>,
}

impl Cursor {
    /// The first number that is not here.
    #[must_use]
    pub fn next(&self) -> Seq {
        self.next
    }

    /// Takes the numbers from `from` to before `to` (one frame, or a gap of many).
    pub fn take(&mut self, from: Seq, to: Seq) -> Verdict {
        if to <= from || to <= self.next || self.covered(from, to) {
            return Verdict::Duplicate;
        }
        if from > self.next && self.ahead.len() >= RUNS_AHEAD_MAX && !self.touches(from, to) {
            return Verdict::TooFarAhead;
        }
        let missing = self.missing(from, to);
        self.insert(from.max(self.next), to);
        while let Some((_, end)) = self.ahead.first_key_value().filter(|(start, _)| **start <= self.next) {
            self.next = self.next.max(*end);
            self.ahead.pop_first();
        }
        Verdict::New(missing)
    }

    fn missing(&self, from: Seq, to: Seq) -> u64 {
        let from = from.max(self.next);
        let here = |(start, end): (&Seq, &Seq)| (*end).min(to).saturating_sub((*start).max(from));
        // Runs do not overlap: their sum is never more than the whole.
        to.saturating_sub(from).saturating_sub(self.ahead.iter().map(here).sum())
    }

    fn covered(&self, from: Seq, to: Seq) -> bool {
        self.ahead.range(..=from).next_back().is_some_and(|(_, end)| *end >= to)
    }

    fn touches(&self, from: Seq, to: Seq) -> bool {
        self.ahead.range(..=to).next_back().is_some_and(|(_, end)| *end >= from)
    }

    /// Joins the run with those it touches.
    fn insert(&mut self, mut from: Seq, mut to: Seq) {
        while let Some((start, end)) = self
            .ahead
            .range(..=to)
            .next_back()
            .map(|(start, end)| (*start, *end))
            .filter(|(_, end)| *end >= from)
        {
            from = from.min(start);
            to = to.max(end);
            self.ahead.remove(&start);
        }
        self.ahead.insert(from, to);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn a_cursor_says_what_a_set_says(runs in prop::collection::vec((0_u64..60, 1_u64..5), 1..80)) {
            let mut cursor = Cursor::default();
            let mut set = BTreeSet::new();
            for (from, length) in runs {
                let to = from + length;
                let missing = (from..to).filter(|seq| !set.contains(seq)).count() as u64;
                let expected = if missing == 0 { Verdict::Duplicate } else { Verdict::New(missing) };
                prop_assert_eq!(cursor.take(from, to), expected);
                set.extend(from..to);
                let next = (0..).find(|seq| !set.contains(seq)).unwrap();
                prop_assert_eq!(cursor.next(), next);
            }
        }
    }

    #[test]
    fn holes_are_bounded_and_the_frame_comes_again() {
        let mut cursor = Cursor::default();
        for hole in 1..=RUNS_AHEAD_MAX as u64 {
            assert_eq!(cursor.take(hole * 2, hole * 2 + 1), Verdict::New(1));
        }
        assert_eq!(cursor.take(10_000, 10_001), Verdict::TooFarAhead);
        assert_eq!(cursor.take(0, 1), Verdict::New(1), "the front is always taken");
        assert_eq!(cursor.take(1, 10_000), Verdict::New(9_999 - RUNS_AHEAD_MAX as u64));
        assert_eq!(cursor.next(), 10_000);
    }

    #[test]
    fn no_number_overflows() {
        let mut cursor = Cursor::default();
        assert_eq!(cursor.take(u64::MAX - 1, u64::MAX), Verdict::New(1));
        assert_eq!(cursor.take(0, u64::MAX), Verdict::New(u64::MAX - 1));
        assert_eq!(cursor.take(5, 5), Verdict::Duplicate);
    }
}
