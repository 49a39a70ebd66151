//! The workers of this host, each with a stop of its own, so that a reload touches only those whose
//! configuration changed.
//!
//! Takes the configured workers, and orders by their name; gives the workers' outputs into one queue. A worker
//! that changed is left as its driver does (a `child` is stopped with its grace, any other lives on) and
//! looked after anew; nobody waits for it.

use std::collections::BTreeMap;

use diarwatch_shared::node::WorkerId;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tracing::{error, info};

use crate::config::worker::WorkerConfig;
use crate::orders::Order;
use crate::workers::{self, Ground, ORDERS_MAX, WorkerOutput};

/// The workers that are looked after.
pub struct Crew {
    ground: Ground,
    members: BTreeMap<WorkerId, Member>,
    leaving: Vec<JoinHandle<()>>,
}

struct Member {
    config: WorkerConfig,
    orders: mpsc::Sender<Order>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Crew {
    /// Nobody yet; on this ground they will stand.
    #[must_use]
    pub fn new(ground: Ground) -> Self {
        Self { ground, members: BTreeMap::new(), leaving: Vec::new() }
    }

    /// Hands an order to its worker, which answers it; what cannot be handed on is answered here.
    pub fn order(&self, order: Order) {
        let refuse = |order: Order, problem: String| drop(order.answer.send(Err(problem)));
        let Some(member) = self.members.get(&order.worker) else {
            let known: Vec<&str> = self.members.keys().map(WorkerId::as_str).collect();
            let problem = format!(
                "no worker of this node is called `{}`; there are: {}",
                order.worker,
                known.join(", ")
            );
            return refuse(order, problem);
        };
        if let Err(mpsc::error::TrySendError::Full(order) | mpsc::error::TrySendError::Closed(order)) =
            member.orders.try_send(order)
        {
            refuse(order, format!("more than {ORDERS_MAX} orders wait for this worker; try again"));
        }
    }

    /// Makes these the workers that are looked after. What ended says so once its process is gone.
    pub fn apply(&mut self, configs: Vec<WorkerConfig>) {
        self.leaving.retain(|task| !task.is_finished());
        let gone: Vec<WorkerId> = self
            .members
            .keys()
            .filter(|name| !configs.iter().any(|config| config.name == **name))
            .cloned()
            .collect();
        for name in &gone {
            if let Some(member) = self.members.remove(name) {
                info!(worker = %name, "worker is no longer configured");
                let (out, left) = (self.ground.out.clone(), member.leave());
                self.leaving.push(tokio::spawn(end(name.clone(), left, out)));
            }
        }
        for config in configs {
            let before = match self.members.remove(&config.name) {
                Some(member) if member.config == config => {
                    self.members.insert(config.name.clone(), member);
                    continue;
                }
                Some(member) => {
                    info!(worker = %config.name, "worker's configuration changed: it is looked after anew");
                    Some(member.leave())
                }
                None => None,
            };
            let member = Member::start(config, self.ground.clone(), before);
            self.members.insert(member.config.name.clone(), member);
        }
    }

    /// Stops all at once, each with its grace, and waits for them.
    pub async fn stop(self) {
        let members: Vec<JoinHandle<()>> = self.members.into_values().map(Member::leave).collect();
        for task in members.into_iter().chain(self.leaving) {
            drop(task.await);
        }
    }
}

/// Waits for a worker's task, then says that it is no more.
async fn end(name: WorkerId, task: JoinHandle<()>, out: mpsc::Sender<WorkerOutput>) {
    drop(task.await);
    // The receiver is gone only when the agent stops.
    drop(out.send(WorkerOutput::Gone(name)).await);
}

impl Member {
    /// Starts it once `before`, the same worker under its old configuration, is gone.
    fn start(config: WorkerConfig, ground: Ground, before: Option<JoinHandle<()>>) -> Self {
        let (stop, stopped) = watch::channel(false);
        let (orders, ordered) = mpsc::channel(ORDERS_MAX);
        let own = config.clone();
        let task = tokio::spawn(async move {
            if let Some(before) = before {
                end(own.name.clone(), before, ground.out.clone()).await;
            }
            if *stopped.borrow() {
                return;
            }
            match workers::start(own, ground, ordered, stopped) {
                Ok(mut running) => while running.join_next().await.is_some() {},
                Err(error) => error!(%error, "worker cannot be looked after"),
            }
        });
        Self { config, orders, stop, task }
    }

    fn leave(self) -> JoinHandle<()> {
        self.stop.send_replace(true);
        self.task
    }
}
