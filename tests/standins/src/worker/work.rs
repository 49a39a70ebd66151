//! The working thread of a worker: takes its jobs one after another, gives their ends to whoever waits, to
//! the log and to the callbacks. It burns a little CPU while it works and none while it rests or hangs;
//! what it is told in between holds at the next slice of work.

use std::time::Duration;

use diarwatch_shared::clock;

use super::core::Core;
use super::fault;
use super::gpu::Claim;
use super::jobs::Job;
use super::state::{Next, OUT_OF_MEMORY, Worker};
use crate::say::say;

/// Work between two looks at what it was told.
const SLICE: Duration = Duration::from_millis(20);
/// How much slower a CPU is.
const FALLBACK_SLOWER: u32 = 10;
/// How long those that waited for an answer may take to get it before the next job.
const TURN: Duration = Duration::from_millis(200);
/// Wait between two looks at them.
const TURN_STEP: Duration = Duration::from_millis(1);
/// Work of one job at most: what is longer was a misread number.
const WORK_SECONDS_MAX: f64 = 30.0 * 86_400.0;

/// Works until the worker goes.
pub(super) fn work(core: &Core) {
    let mut claim = Claim::new(core.settings.gpu.clone());
    while !core.is_gone() {
        let seen = core.changes();
        let worker = core.now();
        claim.show(worker.holding());
        match worker.next(core.since_start()) {
            Next::Rest(limit) => core.wait(seen, limit),
            Next::Load(time) => load(core, &mut claim, time),
            Next::Stir => slice(core.settings.busy_percent, SLICE),
            Next::Job => {
                // The guard of the list must not live on while the job is worked off.
                let next = core.jobs().begin();
                if let Some(job) = next {
                    work_off(core, &mut claim, job);
                }
            }
        }
    }
}

fn load(core: &Core, claim: &mut Claim, time: Duration) {
    core.change(|worker| worker.working = true);
    if grind(core, claim, time, || true) {
        say("INFO model loaded");
        core.change(|worker| (worker.loaded, worker.working) = (true, false));
        give_way(core);
    }
}

fn work_off(core: &Core, claim: &mut Claim, mut job: Job) {
    let audio = job.audio_seconds;
    core.change(|worker| worker.working = true);
    say(&format!("INFO job {} started (audio {audio:.1}s)", job.id));
    let began = clock::uptime();
    let time = Duration::from_secs_f64((audio / core.settings.job_speed).clamp(0.0, WORK_SECONDS_MAX));
    let is_done = grind(core, claim, time, || go_on(core, &mut job));
    if core.is_gone() {
        return;
    }
    let took = clock::uptime().saturating_sub(began);
    let told = job.told(took, Some(OUT_OF_MEMORY).filter(|_| !is_done));
    let (id, seconds) = (&job.id, took.as_secs_f64());
    say(&if is_done {
        format!("INFO job {id} done in {seconds:.3}s (audio {audio:.1}s)")
    } else {
        format!("ERROR job {id} failed after {seconds:.3}s (audio {audio:.1}s): {OUT_OF_MEMORY}")
    });
    core.jobs().end(&told);
    let lost = job.callback.take().and_then(|url| core.call_back(url, told.clone()).err());
    lost.iter().for_each(|error| say(&format!("WARNING no callback for {id}: {error}")));
    core.change(|worker| {
        worker.job_ended();
        worker.working = false;
    });
    // Nobody may wait for the answer any more.
    drop(job.answer.take().map(|answer| answer.send(told)));
    give_way(core);
}

/// In the middle of a job happens what it says; whether it goes on after that.
fn go_on(core: &Core, job: &mut Job) -> bool {
    if let Err(error) = core.obey(std::mem::take(&mut job.control)) {
        say(&format!("WARNING job {}: {error}", job.id));
    }
    if core.now().poison {
        fault::die();
    }
    let is_out_of_memory = core.change(Worker::runs_out_of_memory) == Some(true);
    if is_out_of_memory {
        fault::say_out_of_memory();
    }
    !is_out_of_memory
}

/// Works for so long, at the speed of the moment; asks in the middle whether to go on. False when it
/// ended before its time.
fn grind(core: &Core, claim: &mut Claim, time: Duration, mut go_on: impl FnMut() -> bool) -> bool {
    let (mut done, mut was_asked) = (Duration::ZERO, false);
    while !core.is_gone() {
        let seen = core.changes();
        let worker = core.now();
        claim.show(worker.holding());
        let slower = if worker.fallback { FALLBACK_SLOWER } else { 1 };
        if worker.hung {
            core.wait(seen, None);
        } else if !was_asked && done >= time / 2 {
            was_asked = true;
            if !go_on() {
                return false;
            }
        } else if done >= time {
            return true;
        } else {
            let began = clock::uptime();
            slice(core.settings.busy_percent, SLICE.min(time.saturating_sub(done) * slower));
            done += clock::uptime().saturating_sub(began) / slower;
        }
    }
    false
}

/// A slice of work: the first part of it burns CPU.
fn slice(busy_percent: u32, time: Duration) {
    let end = clock::uptime() + time;
    let idle = end.saturating_sub(time * (100_u32.saturating_sub(busy_percent)) / 100);
    while clock::uptime() < idle {
        std::hint::spin_loop();
    }
    std::thread::sleep(end.saturating_sub(clock::uptime()));
}

/// Between two jobs the event loop has its turn: who waited for an answer gets it.
fn give_way(core: &Core) {
    let end = clock::uptime() + TURN;
    while core.held() > 0 && !core.now().is_mute() && clock::uptime() < end {
        std::thread::sleep(TURN_STEP);
    }
}
