//! Which entries are on their way to a sink, and how far the cursor may move.
//!
//! A sink confirms entries in any order, and may refuse one. The cursor is what a restart begins from, so it
//! may only ever stand behind entries that are *all* confirmed: it never passes a hole. A window holds no
//! entry itself (the journal has them), reads no clock and never waits.

use std::collections::VecDeque;

use crate::{
    event::{Position, Sequence},
    journal::Cursor,
};

/// The entries sent to one sink over one connection and not yet passed by its cursor.
#[derive(Debug)]
pub struct Window {
    limit: usize,
    /// In the order sent, which is the journal's.
    sent: VecDeque<Sent>,
}

#[derive(Debug)]
struct Sent {
    position: Position,
    /// The one before it in the sink's chain.
    previous: Sequence,
    /// Where the cursor may stand once this entry is passed: behind it, and behind what was skipped after it.
    cursor: Cursor,
    answer: Answer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Awaited,
    Confirmed,
    Refused,
}

impl Window {
    /// A window for at most `limit` unconfirmed entries.
    ///
    /// Duplicates after a lost connection are bounded by `limit`, so a flaky link wants a small one.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            sent: VecDeque::with_capacity(limit),
        }
    }

    /// From now on `limit` entries may be unconfirmed, if those are more.
    pub fn widen(&mut self, limit: usize) {
        self.limit = self.limit.max(limit);
    }

    /// Whether the entry at `position` was sent and is not yet passed.
    #[must_use]
    pub fn contains(&self, position: Position) -> bool {
        self.sent
            .binary_search_by_key(&position, |sent| sent.position)
            .is_ok()
    }

    /// Whether the next entry has to wait.
    ///
    /// Counts from the oldest hole, not from the newest confirmation: with packet ids that go round, two entries in
    /// flight can then never share one.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.sent.len() >= self.limit
    }

    /// Whether everything sent is passed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sent.is_empty()
    }

    /// Whether an answer is still to come.
    #[must_use]
    pub fn awaits(&self) -> bool {
        self.sent.iter().any(|sent| sent.answer == Answer::Awaited)
    }

    /// Whether an entry was refused: nothing new is sent until that is settled.
    #[must_use]
    pub fn has_refused(&self) -> bool {
        self.sent.iter().any(|sent| sent.answer == Answer::Refused)
    }

    /// The oldest hole, if it was refused and no other answer is to come: the entry to send again, alone, and the one
    /// before it in the sink's chain.
    #[must_use]
    pub fn to_resend(&self) -> Option<(Position, Sequence)> {
        if self.awaits() {
            return None;
        }
        self.sent.front().map(|first| (first.position, first.previous))
    }

    /// The one before the entry at `position` in the sink's chain.
    #[must_use]
    pub fn previous(&self, position: Position) -> Sequence {
        let found = self.sent.binary_search_by_key(&position, |sent| sent.position);
        found
            .ok()
            .and_then(|at| self.sent.get(at))
            .map_or(Sequence(0), |sent| sent.previous)
    }

    /// Notes that the entry behind which `cursor` stands was handed to the connection, and which one was before it.
    ///
    /// # Panics
    ///
    /// If the window is full or the entry is not after the last one: the caller's mistake, never the sink's.
    pub fn sent(&mut self, cursor: Cursor, previous: Sequence) {
        assert!(!self.is_full(), "the caller asks is_full before it sends");
        assert!(
            self.sent
                .back()
                .is_none_or(|last| last.cursor.position < cursor.position),
            "entries are sent in journal order"
        );
        self.sent.push_back(Sent {
            position: cursor.position,
            previous,
            cursor,
            answer: Answer::Awaited,
        });
    }

    /// Notes that the entry behind which `cursor` stands is not for this sink: it takes no place, and the cursor passes
    /// it with what was sent before it. Returns the new cursor if that is nothing.
    pub fn skipped(&mut self, cursor: Cursor) -> Option<Cursor> {
        match self.sent.back_mut() {
            None => Some(cursor),
            Some(last) => {
                last.cursor = cursor;
                None
            }
        }
    }

    /// Notes that a refused entry was handed to the connection again.
    pub fn resent(&mut self, position: Position) {
        self.answer(position, Answer::Awaited);
    }

    /// Notes that the sink confirmed `position`; returns the new cursor if it can move.
    ///
    /// A confirmation for an entry that is not in the window (a late one, of an earlier connection)
    /// changes nothing.
    pub fn delivered(&mut self, position: Position) -> Option<Cursor> {
        self.answer(position, Answer::Confirmed);
        let mut cursor = None;
        while let Some(first) = self.sent.pop_front_if(|first| first.answer == Answer::Confirmed) {
            cursor = Some(first.cursor);
        }
        cursor
    }

    /// Notes that the sink refused `position`: it stays a hole.
    pub fn refused(&mut self, position: Position) {
        self.answer(position, Answer::Refused);
    }

    fn answer(&mut self, position: Position, answer: Answer) {
        let found = self.sent.binary_search_by_key(&position, |sent| sent.position);
        if let Some(entry) = found.ok().and_then(|at| self.sent.get_mut(at)) {
            entry.answer = answer;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cursor(position: u64) -> Cursor {
        Cursor {
            position: Position(position),
            sequence: Sequence(position / 10),
            passed: Sequence(position / 10),
            ..Cursor::default()
        }
    }

    fn window_with(limit: usize, positions: &[u64]) -> Window {
        let mut window = Window::new(limit);
        for &position in positions {
            window.sent(cursor(position), Sequence(position - 1));
        }
        window
    }

    #[test]
    fn the_cursor_waits_for_the_hole_and_then_jumps_over_all_that_is_confirmed() {
        let mut window = window_with(4, &[70, 80, 90]);
        assert_eq!(window.delivered(Position(90)), None);
        assert_eq!(window.delivered(Position(80)), None);
        assert_eq!(window.delivered(Position(70)), Some(cursor(90)));
        assert!(window.is_empty());
    }

    #[test]
    fn a_confirmed_entry_behind_a_hole_still_takes_its_place() {
        let mut window = window_with(2, &[1, 2]);
        assert_eq!(window.delivered(Position(2)), None);
        assert!(window.is_full());
    }

    #[test]
    fn a_confirmation_for_an_entry_that_is_not_in_the_window_moves_nothing() {
        let mut window = window_with(4, &[1]);
        assert_eq!(window.delivered(Position(2)), None);
        assert_eq!(window.delivered(Position(1)), Some(cursor(1)));
        assert_eq!(window.delivered(Position(1)), None);
    }

    #[test]
    fn a_refused_entry_is_sent_again_only_when_nothing_else_is_on_its_way() {
        let mut window = window_with(4, &[1, 2, 3]);
        window.refused(Position(2));
        assert!(window.has_refused());
        assert_eq!(window.to_resend(), None);
        assert_eq!(window.delivered(Position(1)), Some(cursor(1)));
        assert_eq!(window.delivered(Position(3)), None);
        assert_eq!(window.to_resend(), Some((Position(2), Sequence(1))));
        window.resent(Position(2));
        assert_eq!((window.has_refused(), window.to_resend()), (false, None));
        assert_eq!(window.delivered(Position(2)), Some(cursor(3)));
    }

    #[test]
    fn what_is_skipped_takes_no_place_and_is_passed_with_what_was_sent_before_it() {
        let mut window = window_with(2, &[10, 20]);
        for position in [30, 40, 50] {
            assert_eq!(window.skipped(cursor(position)), None);
        }
        assert_eq!(window.delivered(Position(10)), Some(cursor(10)));
        assert!(!window.is_full());
        window.sent(cursor(60), Sequence(2));
        assert!(window.is_full());
        assert_eq!(window.delivered(Position(60)), None);
        assert_eq!(window.delivered(Position(20)), Some(cursor(60)));
        assert_eq!(
            window.skipped(cursor(70)),
            Some(cursor(70)),
            "nothing holds it back"
        );
    }

    #[test]
    fn a_refused_entry_holds_the_cursor_for_as_long_as_it_takes() {
        let mut window = window_with(4, &[1, 2]);
        window.refused(Position(1));
        assert_eq!(window.delivered(Position(2)), None);
        for _ in 0..100 {
            assert_eq!(window.to_resend(), Some((Position(1), Sequence(0))));
            window.resent(Position(1));
            window.refused(Position(1));
        }
        assert!(!window.is_empty());
    }
}
