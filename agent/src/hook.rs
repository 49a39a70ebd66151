//! Runs a [`Hook`]: tells something outside of a worker or a job. Takes the hook and the names; gives what
//! was answered, in a few words, or why it came to nothing. Never takes longer than the hook's time-out:
//! a program that does is killed with everything that it started, a call is dropped, a statement ended.
//!
//! Names stand for `{worker}` and `{job}` and are only ever one argument, a part of an address (escaped) or
//! of a JSON text (escaped), or the value `$1`. A job's id comes from a log, so it may be anything.

use std::fmt::Write as _;
use std::process::Stdio;
use std::time::Duration;

use diarwatch_shared::node::WorkerId;
use reqwest::Method;
use reqwest::header::CONTENT_TYPE;
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;
use tokio::time::timeout;

use crate::config::worker::hook::Hook;
use crate::masking::mask;
use crate::probe::{client, for_people, root_cause};
use crate::queue::postgres;

/// Bytes of a program's output, or of an answer, that are kept for its words.
pub const OUTPUT_BYTES_MAX: usize = 4 * 1024;
/// How long the output of a program that ended is waited for: something it started may hold the pipe.
const OUTPUT_WAIT: Duration = Duration::from_millis(200);
/// What systemd gave to the agent alone.
const OWN_VARIABLES: [&str; 6] =
    ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "CREDENTIALS_DIRECTORY"];

/// Runs it once; `job` is none where a hook is about a worker.
///
/// # Errors
/// When it is not done within its time-out, or not with success: what was asked and what came back, masked.
pub async fn run(hook: &Hook, worker: &WorkerId, job: Option<&str>) -> Result<String, String> {
    let names = Names { worker: worker.as_str(), job: job.unwrap_or_default() };
    let ran = if let Some(command) = &hook.command {
        program(command, &names, hook.timeout.0).await
    } else if let Some(url) = &hook.url {
        within(hook.timeout.0, call(hook, url, &names)).await
    } else if let Some((sql, database)) = hook.sql.as_ref().zip(hook.postgres.as_ref()) {
        let value = job.unwrap_or(worker.as_str());
        let place = (database.connection_file.as_deref(), database.connection.as_deref());
        within(hook.timeout.0, postgres::execute(place, sql, value, hook.timeout.0)).await
    } else {
        Err(String::from("a hook without command, url and sql; write one of them"))
    };
    ran.map(|words| said(&words)).map_err(|problem| said(&problem))
}

/// What stands for the placeholders.
struct Names<'a> {
    worker: &'a str,
    job: &'a str,
}

impl Names<'_> {
    /// The text with each name put in as `escape` gives it. Names are put in at once: a placeholder in a
    /// job's id is only text.
    fn fill(&self, text: &str, escape: impl Fn(&str) -> String) -> String {
        let mut filled = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('{') {
            let (before, from) = rest.split_at(at);
            filled.push_str(before);
            let names = [("{worker}", self.worker), ("{job}", self.job)];
            let found = names.into_iter().find_map(|(word, name)| Some((from.strip_prefix(word)?, name)));
            rest = if let Some((after, name)) = found {
                filled.push_str(&escape(name));
                after
            } else {
                filled.push('{');
                from.get(1..).unwrap_or_default()
            };
        }
        filled + rest
    }
}

async fn within<T>(limit: Duration, run: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    timeout(limit, run).await.unwrap_or_else(|_| Err(late(limit)))
}

fn late(limit: Duration) -> String {
    format!("not done within {} s", limit.as_secs_f64())
}

/// Runs a program in a process group of its own; what of it holds the output open is killed afterwards.
async fn program(command: &[String], names: &Names<'_>, limit: Duration) -> Result<String, String> {
    let mut parts = command.iter().map(|part| names.fill(part, str::to_owned));
    let name = parts.next().ok_or("the hook's command is empty")?;
    let mut command = Command::new(&name);
    command.args(parts).process_group(0).kill_on_drop(true).current_dir("/");
    for variable in OWN_VARIABLES {
        command.env_remove(variable);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| format!("run `{name}`: {error}"))?;
    let group = Group(child.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?)));
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let mut words = tokio::spawn(async move {
        let (stdout, stderr) = tokio::join!(first_of(stdout), first_of(stderr));
        // What went wrong is on stderr.
        [stderr, stdout].concat()
    });
    let status = timeout(limit, child.wait()).await;
    if status.is_err() {
        drop(group);
        drop(child.wait().await);
        words.abort();
        return Err(format!("`{name}`: {}; it was killed", late(limit)));
    }
    let spoke = timeout(OUTPUT_WAIT, &mut words).await;
    if spoke.is_ok() {
        // Nothing is known to be left of the group, and its number may belong to another by now.
        group.forget();
    } else {
        drop(group);
    }
    words.abort();
    let output = spoke.ok().and_then(Result::ok).unwrap_or_default();
    let output = String::from_utf8_lossy(&output);
    match status {
        Ok(Ok(status)) if status.success() => Ok(output.into_owned()),
        Ok(Ok(status)) => Err(format!("`{name}`: {status}: {}", output.trim())),
        Ok(Err(error)) => Err(format!("`{name}`: {error}")),
        Err(_) => Err(late(limit)),
    }
}

/// A process group; what is left of it is killed with this, also when the future is dropped.
struct Group(Option<Pid>);

impl Group {
    fn forget(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            kill_process_group(group, Signal::KILL).ok();
        }
    }
}

/// The first bytes of a stream; the rest is read and dropped, so that its writer never waits.
async fn first_of(from: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let mut first = Vec::new();
    if let Some(mut from) = from {
        drop((&mut from).take(OUTPUT_BYTES_MAX as u64).read_to_end(&mut first).await);
        drop(tokio::io::copy(&mut from, &mut tokio::io::sink()).await);
    }
    first
}

async fn call(hook: &Hook, url: &str, names: &Names<'_>) -> Result<String, String> {
    let url = names.fill(url, percent);
    let method = Method::from_bytes(hook.method.as_bytes())
        .map_err(|_| format!("`{}` is no method of HTTP; write POST", hook.method))?;
    let body = match &hook.body {
        Some(body) => names.fill(body, in_json),
        None if names.job.is_empty() => json!({ "worker": names.worker }).to_string(),
        None => json!({ "worker": names.worker, "job": names.job }).to_string(),
    };
    let shown = format!("{method} {url}");
    let failed = |error: reqwest::Error| format!("{shown}: {}", root_cause(&error));
    let client = client().map_err(|error| error.to_string())?;
    let request = client.request(method, &url).header(CONTENT_TYPE, "application/json").body(body);
    let mut response = request.send().await.map_err(failed)?;
    let mut words = Vec::new();
    // The rest of a long answer is not waited for.
    while words.len() < OUTPUT_BYTES_MAX {
        let Some(chunk) = response.chunk().await.map_err(failed)? else { break };
        let room = OUTPUT_BYTES_MAX.saturating_sub(words.len()).min(chunk.len());
        words.extend_from_slice(chunk.get(..room).unwrap_or_default());
    }
    let words = String::from_utf8_lossy(&words);
    let status = response.status();
    if status.is_success() {
        Ok(format!("{status}: {words}"))
    } else {
        Err(format!("{shown}: {status}: {words}"))
    }
}

/// A name as a part of an address: everything but letters, digits, `-`, `.`, `_` and `~` is escaped.
fn percent(name: &str) -> String {
    name.bytes().fold(String::new(), |mut escaped, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            // Writing to a text does not fail.
            write!(escaped, "%{byte:02X}").ok();
        }
        escaped
    })
}

/// A name within the quotes of a JSON text.
fn in_json(name: &str) -> String {
    let quoted = Value::from(name).to_string();
    quoted.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or_default().to_owned()
}

fn said(words: &str) -> String {
    for_people(mask(words).trim())
}

#[cfg(test)]
mod tests;
