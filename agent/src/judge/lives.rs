//! A thousand lives of workers on virtual time: what the judge never does, and what it always does in the end.
//! Replayable from its seed.

use super::ladder::Deed;
use super::progress::{GpuView, JobsView};
use super::tests::{config, probed};
use super::*;
use crate::leases::Lease;
use crate::probe::Verdict;
use crate::restart::Signal;
use crate::restart::{Exit, Found, Process};
use diarwatch_shared::backoff::unit;

const LIVES: u64 = 1_000;
const SEED: u64 = 20_261_124;
/// Workers that share the lives; each learns its own gate.
const WORKERS: u64 = 25;

/// A die.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(1);
        unit(self.0)
    }

    fn within(&mut self, from: u64, to: u64) -> u64 {
        self.0 = self.0.wrapping_add(1);
        let salt = self.0.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(31);
        from + (salt ^ self.0.wrapping_mul(0xBF58_476D_1CE4_E5B9)) % (to - from).max(1)
    }

    fn chance(&mut self, of: f64) -> bool {
        self.roll() < of
    }
}

/// What a process does with its life; times since its start, in seconds.
#[derive(Clone, Debug)]
struct Life {
    /// None when the load stands still for ever.
    load: Option<u64>,
    /// Whether anybody can see it move while it loads.
    seen: bool,
    /// It hangs from then on: silent, no CPU, no GPU.
    hangs_at: Option<u64>,
    /// It works in silence within these times.
    silent: (u64, u64),
    /// It ends by itself then.
    ends_at: u64,
    /// It completes jobs.
    jobs: bool,
    /// How long SIGTERM takes.
    term: Option<u64>,
}

impl Life {
    fn roll(dice: &mut Dice) -> Self {
        let load = (!dice.chance(0.05)).then(|| dice.within(10, 281));
        let from = load.unwrap_or(0);
        let hangs_at = dice.chance(0.1).then(|| from + dice.within(30, 900));
        let silent_from = from + dice.within(20, 300);
        Self {
            load,
            seen: dice.chance(0.8),
            hangs_at,
            silent: (silent_from, silent_from + dice.within(0, 3_600)),
            ends_at: if dice.chance(0.2) { from + dice.within(1, 60) } else { from + dice.within(60, 4_500) },
            jobs: dice.chance(0.5),
            term: dice.chance(0.7).then(|| dice.within(0, 20)),
        }
    }

    fn hangs(&self, age: u64) -> bool {
        self.hangs_at.is_some_and(|at| age >= at)
    }

    fn works_in_silence(&self, age: u64) -> bool {
        !self.hangs(age) && (self.silent.0..self.silent.1).contains(&age)
    }
}

#[derive(Default, Debug)]
struct Tally {
    lives: u64,
    hung_loads: u64,
    hung_late: u64,
    wrong_kills: u64,
    silent: u64,
    silent_killed: u64,
    wedged: u64,
    wedged_late: u64,
    give_ups: u64,
    over_budget: u64,
    tries: u64,
    seconds: u64,
}

struct World {
    dice: Dice,
    state: State,
    config: JudgeConfig,
    now: u64,
    pid: u32,
    life: Option<(Life, u64)>,
    dies_at: Option<u64>,
    down_since: Option<u64>,
    restarts: Vec<u64>,
    tally: Tally,
}

impl World {
    fn put(&mut self, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let (roll, now) = (self.dice.roll(), Duration::from_secs(self.now));
            let (state, actions) = step(std::mem::take(&mut self.state), input, now, &self.config, roll);
            self.state = state;
            for action in actions {
                match action {
                    Action::Look => inputs.push_back(Input::Found(Found::Stopped { exit: None })),
                    Action::Start => {
                        self.born();
                        inputs.push_back(Input::Started(Process { pid: self.pid, age: Duration::ZERO }));
                    }
                    Action::Do(Deed::Send(signal)) => self.signal(signal),
                    Action::AskLease { .. } => inputs.push_back(Input::Leased(Lease::Granted { id: 1 })),
                    Action::Emit(What::WorkerStopping { cause, .. }) => self.stopping(cause),
                    _ => {}
                }
            }
        }
    }

    fn born(&mut self) {
        self.pid += 1;
        let life = Life::roll(&mut self.dice);
        self.tally.lives += 1;
        self.tally.silent += u64::from(life.silent.1 > life.silent.0 && life.load.is_some());
        self.life = Some((life, self.now));
        self.dies_at = None;
        let down = self.down_since.take().map_or(0, |since| self.now - since);
        self.tally.give_ups += u64::from(down > 1_801);
        if self.state.budget.breaker().is_some() {
            self.tally.tries += 1;
        } else {
            // Only restarts since health was proved are those of the budget.
            if self.state.attempts <= 1 {
                self.restarts.clear();
            }
            self.restarts.push(self.now);
        }
        let recent = self.restarts.iter().filter(|at| self.now - **at < 600).count();
        self.tally.over_budget += u64::from(recent > 3);
    }

    fn stopping(&mut self, cause: Cause) {
        let Some((life, born)) = &self.life else { return };
        let age = self.now - born;
        match (cause, life.load) {
            (Cause::StartOverdue, Some(_)) => self.tally.wrong_kills += 1,
            (Cause::StartOverdue, None) => self.tally.hung_loads += 1,
            _ if life.works_in_silence(age) => self.tally.silent_killed += 1,
            _ if life.hangs(age) => {
                self.tally.wedged += 1;
                let late = age - life.hangs_at.unwrap_or(age) > 90;
                self.tally.wedged_late += u64::from(late);
            }
            _ => self.tally.wrong_kills += 1,
        }
    }

    fn signal(&mut self, signal: Signal) {
        let Some((life, born)) = &self.life else { return };
        let stands = life.load.is_none() || life.hangs(self.now - born);
        let dies = match signal {
            Signal::Kill => Some(self.now),
            Signal::Terminate if !stands => life.term.map(|after| self.now + after),
            _ => None,
        };
        self.dies_at = dies.or(self.dies_at);
    }

    /// One second of the world.
    fn second(&mut self) {
        self.now += 1;
        self.tally.seconds += 1;
        if let Some((life, born)) = self.life.clone() {
            let age = self.now - born;
            let own_end = life.load.is_some() && age >= life.ends_at && !life.hangs(age);
            if own_end || self.dies_at.is_some_and(|at| self.now >= at) {
                self.end(&life, age, own_end);
            } else {
                self.look(&life, age);
            }
        }
        self.put(Input::Tick);
    }

    fn end(&mut self, life: &Life, age: u64, own_end: bool) {
        if life.load.is_none() && !own_end {
            let gate = self.state.loads.limit(self.config.startup_min, self.config.startup_max).as_secs();
            // What cannot be seen gets the longest time there is.
            let gate = if life.seen { gate } else { self.config.startup_max.as_secs() };
            self.tally.hung_late += u64::from(age > gate + 5);
        }
        self.life = None;
        self.down_since = Some(self.now);
        let exit = Exit { pid: self.pid, reason: String::from("exit code 1"), ..Exit::default() };
        self.put(Input::Seen(Views::default()));
        self.put(Input::Exited(exit));
    }

    fn look(&mut self, life: &Life, age: u64) {
        let loading = life.load.is_none_or(|load| age < load);
        let (hangs, silent) = (life.hangs(age) || life.load.is_none(), life.works_in_silence(age));
        let moves = if loading { !hangs && age.is_multiple_of(9) } else { silent && !hangs };
        let gpu = GpuView { memory_bytes: 1 << 30, busy: Some(moves && !loading) };
        let shown = life.seen || !loading;
        self.put(Input::Seen(Views {
            pids: [self.pid].into(),
            cpu_ratio: shown.then_some(if moves && age.is_multiple_of(2) { 0.3 } else { 0.0 }),
            gpu: (shown && !loading).then_some(gpu),
            jobs: (life.jobs && !hangs).then(|| JobsView {
                completed_total: u64::from(self.pid) * 1_000 + age / 100,
                ended_total: u64::from(self.pid) * 1_000 + age / 100,
                ..JobsView::default()
            }),
            ..Views::default()
        }));
        let verdict = match (loading, hangs || silent) {
            (_, true) => Verdict::NoAnswer { reason: String::from("no whole answer within 2s") },
            (true, false) => Verdict::NotReady { reason: String::from("model loading") },
            (false, false) => Verdict::Ready,
        };
        self.put(probed(self.pid, verdict));
    }
}

#[test]
fn a_thousand_lives_lose_no_load_that_would_have_finished_and_no_worker_for_good() {
    let mut all = Tally::default();
    for worker in 0..WORKERS {
        let mut world = World {
            dice: Dice(SEED.wrapping_mul(worker + 1)),
            state: State::new(),
            config: config(),
            now: 0,
            pid: 0,
            life: None,
            dies_at: None,
            down_since: None,
            restarts: Vec::new(),
            tally: Tally::default(),
        };
        world.put(Input::AgentStarted);
        while world.tally.lives < LIVES / WORKERS || world.life.is_none() {
            world.second();
        }
        let told = world.tally;
        all.lives += told.lives;
        all.hung_loads += told.hung_loads;
        all.hung_late += told.hung_late;
        all.wrong_kills += told.wrong_kills;
        all.silent += told.silent;
        all.silent_killed += told.silent_killed;
        all.wedged += told.wedged;
        all.wedged_late += told.wedged_late;
        all.give_ups += told.give_ups;
        all.over_budget += told.over_budget;
        all.tries += told.tries;
        all.seconds += told.seconds;
    }
    println!(
        "lives={} virtual_hours={} wrong_kills={} hung_loads={} hung_ended_late={} busy_silent={} busy_killed={} \
         wedged={} wedged_ended_late={} breaker_tries={} give_ups={} budget_exceeded={}",
        all.lives,
        all.seconds / 3_600,
        all.wrong_kills,
        all.hung_loads,
        all.hung_late,
        all.silent,
        all.silent_killed,
        all.wedged,
        all.wedged_late,
        all.tries,
        all.give_ups,
        all.over_budget
    );
    assert!(all.lives >= LIVES && all.hung_loads > 20 && all.wedged > 20 && all.tries > 10, "{all:?}");
    assert_eq!((all.wrong_kills, all.hung_late, all.silent_killed), (0, 0, 0), "{all:?}");
    assert_eq!((all.wedged_late, all.give_ups, all.over_budget), (0, 0, 0), "{all:?}");
}
