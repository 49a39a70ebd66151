//! Words of a command: data on stdout, talk on stderr. A stream that is closed (`| head`) is no fault.

use std::io::Write;

/// Text for whoever reads the output.
pub fn say(text: &str) {
    drop(writeln!(std::io::stdout(), "{text}"));
}

/// A line for the person at the terminal. What it quotes may be anything: nothing in it reaches the
/// terminal as a command.
pub fn talk(line: &str) {
    drop(writeln!(std::io::stderr(), "{}", harmless(line)));
}

/// A text without control characters (but line ends) and without marks that turn the direction of what
/// follows; each becomes the mark for an unreadable character.
#[must_use]
pub fn harmless(text: &str) -> String {
    text.chars().map(|c| if is_harmful(c) && c != '\n' { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// Whether a character commands a terminal or turns the direction of a text.
#[must_use]
pub fn is_harmful(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_text_commands_a_terminal_or_turns_it() {
        assert_eq!(harmless("a\u{1b}[31mb\u{202e}c\n日本"), "a\u{fffd}[31mb\u{fffd}c\n日本");
    }
}
