//! What the sampler child says to the agent over its pipe: length (u32, little endian) and one
//! rkyv archive. Both ends are the same binary, so the form may change with it; it is still checked.

#![expect(missing_docs, reason = "rkyv gives its archived enum fields without docs")]

use std::io::{self, Write};

use diarwatch_shared::reading::{Missing, Reading};
use rkyv::rancor;
use rkyv::util::AlignedVec;

/// Bytes of one message.
pub const MESSAGE_BYTES_MAX: usize = 256 * 1024;
/// Processes of one GPU that are told, those with most memory first.
pub const PROCESSES_MAX: usize = 256;

/// One message of the sampler.
#[derive(Debug, PartialEq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub enum Message {
    /// No driver could be loaded; the sampler ends.
    Absent {
        /// Why, for a person.
        reason: String,
    },
    /// The driver answers and these GPUs are there.
    Found {
        /// Version of the driver.
        driver: String,
        /// Whether the loaded library is a fake.
        simulated: bool,
        /// The GPUs, by index.
        gpus: Vec<GpuFacts>,
    },
    /// Values of one tier.
    Tick {
        /// Which tier.
        tier: u8,
        /// Wall clock, microseconds.
        at_us: u64,
        /// Per GPU, the tier's values in the order of the tier's metrics.
        gpus: Vec<Vec<Value>>,
    },
    /// The processes on one GPU.
    Processes {
        /// Its place in the list of GPUs.
        gpu: u32,
        /// What runs there.
        list: Processes,
    },
    /// What the driver wants done about one GPU.
    Recovery {
        /// Its place in the list of GPUs.
        gpu: u32,
        /// NVML's number of it.
        action: Value,
    },
    /// The driver reported an error of a GPU.
    Xid {
        /// Its place in the list of GPUs; none when the driver did not say.
        gpu: Option<u32>,
        /// The XID.
        code: u32,
    },
    /// Whether the driver reports errors by itself.
    Reports {
        /// Why not, for a person, about the GPUs of which it does not.
        problem: Option<String>,
    },
    /// A driver call does not return.
    Stuck {
        /// The NVML function.
        function: String,
        /// The GPU last entered.
        gpu: Option<u32>,
    },
    /// The call returned after all.
    Unstuck,
}

/// What does not change about a GPU while the driver stays loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct GpuFacts {
    /// Index at the driver: for people, never an identity.
    pub index: u32,
    /// Identity; empty when the GPU is there but cannot be opened.
    pub uuid: String,
    /// Product name; empty like the UUID.
    pub name: String,
    /// Its place on the PCI bus, `00000000:01:00.0`; empty when it is not known.
    pub bus: String,
}

/// The processes on a GPU.
#[derive(Clone, Debug, PartialEq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub enum Processes {
    /// Those that there are.
    Are {
        /// The ones that hold most memory, at most [`PROCESSES_MAX`].
        shown: Vec<Process>,
        /// Whether there are no others.
        all: bool,
    },
    /// They cannot be had: the number of a [`Missing`].
    Missing(u8),
}

/// One process on a GPU.
#[derive(Clone, Copy, Debug, PartialEq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct Process {
    /// Its pid, in the agent's pid namespace.
    pub pid: u32,
    /// Memory of the GPU that it holds, bytes.
    pub memory: Value,
    /// Part of the last second in which its kernels ran, 0 to 1.
    pub sm: Value,
}

/// A [`Reading`] in the pipe.
#[derive(Clone, Copy, Debug, PartialEq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct Value {
    value: f64,
    missing: u8,
}

impl From<Reading> for Value {
    fn from(reading: Reading) -> Self {
        match reading {
            Ok(value) => Self { value, missing: 0 },
            Err(missing) => Self { value: 0.0, missing: missing as u8 },
        }
    }
}

impl From<Value> for Reading {
    fn from(value: Value) -> Self {
        if value.missing == 0 { Ok(value.value) } else { Err(Missing::from_wire(value.missing)) }
    }
}

/// Writes one message.
///
/// # Errors
/// When the pipe is closed: the agent is gone.
pub fn write(out: &mut impl Write, message: &Message) -> io::Result<()> {
    let body = rkyv::to_bytes::<rancor::Error>(message).map_err(io::Error::other)?;
    let length = u32::try_from(body.len()).map_err(io::Error::other)?;
    out.write_all(&length.to_le_bytes())?;
    out.write_all(&body)?;
    out.flush()
}

/// Reads a message's body.
///
/// # Errors
/// When the bytes are not a message.
pub fn parse(body: &[u8]) -> io::Result<Message> {
    let mut aligned = AlignedVec::<16>::with_capacity(body.len());
    aligned.extend_from_slice(body);
    rkyv::from_bytes::<Message, rancor::Error>(&aligned).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_message_comes_back() {
        let gpus = vec![vec![Value::from(Ok(0.5)), Value::from(Err(Missing::Lost))]];
        let message = Message::Tick { tier: 1, at_us: 5, gpus };
        let mut bytes = Vec::new();
        write(&mut bytes, &message).unwrap();
        assert_eq!(parse(&bytes[4..]).unwrap(), message);
    }

    #[test]
    fn the_longest_list_of_processes_fits_a_message() {
        let process = Process { pid: u32::MAX, memory: Value::from(Ok(1e300)), sm: Value::from(Ok(1.0)) };
        let list = Processes::Are { shown: vec![process; PROCESSES_MAX], all: false };
        let mut bytes = Vec::new();
        write(&mut bytes, &Message::Processes { gpu: 63, list }).unwrap();
        assert!(bytes.len() < MESSAGE_BYTES_MAX / 8, "{}", bytes.len());
    }

    proptest! {
        #[test]
        fn foreign_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }
    }
}
