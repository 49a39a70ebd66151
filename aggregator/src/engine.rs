//! The shell around rules, alerts and notify: two loops.
//!
//! One evaluates the rules when frames arrive, and at least once per interval, and puts what became
//! of the alerts on the desk. The other takes messages from the desk to Slack, one after the other.
//! When evaluation is slow, arrivals that came meanwhile share the next round.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use diarwatch_shared::backoff::unit;
use diarwatch_shared::clock::{self, UnixMicros};
use diarwatch_shared::schema::Labels;
use tokio::sync::watch;
use tokio::time::{interval, sleep, timeout};
use tracing::{error, info, warn};

use crate::alerts::{Change, Phase};
use crate::computed::{self, Live};
use crate::desk::{Desk, Kept};
use crate::effect::InEffect;
use crate::notify::slack::{Marks, payload};
use crate::notify::{Outcome, message};
use crate::rules::{AlertRule, RuleSet, Sample};
use crate::store::{Memory, Store};
use crate::view::figures::RECORDED;

/// Arrivals within this time share a round: an event is seen with the values that it explains.
const GATHER: Duration = Duration::from_millis(50);
/// Why a message goes nowhere while no channel is configured; the page says it in its own words.
pub const NO_CHANNEL: &str = "no [slack] is configured";
/// Between looks at an empty outbox.
const IDLE: Duration = Duration::from_secs(60);

/// Evaluates rules until the aggregator stops; what is in effect may change between two rounds.
pub async fn evaluate(store: Store, desk: Desk, mut in_effect: watch::Receiver<Arc<InEffect>>) {
    loop {
        let effect = Arc::clone(&in_effect.borrow_and_update());
        forget_rules(&desk, &effect.rules).await;
        store.update(|memory| memory.expect(&effect.config.nodes.expected));
        let mut each = interval(effect.config.rules.interval.0);
        loop {
            tokio::select! {
                _ = each.tick() => {}
                () = store.arrival() => sleep(GATHER).await,
                changed = in_effect.changed() => match changed {
                    Ok(()) => break,
                    // Nobody is left to change it: the aggregator stops.
                    Err(_) => return,
                },
            }
            round(&store, &desk, &effect).await;
        }
    }
}

async fn forget_rules(desk: &Desk, rules: &RuleSet) {
    let there = |group: &str, name: &str| rules.alerts().any(|rule| rule.group == group && rule.name == name);
    for alert in desk.change(|kept| (true, kept.alerts.forget_rules(there))).await {
        warn!(
            alertname = alert.label("alertname"),
            node = alert.label("node"),
            "alert is forgotten: its rule is gone"
        );
    }
}

async fn round(store: &Store, desk: &Desk, effect: &InEffect) {
    let InEffect { config, rules, problem, .. } = effect;
    let lookback = config.rules.lookback.0;
    let now = clock::now();
    store.update(|memory| memory.head.trim(now));
    let round = store.read(|memory| {
        let sending = computed::sending(memory, config.nodes.timeout.0, now);
        let evaluation = rules.evaluate(&Live::new(memory, &sending, now), now, lookback);
        Round { evaluation, sending, now }
    });
    let recorded = round.of_the_page();
    store.update(|memory| memory.recorded = recorded);
    desk.change(|kept| {
        let outcome = store.read(|memory| round.put(kept, rules, memory, lookback));
        kept.faults.extend(problem.clone());
        outcome
    })
    .await;
}

/// One round of the rules, taken while the store was read.
struct Round<'r> {
    evaluation: crate::rules::Evaluation<'r>,
    sending: BTreeSet<String>,
    now: UnixMicros,
}

impl Round<'_> {
    /// What recording rules made of the page's figures.
    fn of_the_page(&self) -> Vec<Sample> {
        let shown = |sample: &&Sample| {
            sample.labels.get("__name__").is_some_and(|name| RECORDED.contains(&name.as_str()))
        };
        self.evaluation.recorded.iter().filter(shown).cloned().collect()
    }

    /// Puts the round on the desk; it matters when an alert came, went or changed its phase.
    fn put(self, kept: &mut Kept, rules: &RuleSet, memory: &Memory, lookback: Duration) -> (bool, ()) {
        let phases = |kept: &Kept| -> Vec<(Labels, Phase)> {
            kept.alerts.active().map(|alert| (alert.labels.clone(), alert.phase)).collect()
        };
        let before = phases(kept);
        let live = Live::new(memory, &self.sending, self.now);
        let is_over = |rule: &AlertRule, labels: &Labels| live.is_over(&rules.inputs(rule), labels, lookback);
        let changes = kept.alerts.step(&self.evaluation.alerts, self.now, is_over);
        let told = !changes.is_empty();
        for Change { alert } in changes {
            info!(alertname = alert.label("alertname"), phase = ?alert.phase, node = alert.label("node"), worker = alert.label("worker"), "alert");
            kept.outbox.push(alert, self.now);
        }
        kept.faults =
            self.evaluation.faults.into_iter().map(|(rule, fault)| format!("{rule}: {fault}")).collect();
        (told || phases(kept) != before, ())
    }
}

/// Carries messages to Slack until the aggregator stops. Without a channel they are counted as dropped.
pub async fn notify(store: Store, desk: Desk, in_effect: watch::Receiver<Arc<InEffect>>) {
    loop {
        let due = desk.read(|kept| kept.outbox.due(clock::now()).map(drop)).await;
        if let Err(wait) = due {
            // Whichever comes first; a wake-up without work does no harm.
            drop(timeout(wait.unwrap_or(IDLE), desk.changed()).await);
            continue;
        }
        let Some(message) = desk.change(|kept| (true, kept.outbox.begin())).await else { continue };
        let effect = Arc::clone(&in_effect.borrow());
        let lang = effect.config.display.lang;
        let outcome = match &effect.slack {
            Some(slack) => {
                let payload = store.read(|memory| {
                    let action = message::action(&message.alert, &memory.events, lang);
                    let simulated = computed::simulated(memory, message.alert.label("node"));
                    let marks = Marks { simulated, repeated: message.repeated };
                    payload(&message.alert, action.as_deref(), marks, &effect.zone, lang)
                });
                slack.send(&payload).await
            }
            None => Outcome::Never { reason: String::from(NO_CHANNEL) },
        };
        match &outcome {
            Outcome::Accepted => {}
            Outcome::Later { reason, .. } | Outcome::Unknown { reason } => {
                warn!(reason, "message is tried again");
            }
            // Said once at the start, and on the page.
            Outcome::Never { reason } if reason == NO_CHANNEL => {}
            Outcome::Never { reason } => {
                error!(reason, alertname = message.alert.label("alertname"), "message is given up");
            }
        }
        let now = clock::now();
        desk.change(|kept| (true, kept.outbox.tried(&message, outcome, now, unit(now.0)))).await;
    }
}
