//! The exit numbers of every diarwatch binary, one table for all (sysexits.h where it has a word).

use std::process::ExitCode;

/// What a command ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Ok = 0,
    /// A check found something that a person should look at.
    Warning = 1,
    /// A check found a failure, or the run failed.
    Critical = 2,
    /// Asked for something that does not exist.
    Unknown = 3,
    /// The command line was wrong (EX_USAGE).
    Usage = 64,
    /// A rule file or other data file is wrong (EX_DATAERR).
    BadData = 65,
    /// The agent or the aggregator does not answer (EX_UNAVAILABLE).
    Unreachable = 69,
    /// Something that may pass by itself (EX_TEMPFAIL).
    Temporary = 75,
    /// No permission (EX_NOPERM).
    NoPermission = 77,
    /// The configuration, or a file it names, is wrong (EX_CONFIG).
    BadConfig = 78,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
