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
    /// Not done: something is in the way that only a person may move.
    Refused = 4,
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

impl Exit {
    /// Every exit with its meaning: the table that `--help` and the man pages print.
    pub const ALL: [(Self, &'static str); 11] = [
        (Self::Ok, "done"),
        (Self::Warning, "found something that a person should look at (doctor, status --exit-code)"),
        (Self::Critical, "found a failure (doctor, status --exit-code), or a service failed while it ran"),
        (Self::Unknown, "asked for something that does not exist; status --exit-code: not known yet"),
        (
            Self::Refused,
            "not done: something is in the way, such as a file that is there, or a worker that is held",
        ),
        (Self::Usage, "wrong command line"),
        (Self::BadData, "wrong data: a rule file, or an answer that is not understood"),
        (Self::Unreachable, "the agent or the aggregator does not answer"),
        (Self::Temporary, "may pass by itself: try again"),
        (Self::NoPermission, "no permission"),
        (Self::BadConfig, "the configuration, or a file it names, is wrong"),
    ];
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_each_number_once_and_in_order() {
        let numbers: Vec<u8> = Exit::ALL.iter().map(|(exit, _)| *exit as u8).collect();
        assert_eq!(numbers, [0, 1, 2, 3, 4, 64, 65, 69, 75, 77, 78]);
    }
}
