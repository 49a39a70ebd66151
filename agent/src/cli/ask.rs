//! One question to the agent of this node, over its socket.
//!
//! Takes a question as JSON; gives the document, or [`Trouble`]: what is wrong, what to type and the
//! exit number. Blocking and bounded in time and bytes; never opens the spool, never touches a driver.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use diarwatch_shared::daemon::talk;
use diarwatch_shared::exit::Exit;
use serde_json::Value;

/// Bytes of an answer.
const ANSWER_BYTES_MAX: u64 = 16 << 20;

/// Why there is no answer, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trouble {
    /// What is wrong.
    pub(super) problem: String,
    /// What to type, when that is known.
    pub(super) hint: Option<String>,
    /// What the command ends with.
    pub(super) exit: Exit,
}

impl Trouble {
    pub(super) fn new(exit: Exit, problem: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { problem: problem.into(), hint: Some(hint.into()), exit }
    }

    /// Says it on stderr.
    pub(super) fn tell(&self) -> Exit {
        talk(&format!("error: {}", self.problem));
        if let Some(hint) = &self.hint {
            talk(&format!("try: {hint}"));
        }
        self.exit
    }
}

/// Asks; `question` has the key `ask`.
pub(super) fn ask(socket: &Path, question: &Value, timeout: Duration) -> Result<Value, Trouble> {
    let answer = exchange(socket, question, timeout).map_err(|error| unreachable(socket, &error, timeout))?;
    let document: Value = serde_json::from_slice(&answer).map_err(|error| {
        let problem = format!("the agent at {} answered something else than JSON: {error}", socket.display());
        Trouble::new(Exit::BadData, problem, "diarwatch --version; diarwatch-agent --version")
    })?;
    let text = |key: &str| document.get(key).and_then(Value::as_str);
    match text("problem").filter(|_| text("kind") == Some("error")) {
        Some(problem) => Err(refused(text("code"), problem)),
        None => Ok(document),
    }
}

/// A problem that the agent told; what to type about a refusal knows who asked.
fn refused(code: Option<&str>, problem: &str) -> Trouble {
    let exit = match code {
        Some("no_permission") => Exit::NoPermission,
        Some("no_such_worker") => Exit::Unknown,
        Some("refused") => Exit::Refused,
        Some("try_again") => Exit::Temporary,
        _ => {
            let hint = "sudo systemctl restart diarwatch-agent   (it may be older than this command)";
            return Trouble::new(Exit::BadData, problem, hint);
        }
    };
    Trouble { problem: problem.to_owned(), hint: None, exit }
}

fn exchange(socket: &Path, question: &Value, timeout: Duration) -> io::Result<Vec<u8>> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    stream.write_all(format!("{question}\n").as_bytes())?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
    Ok(answer)
}

fn unreachable(socket: &Path, error: &io::Error, timeout: Duration) -> Trouble {
    let why = match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => format!("no whole answer within {timeout:?}"),
        _ => error.to_string(),
    };
    let problem = format!("no agent answers at {}: {why}", socket.display());
    if error.kind() == io::ErrorKind::PermissionDenied {
        let hint = "sudo usermod -aG diarwatch $USER   (then log in again)";
        return Trouble::new(Exit::NoPermission, problem, hint);
    }
    let hint = "systemctl status diarwatch-agent; journalctl -u diarwatch-agent -n 50";
    Trouble::new(Exit::Unreachable, problem, hint)
}
