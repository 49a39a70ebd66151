//! What a worker is at a moment: takes what it is told and what its working thread did, gives what it
//! answers, what it does next and what it holds of the GPU. Pure; the time is since its start.

use std::time::Duration;

use serde_json::{Value, json};

use super::control::{AfterOom, Control, Stays};

/// What a job that CUDA had no memory for has as its reason.
pub(super) const OUT_OF_MEMORY: &str = "CUDA out of memory";

/// The two real workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `/health` and `/ready`, always 200; jobs are worked on beside its answers.
    Pyannote,
    /// `/health` only; its model is loaded by its first job, and while it works it answers nothing.
    Server,
}

/// What the working thread does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Waits for a change, at most so long.
    Rest(Option<Duration>),
    /// Loads the model, which takes so long.
    Load(Duration),
    /// Works on a job.
    Job,
    /// Looks busy.
    Stir,
}

/// What is held of the GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Holding {
    /// Memory on top of the model's, MiB.
    pub(super) leaked_mib: u32,
    /// Whether it computes.
    pub(super) is_busy: bool,
    /// What outlives the process.
    pub(super) stays: Stays,
}

/// What a worker is at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Worker {
    kind: Kind,
    load: Duration,
    told: Option<Result<(), String>>,
    /// Does and answers nothing.
    pub(super) hung: bool,
    silent: bool,
    /// Works on the CPU.
    pub(super) fallback: bool,
    oom: Option<AfterOom>,
    /// The job under way, or the next, kills.
    pub(super) poison: bool,
    leak_mib: u32,
    leaked_mib: u32,
    stays: Stays,
    /// Takes no notice of SIGTERM.
    pub(super) ignores_sigterm: bool,
    /// The number to exit with.
    pub(super) exit: Option<u8>,
    /// Somebody asked for the model before a job.
    pub(super) wanted: bool,
    /// The model is there.
    pub(super) loaded: bool,
    /// The thread loads or works on a job.
    pub(super) working: bool,
    /// SIGTERM came: nothing more is accepted.
    pub(super) stopping: bool,
    /// Jobs that are accepted and not ended.
    pub(super) jobs: usize,
    /// Callbacks that are not sent.
    pub(super) callbacks: usize,
}

impl Worker {
    pub(super) fn new(kind: Kind, load: Duration) -> Self {
        Self {
            kind,
            load,
            told: None,
            hung: false,
            silent: false,
            fallback: false,
            oom: None,
            poison: false,
            leak_mib: 0,
            leaked_mib: 0,
            stays: Stays::Nothing,
            ignores_sigterm: false,
            exit: None,
            wanted: false,
            loaded: false,
            working: false,
            stopping: false,
            jobs: 0,
            callbacks: 0,
        }
    }

    pub(super) fn obey(&mut self, control: Control) {
        match control.ready {
            Some(true) => self.told = Some(Ok(())),
            Some(false) => self.told = Some(Err(control.reason.unwrap_or_else(|| "told so".to_owned()))),
            None => {}
        }
        self.hung = control.hang.unwrap_or(self.hung);
        self.silent = control.busy_silent.unwrap_or(self.silent);
        self.fallback = control.cpu_fallback.unwrap_or(self.fallback);
        self.oom = control.oom.or(self.oom);
        self.poison = control.poison.unwrap_or(self.poison);
        self.leak_mib = control.leak.unwrap_or(self.leak_mib);
        self.stays = control.gpu_stays.unwrap_or(self.stays);
        self.ignores_sigterm = control.ignore_sigterm.unwrap_or(self.ignores_sigterm);
        let no_model = control.no_model.filter(|ends| *ends).map(|_| 1);
        self.exit = control.exit.or(no_model).or(self.exit);
    }

    /// The body of `/ready`; its status is 200 in any case.
    pub(super) fn readiness(&self, since_start: Duration) -> Value {
        let loading = || Err("model loading".to_owned());
        let found =
            self.told.clone().unwrap_or_else(|| if since_start < self.load { loading() } else { Ok(()) });
        match found {
            Ok(()) => json!({ "status": "ready", "model_loaded": true }),
            Err(reason) => json!({ "status": "not_ready", "reason": reason }),
        }
    }

    /// The body of `/health`.
    pub(super) fn health(&self) -> Value {
        match self.kind {
            Kind::Pyannote => json!({ "status": "ok" }),
            Kind::Server => json!({ "status": "ok", "model_loaded": self.loaded }),
        }
    }

    /// Whether it keeps whoever asks waiting.
    pub(super) fn is_mute(&self) -> bool {
        self.hung || self.silent || (self.kind == Kind::Server && self.working)
    }

    /// Whether a callback may leave: the server's come last when it is stopped.
    pub(super) fn may_call_back(&self) -> bool {
        let comes_last = self.kind == Kind::Server && self.stopping;
        !self.is_mute() && (!comes_last || self.jobs == 0)
    }

    /// Whether it was stopped and nothing is left to do.
    pub(super) fn is_finished(&self) -> bool {
        self.stopping && !self.hung && self.jobs == 0 && self.callbacks == 0
    }

    pub(super) fn next(&self, since_start: Duration) -> Next {
        let has_job = self.jobs > 0;
        match self.kind {
            _ if self.hung => Next::Rest(None),
            Kind::Pyannote if !self.loaded && since_start < self.load => {
                Next::Rest(Some(self.load.saturating_sub(since_start)))
            }
            Kind::Pyannote if !self.loaded => Next::Load(Duration::ZERO),
            Kind::Server if !self.loaded && (has_job || self.wanted) => Next::Load(self.load),
            _ if has_job => Next::Job,
            _ if self.silent => Next::Stir,
            _ => Next::Rest(None),
        }
    }

    /// A job ended, well or not.
    pub(super) fn job_ended(&mut self) {
        self.jobs = self.jobs.saturating_sub(1);
        self.leaked_mib = self.leaked_mib.saturating_add(self.leak_mib);
    }

    /// Whether the job under way fails for want of GPU memory; it does so once.
    pub(super) fn runs_out_of_memory(&mut self) -> bool {
        let after = self.oom.take();
        if after == Some(AfterOom::NotReady) {
            self.told = Some(Err(OUT_OF_MEMORY.to_owned()));
        }
        after.is_some()
    }

    /// What it holds of the GPU: nothing before its model is there, nor on the CPU.
    pub(super) fn holding(&self) -> Option<Holding> {
        (self.loaded && !self.fallback).then_some(Holding {
            leaked_mib: self.leaked_mib,
            is_busy: !self.hung && (self.silent || self.working),
            stays: self.stays,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::control::parse_control;
    use super::*;
    use proptest::prelude::*;

    const LOAD: Duration = Duration::from_secs(3);

    fn told(kind: Kind, text: &str) -> Worker {
        let mut worker = Worker::new(kind, LOAD);
        worker.obey(parse_control(text).unwrap());
        worker
    }

    #[test]
    fn the_body_alone_tells_that_the_model_is_loading() {
        let worker = Worker::new(Kind::Pyannote, LOAD);
        let before = worker.readiness(LOAD - Duration::from_millis(1));
        assert_eq!(before, json!({ "status": "not_ready", "reason": "model loading" }));
        assert_eq!(worker.readiness(LOAD), json!({ "status": "ready", "model_loaded": true }));
    }

    #[test]
    fn a_worker_that_is_told_so_is_not_ready_and_says_why() {
        let worker = told(Kind::Pyannote, r#"{"ready": false, "reason": "no disk"}"#);
        assert_eq!(worker.readiness(LOAD), json!({ "status": "not_ready", "reason": "no disk" }));
        assert_eq!(told(Kind::Pyannote, r#"{"ready": true}"#).readiness(Duration::ZERO)["status"], "ready");
    }

    #[test]
    fn a_server_loads_its_model_for_its_first_job_or_when_asked_and_not_before() {
        let mut worker = Worker::new(Kind::Server, LOAD);
        assert_eq!(worker.next(LOAD * 100), Next::Rest(None));
        worker.jobs = 1;
        assert_eq!(worker.next(Duration::ZERO), Next::Load(LOAD));
        worker = Worker { wanted: true, jobs: 0, ..worker };
        assert_eq!(worker.next(Duration::ZERO), Next::Load(LOAD));
        assert_eq!((worker.holding(), worker.health()["model_loaded"].clone()), (None, json!(false)));
        let loaded = Worker { loaded: true, ..worker };
        assert_eq!(loaded.next(Duration::ZERO), Next::Rest(None));
        assert_eq!(loaded.health(), json!({ "status": "ok", "model_loaded": true }));
    }

    #[test]
    fn a_hung_worker_does_nothing_and_a_silent_one_is_busy() {
        let wedged =
            Worker { loaded: true, jobs: 1, working: true, ..told(Kind::Pyannote, r#"{"hang": true}"#) };
        assert_eq!((wedged.next(LOAD), wedged.is_mute()), (Next::Rest(None), true));
        assert!(wedged.holding().is_some_and(|holding| !holding.is_busy));
        let silent = Worker { loaded: true, ..told(Kind::Server, r#"{"busy_silent": true}"#) };
        assert_eq!((silent.next(LOAD), silent.is_mute()), (Next::Stir, true));
        assert!(silent.holding().is_some_and(|holding| holding.is_busy));
    }

    #[test]
    fn callbacks_of_a_server_that_stops_come_last() {
        let stopping = |kind| Worker { stopping: true, jobs: 1, callbacks: 1, ..Worker::new(kind, LOAD) };
        assert!(stopping(Kind::Pyannote).may_call_back());
        assert!(!stopping(Kind::Server).may_call_back());
        let last = Worker { jobs: 0, ..stopping(Kind::Server) };
        assert!(last.may_call_back() && !last.is_finished());
        assert!(Worker { callbacks: 0, ..last }.is_finished());
    }

    #[test]
    fn each_job_leaks_as_told() {
        let mut worker = Worker { loaded: true, jobs: 2, ..told(Kind::Pyannote, r#"{"leak": 300}"#) };
        worker.job_ended();
        worker.job_ended();
        assert_eq!(worker.holding().map(|holding| holding.leaked_mib), Some(600));
    }

    proptest! {
        #[test]
        fn nothing_that_is_said_silences_the_status(
            ready: Option<bool>, hang: Option<bool>, reason: Option<String>, millis in 0_u64..10_000,
        ) {
            let mut worker = Worker::new(Kind::Pyannote, LOAD);
            worker.obey(Control { ready, reason, hang, ..Control::default() });
            let status = worker.readiness(Duration::from_millis(millis))["status"].clone();
            prop_assert!(status == "ready" || status == "not_ready");
        }
    }
}
