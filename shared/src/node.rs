//! Names of things, each with its own type: a node, a worker, a run of the agent.
//!
//! Takes text from a certificate, a file or the network; gives a checked name or says what is wrong.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::limits::NAME_BYTES_MAX;

/// Why a name was refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{name}` is not a valid name: {reason}")]
pub struct BadName {
    /// The name as it was given, cut to a sane length.
    pub name: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

fn check(name: &str) -> Result<(), BadName> {
    let refuse = |reason| Err(BadName { name: name.chars().take(80).collect(), reason });
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if name.is_empty() {
        return refuse("it is empty");
    }
    if name.len() > NAME_BYTES_MAX {
        return refuse("it is longer than 63 bytes");
    }
    if !name.chars().all(allowed) {
        return refuse("only a-z, 0-9 and `-` are allowed");
    }
    if name.starts_with('-') || name.ends_with('-') {
        return refuse("it starts or ends with `-`");
    }
    Ok(())
}

macro_rules! name_type {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(String);

        impl $type {
            /// Checks and takes the name.
            ///
            /// # Errors
            /// When it is not a DNS label in lower case.
            pub fn new(name: impl Into<String>) -> Result<Self, BadName> {
                let name = name.into();
                check(&name)?;
                Ok(Self(name))
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $type {
            type Error = BadName;
            fn try_from(name: String) -> Result<Self, BadName> {
                Self::new(name)
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> Self {
                name.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

name_type! {
    /// A GPU host. A DNS label, because it stands in the host's certificate.
    NodeId
}

name_type! {
    /// A worker on a host; unique on that host.
    WorkerId
}

name_type! {
    /// A queue that a host watches; unique on that host.
    QueueId
}

/// One run of the agent: new at each start, greater than every one before it on that host.
///
/// A tail that a power cut took could otherwise see its numbers used again for other frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The epoch of a run that starts at `unix_micros`, given the newest one the host remembers.
    #[must_use]
    pub fn next(newest: Option<Self>, unix_micros: u64) -> Self {
        let floor = newest.map_or(0, |epoch| epoch.0.saturating_add(1));
        Self(unix_micros.max(floor))
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A frame's place in its epoch: 0, 1, 2, ... without a hole.
pub type Seq = u64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dns_labels() {
        assert!(NodeId::new("gpu-01").is_ok());
        for bad in ["", "GPU-01", "a.b", "-a", "a-", "ノード", "a b", "a\n"] {
            assert!(NodeId::new(bad).is_err(), "{bad:?}");
        }
        assert!(NodeId::new("a".repeat(64)).is_err());
    }

    #[test]
    fn an_epoch_grows_even_when_the_clock_went_back() {
        let first = Epoch::next(None, 1_000);
        let second = Epoch::next(Some(first), 10);
        assert!(second > first);
    }
}
