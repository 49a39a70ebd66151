//! One GPU of a scenario: takes `key = value`, gives what each key is worth at a moment. Pure.

use crate::abi::Code;
use crate::expr::Expr;

/// Processes on one GPU.
const PROCESSES_MAX: usize = 256;
/// Bytes of a name or a UUID; nvml.h gives callers buffers of 96.
const TEXT_BYTES_MAX: usize = 95;

macro_rules! keys {
    ($($key:ident = $name:literal, $help:literal;)*) => {
        /// What a scenario can say about a GPU.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Key { $(#[doc = $help] $key,)* }

        impl Key {
            /// Every key.
            pub(crate) const ALL: &'static [Self] = &[$(Self::$key,)*];

            fn named(name: &str) -> Option<Self> {
                match name { $($name => Some(Self::$key),)* _ => None }
            }
        }
    };
}

keys! {
    Util = "util", "Utilisation, percent";
    MemUtil = "mem_util", "Memory bandwidth in use, percent";
    MemTotalMib = "mem_total_mib", "Memory of the card, MiB";
    MemUsedMib = "mem_used_mib", "Memory in use, MiB";
    MemReservedMib = "mem_reserved_mib", "Memory the driver keeps, MiB";
    Temp = "temp", "Temperature of the GPU, degrees Celsius";
    MemTemp = "mem_temp", "Temperature of the memory, degrees Celsius";
    PowerMw = "power_mw", "Power draw, mW";
    PowerLimitMw = "power_limit_mw", "Power limit, mW";
    SmMhz = "sm_mhz", "Clock of the multiprocessors, MHz";
    MemMhz = "mem_mhz", "Clock of the memory, MHz";
    Throttle = "throttle", "Reasons for lower clocks, a bit mask";
    EccCe = "ecc_ce", "Memory errors corrected";
    EccUe = "ecc_ue", "Memory errors not corrected";
    Enc = "enc", "Encoder in use, percent";
    Dec = "dec", "Decoder in use, percent";
    Fan = "fan", "Fan speed, percent";
    Pstate = "pstate", "Performance state, 0 is the fastest";
    Persistence = "persistence", "Persistence mode, 0 or 1";
    ComputeMode = "compute_mode", "Compute mode, 0 is the default";
    PcieTxKb = "pcie_tx_kb", "PCIe sent, KiB/s";
    PcieRxKb = "pcie_rx_kb", "PCIe received, KiB/s";
    Replay = "replay", "PCIe replays";
    SlowdownC = "slowdown_c", "Temperature of slowdown, degrees Celsius";
    ShutdownC = "shutdown_c", "Temperature of shutdown, degrees Celsius";
    Samples = "samples", "Samples in the driver's ring";
    SampleMs = "sample_ms", "Time between two of them, ms";
    Retired = "retired", "Retired pages";
    RemapPending = "remap_pending", "1 when a row waits to be remapped";
    Recovery = "recovery", "What the driver asks for: 0 nothing, 1 reset, 2 reboot, 3 drain P2P, 4 drain and reset";
}

/// A process that holds memory of a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    /// Its pid.
    pub(crate) pid: u32,
    /// Memory it holds, MiB.
    pub(crate) mib: u32,
    /// Multiprocessors it uses, percent.
    pub(crate) sm: u32,
    /// Memory bandwidth it uses, percent.
    pub(crate) memory: u32,
}

impl Process {
    /// Reads `PID:MIB:SM:MEMORY`; `self` is the process that loaded this library, and what is left
    /// out is 0.
    fn parse(text: &str) -> Option<Self> {
        let (pid, rest) = text.split_once(':').unwrap_or((text, "0"));
        let pid = if pid == "self" { std::process::id() } else { pid.parse().ok()? };
        let numbers: Vec<u32> = rest.split(':').map(|part| part.parse().ok()).collect::<Option<_>>()?;
        let number = |index: usize| numbers.get(index).copied().unwrap_or(0);
        Some(Self { pid, mib: number(0), sm: number(1), memory: number(2) })
    }
}

#[derive(Clone, Copy, Debug)]
enum Value {
    /// Not said at all.
    Unset,
    /// The card does not have it.
    Unsupported,
    Moving(Expr),
}

/// One GPU.
#[derive(Debug)]
pub(crate) struct Card {
    /// Name of the product.
    pub(crate) name: String,
    /// Identity that survives a change of order.
    pub(crate) uuid: String,
    /// Serial number of the board.
    pub(crate) serial: String,
    /// What runs on it.
    pub(crate) processes: Vec<Process>,
    values: Vec<Value>,
}

impl Card {
    /// The GPU of an index, before the scenario said anything about it.
    pub(crate) fn numbered(index: usize) -> Self {
        Self {
            name: String::new(),
            uuid: format!("GPU-fa4e0000-0000-4000-8000-{:012x}", index + 1),
            serial: format!("{:013}", 1_560_000_000_000_usize + index),
            processes: Vec::new(),
            values: vec![Value::Unset; Key::ALL.len()],
        }
    }

    /// Takes one line of the scenario.
    ///
    /// # Errors
    /// A fragment that says what is wrong with it.
    pub(crate) fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        match key {
            "name" => self.name = short(value)?,
            "uuid" => self.uuid = short(value)?,
            "serial" => self.serial = short(value)?,
            "procs" => self.processes = processes(value)?,
            _ => {
                let named = Key::named(key).ok_or_else(|| format!("`{key}` is not a key of a GPU"))?;
                let value = match value {
                    "unsupported" => Value::Unsupported,
                    _ => Value::Moving(Expr::parse(value).ok_or_else(|| not_a_value(value))?),
                };
                self.values.get_mut(named as usize).into_iter().for_each(|slot| *slot = value);
            }
        }
        Ok(())
    }

    /// What a key is worth `seconds` after the load of the file.
    pub(crate) fn read(&self, key: Key, seconds: f64) -> Result<f64, Code> {
        self.expr(key).map(|expr| expr.at(seconds))
    }

    /// What a counter of the key has gained by `seconds` after the load.
    pub(crate) fn gained(&self, key: Key, seconds: f64) -> Result<f64, Code> {
        self.expr(key).map(|expr| expr.area(seconds))
    }

    #[cfg(test)]
    pub(crate) fn is_set(&self, key: Key) -> bool {
        !matches!(self.values.get(key as usize), None | Some(Value::Unset))
    }

    fn expr(&self, key: Key) -> Result<Expr, Code> {
        match self.values.get(key as usize) {
            Some(Value::Moving(expr)) => Ok(*expr),
            _ => Err(Code::NOT_SUPPORTED),
        }
    }
}

fn short(value: &str) -> Result<String, String> {
    if value.len() > TEXT_BYTES_MAX {
        return Err(format!("a text has at most {TEXT_BYTES_MAX} bytes, this one has {}", value.len()));
    }
    Ok(value.to_owned())
}

fn processes(value: &str) -> Result<Vec<Process>, String> {
    let all: Vec<Process> = value
        .split_whitespace()
        .map(|text| {
            Process::parse(text).ok_or_else(|| format!("`{text}` is not a process; write PID:MIB:SM:MEMORY"))
        })
        .collect::<Result<_, _>>()?;
    if all.len() > PROCESSES_MAX {
        return Err(format!("at most {PROCESSES_MAX} processes are on a GPU, here are {}", all.len()));
    }
    Ok(all)
}

fn not_a_value(value: &str) -> String {
    format!("`{value}` is not a value; write a number, ramp(a,b,s), sine(a,b,s), noise(a,b) or unsupported")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_read_with_its_numbers() {
        let read = Process::parse("4242:2048:35:10");
        assert_eq!(read, Some(Process { pid: 4242, mib: 2048, sm: 35, memory: 10 }));
        assert_eq!(Process::parse("self:512").map(|process| process.pid), Some(std::process::id()));
        assert_eq!(Process::parse("x:1"), None);
    }

    #[test]
    fn what_a_card_does_not_have_is_not_zero() {
        let mut card = Card::numbered(0);
        card.set("ecc_ce", "7").unwrap();
        assert_eq!(card.read(Key::EccCe, 0.0), Ok(7.0));
        card.set("ecc_ce", "unsupported").unwrap();
        assert_eq!(card.read(Key::EccCe, 0.0), Err(Code::NOT_SUPPORTED));
    }
}
