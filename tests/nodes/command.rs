//! Commands and waiting. Takes a program and its words; gives what it said and how it ended, as a text
//! when it went wrong. Nothing here waits without a limit.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use diarwatch_shared::clock;

/// What waits longer than this has failed, unless it names a limit of its own.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Between looks at what is waited for.
const LOOK: Duration = Duration::from_millis(20);

/// How a command ended and what it said.
#[derive(Clone, Debug)]
pub(crate) struct Output {
    /// The exit number; 128 + N for signal N.
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Output {
    /// What it wrote to stdout, without the last line's end, when it ended well.
    pub(crate) fn ok(self) -> Result<String, String> {
        match self.code {
            0 => Ok(self.out.trim_end().to_owned()),
            code => Err(format!("exit {code}: {} {}", self.err.trim(), self.out.trim())),
        }
    }
}

/// Runs a program to its end, or for [`PATIENCE`].
pub(crate) fn run(words: &[&str], input: &[u8]) -> Result<Output, String> {
    run_within(PATIENCE, words, input)
}

/// Runs a program to its end, or for so long.
pub(crate) fn run_within(limit: Duration, words: &[&str], input: &[u8]) -> Result<Output, String> {
    let said = |error| format!("{}: {error}", words.join(" "));
    let mut limited = Command::new("timeout");
    limited.args(["--kill-after=1", &limit.as_secs().to_string()]).args(words);
    let pipes = limited.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = pipes.spawn().map_err(said)?;
    // Who does not read its input has ended, and its exit says why.
    drop(child.stdin.take().map(|mut pipe| pipe.write_all(input)));
    let output = child.wait_with_output().map_err(said)?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    // `timeout` gives 128 + N for what a signal ended, and its own 124 for what took too long.
    let code = output.status.code().unwrap_or(-1);
    Ok(Output { code, out: text(&output.stdout), err: text(&output.stderr) })
}

/// The same for what has to end well.
pub(crate) fn must(words: &[&str]) -> Result<String, String> {
    run(words, b"")?.ok().map_err(|error| format!("{}: {error}", words.join(" ")))
}

/// Waits until something is so.
pub(crate) fn until(what: &str, limit: Duration, mut so: impl FnMut() -> bool) -> Result<(), String> {
    let end = clock::uptime() + limit;
    while !so() {
        if clock::uptime() > end {
            return Err(format!("waited {} s in vain for: {what}", limit.as_secs()));
        }
        std::thread::sleep(LOOK);
    }
    Ok(())
}
