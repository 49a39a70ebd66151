//! The host source: CPU, memory, pressure and network each tick, disks beside it. The only file
//! that knows sysinfo.
//!
//! /proc files are kept open and read again (2 us instead of 60). Disks and interfaces are asked by
//! a thread of their own that leaves only its newest answer: a file system that hangs delays no tick,
//! its values become [`Missing::Timeout`].

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use diarwatch_shared::clock;
use diarwatch_shared::reading::{Missing, Reading};
use diarwatch_shared::schema::SeriesKey;
use sysinfo::{Disks, Networks};

use super::vitals::Vitals;
use super::{Sink, Tick};
use crate::board::Board;
use crate::proc_text::{self, CpuTimes};

/// How often disks and interfaces are asked.
const SLOW_INTERVAL: Duration = Duration::from_secs(5);
/// An answer of the slow thread that is older is not sent again.
const SLOW_MAX_AGE: Duration = Duration::from_secs(15);
/// A tick that is older than this, beyond its interval, is not shown: its thread is stuck or gone.
const TICK_MAX_AGE: Duration = Duration::from_secs(5);
/// Bytes read of one /proc file.
const PROC_BYTES_MAX: usize = 64 * 1024;
/// Resources with pressure stall information.
const PRESSURE: [&str; 3] = ["cpu", "io", "memory"];

/// Starts the host source on threads of its own.
pub fn start(interval: Duration, sink: Sink, board: Board) {
    let slow = Arc::new(Mutex::new(Slow::default()));
    let writer = Arc::clone(&slow);
    thread::spawn(move || ask_slowly(&writer));
    thread::spawn(move || {
        let mut host = Host::open();
        let mut vitals = Vitals::new(sink.clone());
        let mut due = clock::uptime();
        loop {
            let tick = host.tick(clock::uptime() + interval + TICK_MAX_AGE);
            board.update(|board| board.host = tick.clone());
            sink.tick(tick.into_tick());
            let newest = slow.lock().unwrap_or_else(PoisonError::into_inner).clone();
            newest.ticks(clock::uptime()).into_iter().for_each(|tick| sink.tick(tick));
            vitals.tick(&board);
            due = (due + interval).max(clock::uptime());
            thread::sleep(due.saturating_sub(clock::uptime()));
        }
    });
}

/// A /proc file that stays open.
struct Proc(io::Result<File>);

impl Proc {
    fn open(path: impl AsRef<Path>) -> Self {
        Self(File::open(path))
    }

    fn read(&self) -> Result<String, Missing> {
        let reason = |error: &io::Error| match error.kind() {
            io::ErrorKind::NotFound => Missing::NotSupported,
            io::ErrorKind::PermissionDenied => Missing::NoPermission,
            _ => Missing::Failed,
        };
        let file = self.0.as_ref().map_err(reason)?;
        let mut bytes = vec![0; PROC_BYTES_MAX];
        let count = file.read_at(&mut bytes, 0).map_err(|error| reason(&error))?;
        bytes.truncate(count);
        String::from_utf8(bytes).map_err(|_| Missing::Failed)
    }
}

struct Host {
    stat: Proc,
    meminfo: Proc,
    loadavg: Proc,
    uptime: Proc,
    pressure: [Proc; 3],
    last_cpu: Option<CpuTimes>,
    keys: Arc<[SeriesKey]>,
}

/// The host's values of one tick.
#[derive(Clone, Debug, Default)]
pub struct HostTick {
    keys: Option<Arc<[SeriesKey]>>,
    readings: Vec<Reading>,
    good_until: Duration,
}

impl HostTick {
    /// The value, at `now`, of a metric without labels of its own.
    pub fn value(&self, metric: &str, now: Duration) -> Reading {
        if self.keys.is_some() && now > self.good_until {
            return Err(Missing::Timeout);
        }
        let position = self.keys.as_ref().and_then(|keys| keys.iter().position(|key| key.metric == metric));
        position.and_then(|at| self.readings.get(at).copied()).unwrap_or(Err(Missing::NotYet))
    }

    fn into_tick(self) -> Tick {
        let keys = self.keys.unwrap_or_else(|| Arc::from([]));
        Tick { group: "host".into(), at: clock::now(), keys, readings: self.readings }
    }
}

impl Host {
    fn open() -> Self {
        let plain = [
            "host_cpu_utilization_ratio",
            "host_memory_used_bytes",
            "host_memory_total_bytes",
            "host_load1",
            "host_uptime_seconds",
        ];
        let mut keys: Vec<SeriesKey> = plain.iter().map(|metric| SeriesKey::new(metric, &[])).collect();
        keys.extend(
            PRESSURE
                .iter()
                .map(|resource| SeriesKey::new("host_pressure_seconds_total", &[("resource", resource)])),
        );
        Self {
            stat: Proc::open("/proc/stat"),
            meminfo: Proc::open("/proc/meminfo"),
            loadavg: Proc::open("/proc/loadavg"),
            uptime: Proc::open("/proc/uptime"),
            pressure: PRESSURE.map(|resource| Proc::open(format!("/proc/pressure/{resource}"))),
            last_cpu: None,
            keys: keys.into(),
        }
    }

    fn tick(&mut self, good_until: Duration) -> HostTick {
        let memory = self.meminfo.read().and_then(|text| proc_text::memory(&text).ok_or(Missing::Failed));
        let mut readings = vec![
            self.cpu(),
            memory.map(|memory| memory.used),
            memory.map(|memory| memory.total),
            self.loadavg.read().and_then(|text| proc_text::first_number(&text).ok_or(Missing::Failed)),
            self.uptime.read().and_then(|text| proc_text::first_number(&text).ok_or(Missing::Failed)),
        ];
        readings.extend(self.pressure.iter().map(|file| {
            file.read().and_then(|text| proc_text::pressure_seconds(&text).ok_or(Missing::Failed))
        }));
        HostTick { keys: Some(Arc::clone(&self.keys)), readings, good_until }
    }

    fn cpu(&mut self) -> Reading {
        let now = proc_text::cpu_times(&self.stat.read()?).ok_or(Missing::Failed)?;
        let last = self.last_cpu.replace(now);
        last.and_then(|last| now.busy_since(last)).ok_or(Missing::NotYet)
    }
}

/// The newest answer of the slow thread.
#[derive(Clone, Default)]
struct Slow {
    asked: Duration,
    groups: Vec<SlowGroup>,
}

/// A group's name, series and values.
type SlowGroup = (&'static str, Arc<[SeriesKey]>, Vec<f64>);

impl Slow {
    fn ticks(&self, now: Duration) -> Vec<Tick> {
        let stale = now.saturating_sub(self.asked) > SLOW_MAX_AGE;
        let at = clock::now();
        let tick = |(group, keys, values): &SlowGroup| Tick {
            group: (*group).into(),
            at,
            keys: Arc::clone(keys),
            readings: values
                .iter()
                .map(|value| if stale { Err(Missing::Timeout) } else { Ok(*value) })
                .collect(),
        };
        self.groups.iter().map(tick).collect()
    }
}

fn ask_slowly(newest: &Mutex<Slow>) {
    let (Ok(mut disks), Ok(mut networks)) = (Disks::new(), Networks::new()) else {
        tracing::warn!("disks and network interfaces cannot be listed on this host; their series stay away");
        return;
    };
    loop {
        disks.refresh(true);
        networks.refresh(true);
        let groups = vec![disk_group(&disks), network_group(&networks)];
        *newest.lock().unwrap_or_else(PoisonError::into_inner) = Slow { asked: clock::uptime(), groups };
        thread::sleep(SLOW_INTERVAL);
    }
}

#[expect(clippy::cast_precision_loss, reason = "disks are far below 2^53 bytes")]
fn disk_group(disks: &Disks) -> SlowGroup {
    let mut rows: Vec<(SeriesKey, f64)> = Vec::new();
    let mut seen = std::collections::BTreeSet::new();
    for disk in disks.iter().take(DISKS_MAX) {
        // A device that is mounted twice (bind mounts, containers) is told once.
        if disk.total_space() == 0 || !seen.insert(disk.name().to_owned()) {
            continue;
        }
        let mount = disk.mount_point().to_string_lossy().into_owned();
        let used = disk.total_space().saturating_sub(disk.available_space());
        rows.push((SeriesKey::new("host_disk_used_bytes", &[("mountpoint", &mount)]), used as f64));
        rows.push((
            SeriesKey::new("host_disk_total_bytes", &[("mountpoint", &mount)]),
            disk.total_space() as f64,
        ));
    }
    group("host_disk", rows)
}

#[expect(clippy::cast_precision_loss, reason = "counters are exact up to 2^53 bytes, 9 PB")]
fn network_group(networks: &Networks) -> SlowGroup {
    let mut rows: Vec<(SeriesKey, f64)> = Vec::new();
    for (name, data) in networks.iter().take(INTERFACES_MAX) {
        let device = [("device", &*name.to_string_lossy())].map(|(label, value)| (label, value.to_owned()));
        let device = device.each_ref().map(|(label, value)| (*label, value.as_str()));
        rows.push((
            SeriesKey::new("host_network_receive_bytes_total", &device),
            data.total_received() as f64,
        ));
        rows.push((
            SeriesKey::new("host_network_transmit_bytes_total", &device),
            data.total_transmitted() as f64,
        ));
    }
    group("host_network", rows)
}

/// File systems that are told of.
const DISKS_MAX: usize = 32;
/// Network interfaces that are told of.
const INTERFACES_MAX: usize = 32;

fn group(name: &'static str, mut rows: Vec<(SeriesKey, f64)>) -> SlowGroup {
    rows.sort_by(|a, b| a.0.cmp(&b.0));
    let (keys, values): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
    (name, keys.into(), values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_is_no_longer_read_is_not_shown() {
        let second = Duration::from_secs(1);
        let tick = Host::open().tick(9 * second);
        assert!(tick.value("host_memory_total_bytes", 9 * second).is_ok());
        assert_eq!(tick.value("host_memory_total_bytes", 10 * second), Err(Missing::Timeout));
        let before = HostTick::default().value("host_memory_total_bytes", 10 * second);
        assert_eq!(before, Err(Missing::NotYet));
    }
}
