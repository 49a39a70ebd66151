//! The sampler child: owns NVML, ticks on a fixed schedule, writes [`Message`]s to its stdout.
//!
//! When the pipe is slow a tick is written late, never twice; when the agent is gone the child ends,
//! even from within a driver call. A second thread tells of a driver call that does not return. The
//! child ends by itself when the set of GPUs changes: the next one starts with a clean generation.

use std::io::{self, Stdout};
use std::mem::ManuallyDrop;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use diarwatch_shared::clock;
use diarwatch_shared::exit::Exit;
use diarwatch_shared::reading::{Missing, Reading};

use super::message::{self, Message, Value};
use super::nvml::{CallWatch, Driver, Gpu, Slot};
use super::{FAST, FAST_METRICS, SLOW, SLOW_METRICS};

/// A call that is under way for this long is told to be stuck.
const STUCK_AFTER: Duration = Duration::from_millis(1_500);
/// How often the call under way is looked at.
const WATCH_INTERVAL: Duration = Duration::from_millis(200);
/// How often the number of GPUs is asked for, and those that cannot be opened are tried again.
const COUNT_INTERVAL: Duration = Duration::from_secs(10);

/// What the agent tells its sampler.
#[derive(Clone, Debug)]
pub struct Options {
    /// The library to load instead of the driver's usual one.
    pub library: Option<PathBuf>,
    /// Time between ticks of the fast tier.
    pub fast: Duration,
    /// Time between ticks of the slow tier.
    pub slow: Duration,
}

#[derive(Clone, Default)]
struct Pipe(Arc<Mutex<Option<Stdout>>>);

impl Pipe {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(Some(io::stdout()))))
    }

    /// Whether the agent is still there.
    fn send(&self, message: &Message) -> bool {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        slot.as_mut().is_some_and(|out| message::write(out, message).is_ok())
    }
}

/// Runs until the agent is gone, the driver is lost or the set of GPUs changes.
#[must_use]
pub fn run(options: &Options) -> Exit {
    if !belongs_to_the_agent() {
        return Exit::Ok;
    }
    let watch = Arc::new(CallWatch::default());
    let pipe = Pipe::new();
    watch_calls(Arc::clone(&watch), pipe.clone());
    let opened = Driver::open(options.library.as_deref(), &watch)
        // Never shut down: the kernel takes everything back, and that call may hang as any other.
        .map(ManuallyDrop::new)
        .and_then(|driver| driver.count().map(|count| (driver, count)));
    let (driver, count) = match opened {
        Ok(opened) => opened,
        Err(reason) => {
            pipe.send(&Message::Absent { reason });
            return Exit::Unreachable;
        }
    };
    let gpus: Vec<Slot<'_>> = (0..count).map(|index| driver.slot(index)).collect();
    let facts = gpus.iter().map(|gpu| gpu.facts().clone()).collect();
    let found = Message::Found { driver: driver.version.clone(), simulated: driver.simulated, gpus: facts };
    if !pipe.send(&found) {
        return Exit::Ok;
    }
    tick(options, &driver, &gpus, &pipe)
}

/// Has the kernel end this process with the agent; false when the agent is gone already.
fn belongs_to_the_agent() -> bool {
    // In a list of processes; the kernel would call it `exe`. Worth no failure.
    drop(std::fs::write("/proc/self/comm", "diarwatch-gpu"));
    let agent = rustix::process::getppid();
    let bound = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
    bound.is_ok() && agent.is_some() && rustix::process::getppid() == agent
}

fn tick(options: &Options, driver: &Driver<'_>, gpus: &[Slot<'_>], pipe: &Pipe) -> Exit {
    let start = clock::uptime();
    let (mut next_fast, mut next_slow, mut next_count) = (start, start, start + COUNT_INTERVAL);
    loop {
        let now = clock::uptime();
        if now >= next_slow {
            if !pipe.send(&read(SLOW, gpus, SLOW_METRICS.len(), read_slow)) {
                return Exit::Ok;
            }
            next_slow = following(next_slow, options.slow, now);
        }
        if now >= next_count {
            if changed(driver, gpus) {
                return Exit::Temporary;
            }
            next_count = now + COUNT_INTERVAL;
        }
        let fast = read(FAST, gpus, FAST_METRICS.len(), read_fast);
        if driver_gone(&fast) {
            return Exit::Temporary;
        }
        if !pipe.send(&fast) {
            return Exit::Ok;
        }
        next_fast = following(next_fast, options.fast, now);
        thread::sleep(next_fast.saturating_sub(clock::uptime()));
    }
}

/// Whether there are more or fewer GPUs, or one that could not be opened now can.
fn changed(driver: &Driver<'_>, gpus: &[Slot<'_>]) -> bool {
    let back = |slot: &Slot<'_>| match slot {
        Slot::Open(_) => false,
        Slot::Closed(facts, _) => matches!(driver.slot(facts.index), Slot::Open(_)),
    };
    driver.count().map(|count| count as usize) != Ok(gpus.len()) || gpus.iter().any(back)
}

/// The next instant of a schedule; missed ones are left out rather than made up for.
fn following(due: Duration, interval: Duration, now: Duration) -> Duration {
    let next = due + interval;
    if next > now { next } else { now + interval }
}

fn read(tier: u8, gpus: &[Slot<'_>], width: usize, read: fn(&Gpu<'_>) -> Vec<Reading>) -> Message {
    let at_us = clock::now().0;
    let readings = |slot: &Slot<'_>| match slot {
        Slot::Open(gpu) => read(gpu),
        Slot::Closed(_, missing) => vec![Err(*missing); width],
    };
    let gpus = gpus.iter().map(|slot| readings(slot).into_iter().map(Value::from).collect()).collect();
    Message::Tick { tier, at_us, gpus }
}

/// In the order of [`super::FAST_METRICS`].
fn read_fast(gpu: &Gpu<'_>) -> Vec<Reading> {
    let [busy, memory_busy] = gpu.utilization();
    let [used, total] = gpu.memory();
    vec![busy, memory_busy, used, total, gpu.power()]
}

/// In the order of [`super::SLOW_METRICS`].
fn read_slow(gpu: &Gpu<'_>) -> Vec<Reading> {
    vec![gpu.temperature()]
}

/// Whether every value of every GPU says that the driver is not loaded any more.
fn driver_gone(message: &Message) -> bool {
    let Message::Tick { gpus, .. } = message else { return false };
    let mut values = gpus.iter().flatten().map(|value| Reading::from(*value)).peekable();
    values.peek().is_some() && values.all(|reading| reading == Err(Missing::NoDriver))
}

fn watch_calls(watch: Arc<CallWatch>, pipe: Pipe) {
    thread::spawn(move || {
        let mut told = false;
        loop {
            thread::sleep(WATCH_INTERVAL);
            let stuck =
                watch.current().filter(|call| clock::uptime().saturating_sub(call.since) > STUCK_AFTER);
            let message = match (stuck, told) {
                (Some(call), false) => Message::Stuck { function: call.function.to_owned(), gpu: call.gpu },
                (None, true) => Message::Unstuck,
                _ => continue,
            };
            told = !told;
            pipe.send(&message);
        }
    });
}
