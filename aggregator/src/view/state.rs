//! How something stands, and the lines of the requirements (10.1.1) that decide it. Pure.

use diarwatch_shared::texts::{Lang, Text};
use serde::{Deserialize, Serialize};

use crate::notify::message::Level;

/// How something stands; the worst is the largest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Nothing is wrong.
    Ok,
    /// Nothing is known: never green, never red.
    Unknown,
    /// Somebody has to look.
    Warning,
    /// Somebody has to act.
    Critical,
}

impl State {
    /// The word of data attributes, JSON and the style sheet.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Unknown => "unknown",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }

    /// Its shape: colour is never the only carrier.
    #[must_use]
    pub fn shape(self) -> &'static str {
        match self {
            Self::Ok => "●",
            Self::Unknown => "○",
            Self::Warning => "▲",
            Self::Critical => "■",
        }
    }

    /// The mark behind a number.
    #[must_use]
    pub fn mark(self) -> &'static str {
        match self {
            Self::Ok => "✓",
            other => other.shape(),
        }
    }

    /// What a person reads.
    #[must_use]
    pub fn label(self, lang: Lang) -> &'static str {
        let text = match self {
            Self::Ok => Text::Ok,
            Self::Unknown => Text::NoData,
            Self::Warning => Text::Warning,
            Self::Critical => Text::Critical,
        };
        text.in_lang(lang)
    }
}

impl From<Level> for State {
    fn from(level: Level) -> Self {
        match level {
            Level::Critical => Self::Critical,
            Level::Warning => Self::Warning,
            Level::Ok => Self::Ok,
        }
    }
}

/// From which value on something is a warning and critical.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Lines {
    /// From here on somebody has to look.
    pub warning: f64,
    /// From here on somebody has to act.
    pub critical: f64,
}

/// APIレスポンスタイム (P95), seconds.
pub const API_P95: Lines = Lines { warning: 1.0, critical: 3.0 };
/// エラー率.
pub const ERROR_RATE: Lines = Lines { warning: 0.01, critical: 0.05 };
/// Sessions, as part of what there may be (the row of WebSocket connections).
pub const SESSIONS: Lines = Lines { warning: 0.80, critical: 0.95 };
/// 話者分離キュー長.
pub const QUEUE: Lines = Lines { warning: 10.0, critical: 50.0 };
/// pyannote GPU使用率.
pub const GPU_UTILIZATION: Lines = Lines { warning: 0.90, critical: 0.98 };
/// pyannote メモリ使用率.
pub const GPU_MEMORY: Lines = Lines { warning: 0.85, critical: 0.95 };

impl Lines {
    /// How a value stands; what is not known is no warning.
    #[must_use]
    pub fn judge(self, value: Option<f64>) -> State {
        match value {
            Some(value) if value >= self.critical => State::Critical,
            Some(value) if value >= self.warning => State::Warning,
            Some(value) if value.is_nan() => State::Unknown,
            Some(_) => State::Ok,
            None => State::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_counts_from_its_own_value_on_and_the_unknown_is_neither_good_nor_bad() {
        for (value, state) in [
            (Some(9.0), State::Ok),
            (Some(10.0), State::Warning),
            (Some(49.0), State::Warning),
            (Some(50.0), State::Critical),
            (None, State::Unknown),
            (Some(f64::NAN), State::Unknown),
        ] {
            assert_eq!(QUEUE.judge(value), state, "{value:?}");
        }
        assert!(State::Unknown > State::Ok && State::Unknown < State::Warning);
    }
}
