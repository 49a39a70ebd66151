//! The one grammar: flags that mean the same in every command of `diarwatch`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use diarwatch_shared::clock::Zone;
use diarwatch_shared::quantity::parse_duration;
use diarwatch_shared::texts::Lang;
use serde_json::Value;

use crate::cli::ask::{Trouble, ask};
use crate::config::DEFAULT_SOCKET;

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
    #[arg(short, long, global = true, value_name = "SECONDS", num_args = 0..=1, require_equals = true, default_missing_value = "2")]
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
    #[arg(long, global = true, env = "DIARWATCH_TIMEOUT", default_value = "2s", value_parser = parse_duration, value_name = "DURATION")]
    pub(super) timeout: Duration,
    /// Ask the aggregator about all nodes instead of this node's agent.
    #[arg(long, global = true)]
    pub(super) fleet: bool,
    /// The aggregator's HTTP address, for `--fleet`.
    #[arg(
        long,
        global = true,
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

    /// Asks this node's agent.
    pub(super) fn ask(&self, question: &Value) -> Result<Value, Trouble> {
        ask(&self.socket, question, self.timeout)
    }
}

fn parse_lang(text: &str) -> Result<Lang, String> {
    Lang::of(text).ok_or_else(|| format!("`{text}` is not a language here; write ja or en"))
}
