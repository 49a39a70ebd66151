//! Words of a command: data on stdout, talk on stderr. A stream that is closed (`| head`) is no fault.

use std::io::Write;

/// Text for whoever reads the output.
pub fn say(text: &str) {
    drop(writeln!(std::io::stdout(), "{text}"));
}

/// A line for the person at the terminal.
pub fn talk(line: &str) {
    drop(writeln!(std::io::stderr(), "{line}"));
}
