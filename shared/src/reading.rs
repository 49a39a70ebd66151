//! A value, or the reason why there is none. Lost, absent, unknown and 0 are four different things.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Why a value could not be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Missing {
    /// The device or kernel does not offer it.
    NotSupported = 1,
    /// The device was there and is gone.
    Lost = 2,
    /// No driver is installed or loaded.
    NoDriver = 3,
    /// The source did not answer in time.
    Timeout = 4,
    /// It is too early: a rate needs two readings, a worker is still loading.
    NotYet = 5,
    /// The agent may not read it.
    NoPermission = 6,
    /// The source answered with an error of another kind.
    Failed = 7,
}

impl Missing {
    /// The reason of a number on the wire; an unknown one is [`Missing::Failed`].
    #[must_use]
    pub fn from_wire(code: u8) -> Self {
        match code {
            1 => Self::NotSupported,
            2 => Self::Lost,
            3 => Self::NoDriver,
            4 => Self::Timeout,
            5 => Self::NotYet,
            6 => Self::NoPermission,
            _ => Self::Failed,
        }
    }

    /// The word used in JSON and on the command line.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::NotSupported => "not_supported",
            Self::Lost => "lost",
            Self::NoDriver => "no_driver",
            Self::Timeout => "timeout",
            Self::NotYet => "not_yet",
            Self::NoPermission => "no_permission",
            Self::Failed => "failed",
        }
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// What one look at one source gave.
pub type Reading = Result<f64, Missing>;
