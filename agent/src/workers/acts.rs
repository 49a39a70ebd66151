//! What the judge says, done: starts, signals, looks, and errands that run beside the loop.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use diarwatch_shared::clock;
use diarwatch_shared::event::Cause;

use super::ended::{self, Ended};
use super::errand::{self, Brought};
use super::task::Worker;
use crate::evidence::View;
use crate::judge::ladder::Deed;
use crate::judge::{Action, Input, Phase};
use crate::leases::Lease;
use crate::restart::{Driver, Exit};

/// Errands of one worker that may be under way; more are not begun, and said.
const ERRANDS_MAX: usize = 16;

impl<D: Driver> Worker<D> {
    pub(super) async fn act(&mut self, action: Action) -> Option<Input> {
        match action {
            Action::Start => return Some(self.start_process().await),
            Action::Look => return self.driver_look().await,
            Action::Emit(what) => self.emit(what).await,
            Action::Do(Deed::Send(signal)) => {
                let sent = self.driver.signal(signal).await.map(|()| Duration::ZERO);
                if sent.is_err() {
                    return Some(Input::Done { deed: Deed::Send(signal), result: sent });
                }
            }
            Action::Do(deed) => {
                let config = self.config.clone();
                let begun = if deed == Deed::Prove {
                    self.errand(errand::proof(self.state.pid(), config, self.proofs.clone()))
                } else {
                    self.errand(errand::deed(deed, config, Arc::clone(&self.turn)))
                };
                if !begun {
                    let problem = format!("more than {ERRANDS_MAX} things are under way for this worker");
                    return Some(Input::Done { deed, result: Err(problem) });
                }
            }
            Action::AskLease { cause } => {
                let leases = self.ways.ground.leases.clone();
                if !self.errand(errand::lease(leases, self.config.clone(), cause)) {
                    return Some(Input::Leased(Lease::Alone));
                }
            }
            Action::ReturnLease { id } => self.ways.ground.leases.give_back(id),
            Action::Ended { exit, cause, reason } => self.ended(exit, cause, &reason),
            Action::Answer(answer) => {
                if let Some(way) = self.answer.take() {
                    // Who asked may be gone; the order is carried out all the same.
                    drop(way.send(answer));
                }
            }
            Action::Save => self.memory.changed(),
        }
        None
    }

    /// Begins an errand; false when there is no room for one more.
    fn errand(&mut self, errand: impl Future<Output = Brought> + Send + 'static) -> bool {
        let room = self.errands.len() < ERRANDS_MAX;
        if room {
            self.errands.spawn(errand);
        } else {
            let worker = &self.config.name;
            tracing::error!(%worker, "more than {ERRANDS_MAX} errands are under way; one is not begun");
        }
        room
    }

    async fn start_process(&mut self) -> Input {
        match self.driver.start().await {
            Ok(process) => Input::Started(process),
            Err(error) => Input::StartFailed { reason: error.to_string() },
        }
    }

    /// Asks the driver what is there, unless that failed a moment ago.
    pub(super) async fn driver_look(&mut self) -> Option<Input> {
        if self.driver_due.is_some() {
            return None;
        }
        match self.driver.look().await {
            Ok(found) => Some(Input::Found(found)),
            Err(reason) => {
                self.driver_due = Some(clock::uptime().saturating_add(errand::LOOK_AGAIN));
                Some(Input::Blind { reason })
            }
        }
    }

    /// Has the evidence gathered and the jobs listed, beside the restart.
    fn ended(&mut self, exit: Exit, cause: Cause, reason: &str) {
        let why = self.state.why(clock::uptime(), &self.judge);
        let decided = View { view: String::from("decided"), words: reason.to_owned() };
        let views = why.views.into_iter().map(|vote| View { view: vote.view.to_owned(), words: vote.words });
        let board = self.ways.ground.board.clone();
        let (jobs, jobs_in_memory, nameless) = self.looker.jobs_now(&self.config, board.as_ref());
        let ended = Ended {
            config: self.config.clone(),
            // A restart without a wait is counted by now, any other is yet to come.
            restart: self.state.restarts().saturating_add(u64::from(self.state.phase() != Phase::Starting)),
            exit,
            cause,
            views: std::iter::once(decided).chain(views).collect(),
            probes: self.probes.drain(..).collect(),
            cgroup: self.looker.cgroup().map(str::to_owned),
            memory: self.looker.memory(),
            jobs,
            jobs_in_memory,
            nameless,
            at: clock::now(),
        };
        let (words, ledger) = (self.words.clone(), self.ways.ground.jobs.clone());
        self.errand(ended::tell(ended, board, words, ledger));
    }

    /// Takes what an errand brought.
    pub(super) async fn brought(&mut self, brought: Brought) {
        match brought {
            Brought::Input(input) => self.judge(input).await,
            // A process that is no more proves nothing about the one that is there.
            Brought::Proved(pid, _) if pid != self.state.pid() => {}
            Brought::Proved(_, result) => {
                if let Ok(took) = &result {
                    self.proofs.push(*took);
                    let spare = self.proofs.len().saturating_sub(crate::synthetic::HISTORY_MAX);
                    self.proofs.drain(..spare);
                }
                self.judge(Input::Done { deed: Deed::Prove, result }).await;
            }
            Brought::Told(told) => {
                for what in told {
                    self.emit(what).await;
                }
            }
        }
    }
}
