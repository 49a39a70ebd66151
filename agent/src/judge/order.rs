//! What people want of a worker: takes an order; gives its answer and what follows from it. A person is not
//! bound by budget, breaker or the fleet's leave, and is told what would be lost. Pure.

use diarwatch_shared::event::{Cause, What};
use serde_json::{Value, json};

use super::ladder::{Deed, Patience};
use super::life::HELD;
use super::{Action, Bench, Stage, Start, State, Wanted};
use crate::orders::Verb;

impl State {
    pub(super) fn ordered(&mut self, wanted: Wanted, bench: &mut Bench) {
        let verb = wanted.verb;
        let answer = self.obey(&wanted, bench);
        let refused = answer.as_ref().err().cloned();
        self.note(bench, format!("{} wants: {verb:?}", wanted.by));
        bench.emit(What::WorkerOrder {
            worker: bench.worker(),
            verb: name(verb).to_owned(),
            by: wanted.by,
            reason: wanted.reason,
            refused,
        });
        bench.put(Action::Answer(answer));
        bench.put(Action::Save);
    }

    fn obey(&mut self, wanted: &Wanted, bench: &mut Bench) -> Result<Value, String> {
        match wanted.verb {
            Verb::Restart => self.order_restart(wanted, bench),
            Verb::Drain => self.order_drain(wanted, bench),
            Verb::Resume => {
                self.drained = None;
                if std::mem::take(&mut self.out) && bench.config.put_back {
                    bench.put(Action::Do(Deed::PutBack));
                }
                Ok(json!({ "done": "resumed" }))
            }
            Verb::Hold => {
                self.held = Some(wanted.by.clone());
                if matches!(self.stage, Stage::Waiting { .. }) {
                    self.leave_alone(String::from(HELD), bench);
                }
                Ok(json!({ "done": "held" }))
            }
            Verb::Release => {
                self.held = None;
                // One that a person stopped by its manager stays so.
                if matches!(&self.stage, Stage::LeftAlone { reason } if reason == HELD) {
                    self.start_afresh(bench);
                }
                Ok(json!({ "done": "released" }))
            }
        }
    }

    fn order_restart(&mut self, wanted: &Wanted, bench: &mut Bench) -> Result<Value, String> {
        if let Some(by) = &self.held {
            return Err(format!("{by} holds it; release it first"));
        }
        if let Some(why) = &self.blind {
            return Err(format!("nothing is known of it now: {why}"));
        }
        let lost = self.under_way();
        match &self.stage {
            Stage::Alive(alive) if alive.stopping.is_some() => {
                let hurry = wanted.now;
                if let Some(ladder) = self.alive_mut().and_then(|alive| alive.stopping.as_mut()) {
                    if hurry {
                        ladder.patience = Patience::Short;
                    }
                    ladder.cause = Cause::Operator;
                }
                Ok(json!({ "done": "it is being stopped already", "jobs_under_way": lost }))
            }
            Stage::Alive(_) => {
                let patience = if wanted.now { Patience::Short } else { Patience::Jobs };
                let said = wanted.reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
                self.stop_for(Cause::Operator, format!("{} wants it{said}", wanted.by), patience, bench);
                Ok(json!({ "done": "it is stopped and started again", "jobs_under_way": lost }))
            }
            Stage::Idle | Stage::Launching => Ok(json!({ "done": "it is being started already" })),
            Stage::Waiting { .. } | Stage::LeftAlone { .. } => {
                self.start_afresh(bench);
                Ok(json!({ "done": "it is started" }))
            }
        }
    }

    fn order_drain(&mut self, wanted: &Wanted, bench: &mut Bench) -> Result<Value, String> {
        if !bench.config.stop.take_out {
            return Err(String::from(
                "nothing is configured that takes it out of its balancer; write [worker.stop] take_out",
            ));
        }
        self.drained = Some(wanted.by.clone());
        if !std::mem::replace(&mut self.out, true) {
            bench.put(Action::Do(Deed::TakeOut));
        }
        Ok(json!({ "done": "no new jobs come to it", "jobs_under_way": self.under_way() }))
    }

    /// Started at a person's wish: nothing of before counts.
    fn start_afresh(&mut self, bench: &mut Bench) {
        self.attempts = 0;
        self.budget.proven();
        self.stage = Stage::Waiting { until: bench.now, left: None, start: Start::Wanted };
    }

    /// Jobs that would be lost if it ended now; none when that is not known.
    #[must_use]
    pub fn under_way(&self) -> Option<u32> {
        self.views.jobs.as_ref().map(super::progress::JobsView::under_way)
    }
}

/// The verb as people write it.
#[must_use]
pub fn name(verb: Verb) -> &'static str {
    match verb {
        Verb::Restart => "restart",
        Verb::Drain => "drain",
        Verb::Resume => "resume",
        Verb::Hold => "hold",
        Verb::Release => "release",
    }
}
