//! Where one frame ends and the next begins, on a line that has no packets. Pure.
//!
//! [`Lines`] promises: it never holds more than one frame's bound, whatever arrives; a frame over the bound
//! is dropped and counted the moment it is over (noise without a newline is seen, not waited for), and the
//! frame after the next newline is whole again. It judges no content: NUL bytes, noise and bytes that are
//! not UTF-8 go to the decoder, which rejects them. Blank lines are no frames.

/// What [`Lines::take`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Framed {
    /// A frame, without its line end.
    Whole(Vec<u8>),
    /// A frame grew over the bound: it and the rest of it, up to the next newline, are dropped.
    Oversized,
}

/// Frames that end with `\n` or `\r\n`.
#[derive(Debug)]
pub struct Lines {
    max_frame: usize,
    /// At most `max_frame` bytes and one carriage return.
    frame: Vec<u8>,
    /// Until the next newline nothing can be believed.
    skipping: bool,
    dropped: u64,
}

impl Lines {
    /// Nothing has arrived; a frame may have `max_frame` bytes without its line end.
    #[must_use]
    pub fn new(max_frame: usize) -> Self {
        Self {
            max_frame,
            frame: Vec::new(),
            skipping: false,
            dropped: 0,
        }
    }

    /// Consumes from `input` until something is complete; none: all was consumed and a frame may be begun.
    pub fn take(&mut self, input: &mut &[u8]) -> Option<Framed> {
        while !input.is_empty() {
            let mut halves = input.splitn(2, |&byte| byte == b'\n');
            let part = halves.next().unwrap_or_default();
            let rest = halves.next();
            *input = rest.unwrap_or_default();
            let over = self.gather(part);
            let found = if rest.is_some() { self.finish() } else { None };
            if over {
                return Some(Framed::Oversized);
            }
            if found.is_some() {
                return found;
            }
        }
        None
    }

    /// Whether a frame is begun and not complete.
    #[must_use]
    pub fn is_inside(&self) -> bool {
        !self.frame.is_empty()
    }

    /// Drops what is begun and everything up to the next newline: what comes before it may be half a frame.
    pub fn resynchronise(&mut self) {
        self.forget();
        self.skipping = true;
    }

    /// Drops what is begun and starts anew: the next byte begins a frame.
    pub fn reset(&mut self) {
        self.forget();
        self.skipping = false;
    }

    /// Bytes dropped since last asked: of oversized and cut frames.
    pub fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
    }

    /// Adds a part without a newline; true if it made the frame too long.
    fn gather(&mut self, part: &[u8]) -> bool {
        if self.skipping {
            self.dropped += part.len() as u64;
            return false;
        }
        let length = self.frame.len() + part.len();
        let last = part.last().or(self.frame.last());
        // One more than the bound may be the carriage return of the line end.
        if length > self.max_frame + usize::from(last == Some(&b'\r')) {
            self.dropped += part.len() as u64;
            self.resynchronise();
            return true;
        }
        self.frame.extend_from_slice(part);
        false
    }

    /// A newline: gives what is gathered, unless it is blank or was dropped.
    fn finish(&mut self) -> Option<Framed> {
        if std::mem::take(&mut self.skipping) {
            return None;
        }
        let mut frame = std::mem::take(&mut self.frame);
        if frame.last() == Some(&b'\r') {
            frame.pop();
        }
        (!frame.is_empty()).then_some(Framed::Whole(frame))
    }

    fn forget(&mut self) {
        self.dropped += self.frame.len() as u64;
        self.frame.clear();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn whole(text: &str) -> Framed {
        Framed::Whole(text.as_bytes().to_vec())
    }

    fn all(lines: &mut Lines, mut input: &[u8]) -> Vec<Framed> {
        std::iter::from_fn(|| lines.take(&mut input)).collect()
    }

    #[test]
    fn a_line_may_end_with_or_without_a_carriage_return() {
        let mut lines = Lines::new(16);
        assert_eq!(all(&mut lines, b"one\ntwo\r\n"), [whole("one"), whole("two")]);
    }

    #[test]
    fn a_frame_may_arrive_in_pieces() {
        let mut lines = Lines::new(16);
        assert_eq!(all(&mut lines, b"21"), []);
        assert!(lines.is_inside());
        assert_eq!(all(&mut lines, b".5\r"), []);
        assert_eq!(all(&mut lines, b"\n2"), [whole("21.5")]);
    }

    #[test]
    fn blank_lines_are_no_frames() {
        let mut lines = Lines::new(16);
        assert_eq!(all(&mut lines, b"\n\r\n\nx\n\n"), [whole("x")]);
        assert_eq!(lines.take_dropped(), 0);
    }

    #[test]
    fn a_frame_of_exactly_the_bound_passes_with_either_line_end() {
        let mut lines = Lines::new(4);
        assert_eq!(all(&mut lines, b"1234\n1234\r\n"), [whole("1234"), whole("1234")]);
        for byte in b"1234\r\n" {
            let found = all(&mut lines, &[*byte]);
            assert_eq!(found.is_empty(), *byte != b'\n');
        }
    }

    #[test]
    fn an_oversized_frame_is_dropped_and_the_next_is_whole() {
        let mut lines = Lines::new(4);
        assert_eq!(
            all(&mut lines, b"12345\nnext\n"),
            [Framed::Oversized, whole("next")]
        );
        assert_eq!(lines.take_dropped(), 5);
    }

    #[test]
    fn noise_without_a_newline_is_told_once_and_at_once() {
        let mut lines = Lines::new(4);
        assert_eq!(all(&mut lines, &[0; 100]), [Framed::Oversized]);
        assert_eq!(all(&mut lines, &[0; 100]), []);
        assert_eq!(lines.take_dropped(), 200);
        assert_eq!(all(&mut lines, b"\nok\n"), [whole("ok")]);
    }

    #[test]
    fn a_carriage_return_inside_does_not_stretch_the_bound() {
        let mut lines = Lines::new(4);
        assert_eq!(all(&mut lines, b"1234\r"), []);
        assert_eq!(all(&mut lines, b"5"), [Framed::Oversized]);
        assert_eq!(all(&mut lines, b"\nok\n"), [whole("ok")]);
    }

    #[test]
    fn after_resynchronising_half_a_frame_is_not_taken_for_one() {
        let mut lines = Lines::new(16);
        lines.resynchronise();
        assert_eq!(all(&mut lines, b"3.5\n103.5\n"), [whole("103.5")]);
        assert_eq!(lines.take_dropped(), 3);
    }

    #[test]
    fn bytes_that_are_no_text_are_not_judged_here() {
        let mut lines = Lines::new(16);
        assert_eq!(
            all(&mut lines, b"\0\xff\xfe\n"),
            [Framed::Whole(vec![0, 0xff, 0xfe])]
        );
    }

    proptest! {
        #[test]
        fn where_the_reads_are_cut_changes_nothing(
            bytes in prop::collection::vec(prop_oneof![Just(b'\n'), Just(b'\r'), any::<u8>()], 0..200),
            cut in 1usize..7,
        ) {
            let mut at_once = Lines::new(8);
            let expected = all(&mut at_once, &bytes);
            let mut piecewise = Lines::new(8);
            let found: Vec<_> = bytes.chunks(cut).flat_map(|piece| all(&mut piecewise, piece)).collect();
            prop_assert_eq!(found, expected);
            prop_assert_eq!(piecewise.take_dropped(), at_once.take_dropped());
            prop_assert!(piecewise.frame.len() <= 9);
        }
    }
}
