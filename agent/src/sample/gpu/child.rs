//! The sampler child: owns NVML, ticks on a fixed schedule, writes [`Message`]s to its stdout.
//!
//! Two tiers of values, and rarer things between them: the processes of one GPU at a time, and what the
//! driver wants done about each. Another thread waits for what the driver reports by itself.
//!
//! When the pipe is slow a tick is written late, never twice; when the agent is gone the child ends,
//! even from within a driver call. A second thread tells of a driver call that does not return. The
//! child ends by itself when the set of GPUs changes: the next one starts with a clean generation.

use std::io::{self, Stdout};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use diarwatch_shared::clock;
use diarwatch_shared::exit::Exit;
use diarwatch_shared::reading::{Missing, Reading};

use super::message::{self, Message, Processes, Value};
use super::nvml::{CallWatch, Driver, Gpu, Slot};
use super::processes::{Meter, Rounds};
use super::{FAST, FAST_METRICS, SLOW, SLOW_METRICS, reports};

/// A call that is under way for this long is told to be stuck.
const STUCK_AFTER: Duration = Duration::from_millis(1_500);
/// How often the call under way is looked at.
const WATCH_INTERVAL: Duration = Duration::from_millis(200);
/// How often the number of GPUs is asked for, and those that cannot be opened are tried again.
const COUNT_INTERVAL: Duration = Duration::from_secs(10);
/// How often it is asked what the driver wants done about each GPU, when it reports no change of it.
const RECOVERY_INTERVAL: Duration = Duration::from_secs(10);

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

/// The way to the agent, for every thread of the child.
#[derive(Clone, Default)]
pub(super) struct Pipe(Arc<Mutex<Option<Stdout>>>);

impl Pipe {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(Some(io::stdout()))))
    }

    /// Whether the agent is still there.
    pub(super) fn send(&self, message: &Message) -> bool {
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
    // What the driver gives is never given back, nor is the library shut down: the kernel takes everything,
    // and those calls may hang as any other.
    let watch: &'static CallWatch = Box::leak(Box::default());
    let pipe = Pipe::new();
    watch_calls(watch, pipe.clone());
    let opened = Driver::open(options.library.as_deref(), watch)
        .map(|driver| &*Box::leak(Box::new(driver)))
        .and_then(|driver| driver.count().map(|count| (driver, count)));
    let (driver, count) = match opened {
        Ok(opened) => opened,
        Err(reason) => {
            pipe.send(&Message::Absent { reason });
            return Exit::Unreachable;
        }
    };
    let gpus: Vec<Slot<'_>> = (0..count).map(|index| driver.slot(index)).collect();
    let gpus: &'static [Slot<'static>] = Vec::leak(gpus);
    let facts = gpus.iter().map(|gpu| gpu.facts().clone()).collect();
    let found = Message::Found { driver: driver.version.clone(), simulated: driver.simulated, gpus: facts };
    if !pipe.send(&found) {
        return Exit::Ok;
    }
    let look = Arc::new(AtomicBool::new(false));
    let reports = (pipe.clone(), Arc::clone(&look));
    thread::spawn(move || reports::wait(driver, gpus, &reports.0, &reports.1));
    let meters = gpus.iter().map(|_| Meter::default()).collect();
    Sampler { driver, gpus, meters, pipe, look }.tick(options)
}

/// Has the kernel end this process with the agent; false when the agent is gone already.
fn belongs_to_the_agent() -> bool {
    // In a list of processes; the kernel would call it `exe`. Worth no failure.
    drop(std::fs::write("/proc/self/comm", "diarwatch-gpu"));
    let agent = rustix::process::getppid();
    let bound = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
    bound.is_ok() && agent.is_some() && rustix::process::getppid() == agent
}

struct Sampler {
    driver: &'static Driver<'static>,
    gpus: &'static [Slot<'static>],
    /// For each GPU.
    meters: Vec<Meter>,
    pipe: Pipe,
    /// Set by the thread of reports: the driver may want something else by now.
    look: Arc<AtomicBool>,
}

impl Sampler {
    /// The fast tier is read last: its values say that everything before it was answered.
    fn tick(mut self, options: &Options) -> Exit {
        let start = clock::uptime();
        let (mut next_fast, mut next_slow, mut next_count) = (start, start, start + COUNT_INTERVAL);
        let mut next_recovery = start;
        let mut rounds = Rounds::over(self.gpus.len(), start);
        let mut there = (0..self.gpus.len()).all(|gpu| self.tell_processes(gpu));
        while there {
            let now = clock::uptime();
            if now >= next_slow {
                there &= self.pipe.send(&read(SLOW, self.gpus, SLOW_METRICS.len(), read_slow));
                next_slow = following(next_slow, options.slow, now);
            }
            if now >= next_count {
                if changed(self.driver, self.gpus) {
                    return Exit::Temporary;
                }
                next_count = now + COUNT_INTERVAL;
            }
            if self.look.swap(false, Ordering::AcqRel) || now >= next_recovery {
                there &= self.tell_recovery();
                next_recovery = now + RECOVERY_INTERVAL;
            }
            if now >= rounds.due() {
                let began = clock::uptime();
                there &= self.tell_processes(rounds.next());
                let ended = clock::uptime();
                rounds.took(ended.saturating_sub(began), ended);
            }
            if now >= next_fast {
                let fast = read(FAST, self.gpus, FAST_METRICS.len(), read_fast);
                if driver_gone(&fast) {
                    return Exit::Temporary;
                }
                there &= self.pipe.send(&fast);
                next_fast = following(next_fast, options.fast, now);
            }
            thread::sleep(next_fast.min(rounds.due()).saturating_sub(clock::uptime()));
        }
        Exit::Ok
    }

    /// What runs on one GPU; whether the agent is still there.
    fn tell_processes(&mut self, place: usize) -> bool {
        let (Some(slot), Some(meter)) = (self.gpus.get(place), self.meters.get_mut(place)) else {
            return true;
        };
        let list = match slot {
            Slot::Closed(_, missing) => Processes::Missing(*missing as u8),
            Slot::Open(gpu) => {
                meter.take(gpu.process_samples(meter.since_us()), clock::uptime());
                meter.list(gpu.holders())
            }
        };
        self.pipe.send(&Message::Processes { gpu: number(place), list })
    }

    /// What the driver wants done about each GPU; whether the agent is still there.
    fn tell_recovery(&self) -> bool {
        self.gpus.iter().enumerate().all(|(place, slot)| {
            let action = match slot {
                Slot::Open(gpu) => gpu.recovery_action(),
                Slot::Closed(_, missing) => Err(*missing),
            };
            self.pipe.send(&Message::Recovery { gpu: number(place), action: action.into() })
        })
    }
}

/// A place in the list of GPUs as it travels.
pub(super) fn number(place: usize) -> u32 {
    u32::try_from(place).unwrap_or(u32::MAX)
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
    vec![gpu.temperature(), gpu.sm_clock()]
}

/// Whether every value of every GPU says that the driver is not loaded any more.
fn driver_gone(message: &Message) -> bool {
    let Message::Tick { gpus, .. } = message else { return false };
    let mut values = gpus.iter().flatten().map(|value| Reading::from(*value)).peekable();
    values.peek().is_some() && values.all(|reading| reading == Err(Missing::NoDriver))
}

fn watch_calls(watch: &'static CallWatch, pipe: Pipe) {
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
