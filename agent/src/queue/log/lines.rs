//! Bytes to lines, the same for journal, file and container. Takes bytes as they come; gives whole
//! lines, one at a time. A line is kept up to a bound and the rest of it is dropped, so that a worker
//! that writes without end costs no memory; nothing waits here.

/// Bytes of one line of a log that are kept; a job's line is far shorter.
pub const LINE_BYTES_MAX: usize = 8 * 1024;

/// Bytes to lines of at most so many bytes.
#[derive(Debug)]
pub struct Lines {
    kept: Vec<u8>,
    bytes_max: usize,
    cut: bool,
}

impl Default for Lines {
    fn default() -> Self {
        Self::up_to(LINE_BYTES_MAX)
    }
}

impl Lines {
    /// Lines of at most `bytes_max` bytes.
    #[must_use]
    pub fn up_to(bytes_max: usize) -> Self {
        Self { kept: Vec::new(), bytes_max, cut: false }
    }

    /// Gives each line that these bytes complete; whether it was cut is said beside it.
    pub fn take(&mut self, bytes: &[u8], mut each: impl FnMut(&str, bool)) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            match part.strip_suffix(b"\n") {
                // Most lines come whole: no copy is made of them.
                Some(whole) if self.kept.is_empty() && whole.len() <= self.bytes_max => {
                    each(&text(whole), self.cut);
                    self.cut = false;
                }
                Some(end) => {
                    self.keep(end);
                    self.rest(&mut each);
                }
                None => self.keep(part),
            }
        }
    }

    /// Gives the line under way, which nothing will complete any more.
    pub fn rest(&mut self, mut each: impl FnMut(&str, bool)) {
        if !self.kept.is_empty() {
            each(&text(&self.kept), self.cut);
        }
        self.forget();
    }

    /// Drops the line under way: it belongs to bytes that are gone.
    pub fn forget(&mut self) {
        // A long line's memory goes with it.
        self.kept = Vec::new();
        self.cut = false;
    }

    fn keep(&mut self, part: &[u8]) {
        // A file that was truncated under its writer begins with a hole, which reads as zeros.
        let part = if self.kept.is_empty() { without_zeros(part) } else { part };
        let room = self.bytes_max.saturating_sub(self.kept.len()).min(part.len());
        let (fits, over) = part.split_at_checked(room).unwrap_or((part, &[]));
        self.kept.extend_from_slice(fits);
        self.cut |= !over.is_empty();
    }
}

fn without_zeros(bytes: &[u8]) -> &[u8] {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    bytes.get(zeros..).unwrap_or_default()
}

/// A character that the cut went through, and what is no UTF-8, becomes U+FFFD.
fn text(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    let bytes = without_zeros(bytes);
    String::from_utf8_lossy(bytes.strip_suffix(b"\r").unwrap_or(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(lines: &mut Lines, bytes: &[u8]) -> Vec<(String, bool)> {
        let mut seen = Vec::new();
        lines.take(bytes, |line, cut| seen.push((line.to_owned(), cut)));
        seen
    }

    fn whole(text: &str) -> (String, bool) {
        (text.to_owned(), false)
    }

    #[test]
    fn a_line_written_in_two_halves_is_one_line() {
        let mut lines = Lines::default();
        assert_eq!(all(&mut lines, b"job 1 acc"), []);
        assert_eq!(all(&mut lines, b"epted\r\njob 2"), [whole("job 1 accepted")]);
        let mut last = Vec::new();
        lines.rest(|line, cut| last.push((line.to_owned(), cut)));
        assert_eq!(last, [whole("job 2")]);
    }

    #[test]
    fn a_long_line_is_cut_between_characters_and_the_next_one_is_whole() {
        let mut lines = Lines::up_to(7);
        let seen = all(&mut lines, "話者分離\nnext\n".as_bytes());
        assert_eq!(seen, [(String::from("話者\u{fffd}"), true), whole("next")]);
    }

    #[test]
    fn the_hole_at_the_begin_of_a_truncated_file_hides_no_line() {
        let mut lines = Lines::up_to(16);
        let mut bytes = vec![0; 100];
        assert_eq!(all(&mut lines, &bytes), []);
        bytes.extend_from_slice(b"job 1\n");
        assert_eq!(all(&mut lines, &bytes), [whole("job 1")]);
    }

    proptest! {
        #[test]
        fn however_the_bytes_are_cut_the_lines_are_the_same(
            bytes in prop::collection::vec(prop_oneof![Just(b'\n'), Just(0_u8), any::<u8>()], 0..200),
            cuts in prop::collection::vec(1_usize..20, 0..40),
        ) {
            let expected = all(&mut Lines::up_to(40), &bytes);
            let mut lines = Lines::up_to(40);
            let (mut seen, mut rest) = (Vec::new(), bytes.as_slice());
            for cut in cuts {
                let (now, later) = rest.split_at(cut.min(rest.len()));
                seen.extend(all(&mut lines, now));
                rest = later;
            }
            seen.extend(all(&mut lines, rest));
            prop_assert_eq!(seen, expected);
        }

        #[test]
        fn no_line_costs_more_than_its_bound(byte: u8, count in 0_usize..100_000) {
            let mut lines = Lines::default();
            lines.take(&vec![byte; count], |line, _| assert!(line.len() <= 3 * LINE_BYTES_MAX));
            prop_assert!(lines.kept.capacity() <= 2 * LINE_BYTES_MAX);
        }
    }
}
