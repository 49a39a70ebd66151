//! The stream of the Docker Engine's `logs` to lines. Takes its bytes as they come; gives the lines of
//! stdout and stderr, each put together for itself. Pure. Without a terminal each piece has a header
//! of eight bytes: the stream's number, three zeros, and the length, highest byte first; with one the
//! bytes are the container's own.

use super::lines::Lines;

/// Bytes of a header.
const HEADER_BYTES: usize = 8;

/// The state: where in a piece the bytes ended.
#[derive(Debug)]
pub struct Frames {
    terminal: bool,
    header: Vec<u8>,
    /// Bytes of the piece under way that are still to come.
    remaining: usize,
    on_stderr: bool,
    stdout: Lines,
    stderr: Lines,
}

impl Frames {
    /// A stream from its begin; `terminal` is the container's `Config.Tty`.
    #[must_use]
    pub fn new(terminal: bool) -> Self {
        Self {
            terminal,
            header: Vec::with_capacity(HEADER_BYTES),
            remaining: 0,
            on_stderr: false,
            stdout: Lines::default(),
            stderr: Lines::default(),
        }
    }

    /// Gives each line that these bytes complete.
    ///
    /// # Errors
    /// When a header is none: what follows cannot be told apart any more.
    pub fn take(&mut self, mut bytes: &[u8], mut each: impl FnMut(&str, bool)) -> Result<(), String> {
        if self.terminal {
            self.stdout.take(bytes, each);
            return Ok(());
        }
        while !bytes.is_empty() {
            if self.remaining == 0 {
                bytes = self.head(bytes)?;
            }
            let (piece, rest) = bytes.split_at_checked(self.remaining).unwrap_or((bytes, &[]));
            let lines = if self.on_stderr { &mut self.stderr } else { &mut self.stdout };
            lines.take(piece, &mut each);
            self.remaining -= piece.len();
            bytes = rest;
        }
        Ok(())
    }

    /// The lines that the end of the stream cut short.
    pub fn rest(&mut self, mut each: impl FnMut(&str, bool)) {
        self.stdout.rest(&mut each);
        self.stderr.rest(&mut each);
    }

    /// Takes the header in, as far as it is there.
    fn head<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], String> {
        let missing = HEADER_BYTES.saturating_sub(self.header.len()).min(bytes.len());
        let (part, rest) = bytes.split_at_checked(missing).unwrap_or((bytes, &[]));
        self.header.extend_from_slice(part);
        if let [stream, a, b, c, l0, l1, l2, l3] = *self.header.as_slice() {
            // 3 is the engine's own word about a failure while it streams.
            if stream > 3 || [a, b, c] != [0; 3] {
                return Err(String::from("the engine's stream has a header that is none"));
            }
            self.header.clear();
            self.on_stderr = stream != 1;
            self.remaining = usize::try_from(u32::from_be_bytes([l0, l1, l2, l3])).unwrap_or(usize::MAX);
        }
        Ok(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn piece(stream: u8, text: &[u8]) -> Vec<u8> {
        let length = u32::try_from(text.len()).unwrap().to_be_bytes();
        [&[stream, 0, 0, 0], length.as_slice(), text].concat()
    }

    fn all(frames: &mut Frames, bytes: &[u8]) -> Vec<String> {
        let mut seen = Vec::new();
        frames.take(bytes, |line, _| seen.push(line.to_owned())).unwrap();
        seen
    }

    #[test]
    fn stdout_and_stderr_are_put_together_each_for_itself() {
        let bytes = [
            piece(1, b"job 1 acc"),
            piece(2, b"warn"),
            piece(1, b""),
            piece(1, b"epted\njob 2"),
            piece(2, b"ing\n"),
        ];
        let mut frames = Frames::new(false);
        assert_eq!(all(&mut frames, &bytes.concat()), ["job 1 accepted", "warning"]);
        let mut rest = Vec::new();
        frames.rest(|line, _| rest.push(line.to_owned()));
        assert_eq!(rest, ["job 2"]);
    }

    #[test]
    fn with_a_terminal_the_bytes_are_the_containers_own() {
        assert_eq!(all(&mut Frames::new(true), b"\x01job\r\n"), ["\u{1}job"]);
    }

    #[test]
    fn a_stream_that_lost_its_place_is_refused() {
        assert!(Frames::new(false).take(b"job 1 accepted\n", |_, _| {}).is_err());
        assert!(Frames::new(false).take(&[4, 0, 0, 0, 0, 0, 0, 0], |_, _| {}).is_err());
    }

    proptest! {
        #[test]
        fn however_the_stream_is_cut_the_lines_are_the_same(
            pieces in prop::collection::vec((1_u8..3, "[a\n話]{0,12}"), 0..20),
            cuts in prop::collection::vec(1_usize..20, 0..60),
        ) {
            let bytes: Vec<u8> =
                pieces.iter().flat_map(|(stream, text)| piece(*stream, text.as_bytes())).collect();
            let expected = all(&mut Frames::new(false), &bytes);
            let mut frames = Frames::new(false);
            let (mut seen, mut rest) = (Vec::new(), bytes.as_slice());
            for cut in cuts {
                let (now, later) = rest.split_at(cut.min(rest.len()));
                seen.extend(all(&mut frames, now));
                rest = later;
            }
            seen.extend(all(&mut frames, rest));
            prop_assert_eq!(seen, expected);
        }

        #[test]
        fn no_bytes_make_it_panic_or_take_memory(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Frames::new(false).take(&bytes, |_, _| {});
        }
    }
}
