//! Texts of /proc to numbers. Pure; what does not parse is `None`, never 0.

/// Kernel ticks per second in /proc (`USER_HZ`, 100 on every Linux that runs here).
pub const TICKS_PER_SECOND: f64 = 100.0;

/// CPU time since boot, in kernel ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuTimes {
    total: u64,
    idle: u64,
}

impl CpuTimes {
    /// The part of the time since `earlier` that was not idle; `None` when no time has passed.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "differences of ticks are small")]
    pub fn busy_since(self, earlier: Self) -> Option<f64> {
        let total = self.total.checked_sub(earlier.total).filter(|total| *total > 0)?;
        let idle = self.idle.saturating_sub(earlier.idle).min(total);
        Some((total - idle) as f64 / total as f64)
    }
}

/// The first line of /proc/stat.
#[must_use]
pub fn cpu_times(stat: &str) -> Option<CpuTimes> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    // user nice system idle iowait irq softirq steal; guest time is inside user.
    let fields: Vec<u64> = line.split_whitespace().take(8).map_while(|field| field.parse().ok()).collect();
    let idle = fields.get(3)?.checked_add(*fields.get(4)?)?;
    let total = fields.iter().try_fold(0_u64, |sum, field| sum.checked_add(*field))?;
    Some(CpuTimes { total, idle })
}

/// A process, of /proc/PID/stat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessStat {
    /// `R`, `S`, `D`, `Z`, ...
    pub state: char,
    /// Its process group.
    pub group: u32,
    /// User and system time of it and of its children that were waited for, in kernel ticks.
    pub cpu_ticks: u64,
    /// When it started, in kernel ticks since boot.
    pub start_ticks: u64,
}

impl ProcessStat {
    /// Whether it still runs; one that only waits to be reaped does not.
    #[must_use]
    pub fn lives(&self) -> bool {
        !matches!(self.state, 'Z' | 'X' | 'x')
    }
}

/// /proc/PID/stat; its second field, the name, may hold anything, also `)`.
#[must_use]
pub fn process_stat(stat: &str) -> Option<ProcessStat> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    Some(ProcessStat {
        state: fields.first()?.chars().next()?,
        group: fields.get(2)?.parse().ok()?,
        cpu_ticks: [11, 12, 13, 14].into_iter().filter_map(number).sum(),
        start_ticks: number(19)?,
    })
}

/// Memory of the host, bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Memory {
    /// All of it.
    pub total: f64,
    /// What is not available for new work.
    pub used: f64,
}

/// /proc/meminfo.
#[must_use]
pub fn memory(meminfo: &str) -> Option<Memory> {
    let kib = |name: &str| -> Option<f64> {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        first_number(line)
    };
    let (total, available) = (kib("MemTotal")?, kib("MemAvailable")?);
    Some(Memory { total: total * 1024.0, used: (total - available).max(0.0) * 1024.0 })
}

/// The `some` line's `total` of a /proc/pressure file, in seconds.
#[must_use]
pub fn pressure_seconds(text: &str) -> Option<f64> {
    let line = text.lines().find(|line| line.starts_with("some "))?;
    let micros: u64 = line.split_whitespace().find_map(|word| word.strip_prefix("total="))?.parse().ok()?;
    #[expect(clippy::cast_precision_loss, reason = "microseconds of a host's life fit 53 bits")]
    Some(micros as f64 / 1e6)
}

/// utime + stime of a /proc/PID/stat, in seconds. The name may hold spaces and parentheses.
#[must_use]
pub fn process_cpu_seconds(stat: &str) -> Option<f64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    #[expect(clippy::cast_precision_loss, reason = "ticks of a process' life fit 53 bits")]
    Some(user.checked_add(system)? as f64 / TICKS_PER_SECOND)
}

/// `VmRSS` of a /proc/PID/status, in bytes.
#[must_use]
pub fn resident_bytes(status: &str) -> Option<f64> {
    status.lines().find_map(|line| line.strip_prefix("VmRSS:")).and_then(first_number).map(|kib| kib * 1024.0)
}

/// The first number of a line.
#[must_use]
pub fn first_number(text: &str) -> Option<f64> {
    text.split_whitespace().next()?.parse().ok().filter(|number: &f64| number.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn busy_is_what_was_not_idle_nor_waiting() {
        let before = cpu_times("cpu  100 0 100 700 100 0 0 0 0 0\ncpu0 ...").unwrap();
        let after = cpu_times("cpu  150 0 100 725 125 0 0 0 0 0\n").unwrap();
        assert_eq!(after.busy_since(before), Some(0.5));
        assert_eq!(before.busy_since(before), None);
    }

    #[test]
    fn memory_in_use_is_what_is_not_available() {
        let memory = memory("MemTotal:       1000 kB\nMemFree: 1 kB\nMemAvailable:    400 kB\n").unwrap();
        assert_eq!(memory, Memory { total: 1_024_000.0, used: 614_400.0 });
    }

    #[test]
    fn a_process_name_with_spaces_and_parentheses_is_no_trap() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194560 1 0 0 0 150 50 0 0 20 0 1 0 1 1 1";
        assert_eq!(process_cpu_seconds(stat), Some(2.0));
    }

    #[test]
    fn pressure_is_the_total_of_some() {
        let text = "some avg10=0.00 avg60=0.00 avg300=0.00 total=1500000\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=9\n";
        assert_eq!(pressure_seconds(text), Some(1.5));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,120}") {
            let _ = (cpu_times(&text), memory(&text), pressure_seconds(&text), process_cpu_seconds(&text));
            let _ = (cpu_times(&format!("cpu {text}")), resident_bytes(&format!("VmRSS: {text}")));
        }
    }
}
