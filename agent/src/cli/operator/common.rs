//! The one grammar: flags that mean the same in every command of `diarwatch`, and what is known of the
//! terminal. Which command takes which of them is [`super::grammar`]'s.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use diarwatch_shared::clock::Zone;
use diarwatch_shared::quantity::parse_duration;
use diarwatch_shared::texts::Lang;
use serde_json::Value;

use super::paint;
use crate::cli::ask::{Trouble, ask};
use crate::config::DEFAULT_SOCKET;

/// The shortest time between two looks of `--watch`, in seconds.
const WATCH_SECONDS_MIN: f64 = 0.1;
/// The longest, an hour.
const WATCH_SECONDS_MAX: f64 = 3_600.0;
/// Columns that a terminal has at least.
const COLUMNS_MIN: u16 = 20;

/// Flags of every command; each has an environment twin.
#[derive(Clone, Debug, Args)]
pub(super) struct Common {
    /// The agent's socket.
    #[arg(long, global = true, env = "DIARWATCH_SOCKET", default_value = DEFAULT_SOCKET, value_name = "PATH")]
    pub(super) socket: PathBuf,
    /// Form of the answer.
    #[arg(short, long, global = true, env = "DIARWATCH_OUTPUT", value_enum, default_value_t = Form::Table)]
    pub(super) output: Form,
    /// Short for `-o json`.
    #[arg(long, global = true)]
    pub(super) json: bool,
    /// Ask again every so many seconds until Ctrl-C.
    #[arg(short, long, global = true, value_name = "SECONDS", num_args = 0..=1, require_equals = true, default_missing_value = "2", value_parser = parse_watch)]
    pub(super) watch: Option<f64>,
    /// How far back, such as `15m`.
    #[arg(long, global = true, value_name = "DURATION", value_parser = parse_duration)]
    pub(super) since: Option<Duration>,
    /// Language of the text: ja or en; LC_ALL, LC_MESSAGES and LANG decide otherwise.
    #[arg(long, global = true, env = "DIARWATCH_LANG", value_parser = parse_lang)]
    pub(super) lang: Option<Lang>,
    /// Time zone of times that people read, an IANA name.
    #[arg(long, global = true, env = "DIARWATCH_TZ", default_value = "Asia/Tokyo", value_parser = Zone::named, value_name = "ZONE")]
    pub(super) tz: Zone,
    /// Colours; NO_COLOR and TERM=dumb are honoured.
    #[arg(long, global = true, env = "DIARWATCH_COLOR", value_enum, default_value_t = Colour::Auto)]
    pub(super) color: Colour,
    /// For the whole answer.
    #[arg(long, global = true, env = "DIARWATCH_TIMEOUT", default_value = "2s", value_parser = parse_timeout, value_name = "DURATION")]
    pub(super) timeout: Duration,
    /// Whether `timeout` is a person's own.
    #[arg(skip)]
    pub(super) timeout_given: bool,
    /// Ask the aggregator about all nodes instead of this node's agent.
    #[arg(long, global = true)]
    pub(super) fleet: bool,
    /// The aggregator's HTTP address, for `--fleet`.
    #[arg(
        long,
        global = true,
        value_parser = parse_address,
        env = "DIARWATCH_AGGREGATOR",
        default_value = "http://127.0.0.1:9441",
        value_name = "URL"
    )]
    pub(super) aggregator: String,
}

/// Form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Form {
    /// Columns for a terminal of 80.
    Table,
    /// Every column.
    Wide,
    /// One document with `schema` and `kind`.
    Json,
    /// One document a line and row.
    Ndjson,
    /// Comma-separated, with a head line.
    Csv,
}

/// When to use colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Colour {
    /// On a terminal.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl Common {
    /// The form that was asked for; `--json` wins.
    pub(super) fn form(&self) -> Form {
        if self.json { Form::Json } else { self.output }
    }

    /// The language that was asked for, else the locale's, else English.
    pub(super) fn lang(&self) -> Lang {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let locale = || variable("LC_ALL").or_else(|| variable("LC_MESSAGES")).or_else(|| variable("LANG"));
        self.lang.or_else(|| Lang::of(&locale()?)).unwrap_or(Lang::En)
    }

    /// Columns of the terminal; unknown where the output is none and COLUMNS does not say.
    pub(super) fn width(&self) -> Option<u16> {
        let said = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
        let terminal =
            || self.terminal().then(|| rustix::termios::tcgetwinsize(std::io::stdout()).ok()).flatten();
        said.or_else(|| terminal().map(|size| size.ws_col)).filter(|columns| *columns >= COLUMNS_MIN)
    }

    /// Whether a person sees the output.
    pub(super) fn terminal(&self) -> bool {
        std::io::stdout().is_terminal()
    }

    /// A text with marks of colour as it goes out.
    pub(super) fn finish(&self, text: &str) -> String {
        let colours = paint::wanted(self.color, self.terminal(), |name| std::env::var(name).ok());
        paint::finish(text, colours)
    }

    /// Asks this node's agent.
    pub(super) fn ask(&self, question: &Value) -> Result<Value, Trouble> {
        ask(&self.socket, question, self.timeout)
    }
}

fn parse_watch(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| format!("`{text}` is no number of seconds"))?;
    let good = (WATCH_SECONDS_MIN..=WATCH_SECONDS_MAX).contains(&seconds);
    good.then_some(seconds).ok_or_else(|| format!("write {WATCH_SECONDS_MIN} to {WATCH_SECONDS_MAX} seconds"))
}

fn parse_timeout(text: &str) -> Result<Duration, String> {
    match parse_duration(text)? {
        Duration::ZERO => Err(String::from("nobody answers in no time; write for example 2s")),
        timeout => Ok(timeout),
    }
}

/// Goes into a line that people paste: nothing that a shell would read as more than one word.
fn parse_address(text: &str) -> Result<String, String> {
    let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._~:/[]%@".contains(c);
    match rest.filter(|rest| !rest.is_empty() && rest.chars().all(plain)) {
        Some(_) => Ok(text.to_owned()),
        None => Err(String::from("it is not an address; write for example http://127.0.0.1:9441")),
    }
}

fn parse_lang(text: &str) -> Result<Lang, String> {
    Lang::of(text).ok_or_else(|| format!("`{text}` is not a language here; write ja or en"))
}
