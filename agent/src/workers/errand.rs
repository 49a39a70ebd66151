//! What takes time and is done beside a worker's loop: hooks, a job made up for it, questions to the fleet.
//! Takes what is to be done; gives the judge's next input. Each is bounded by its own time-out.

use std::time::Duration;

use diarwatch_shared::clock;
use diarwatch_shared::event::Cause;

use crate::config::worker::WorkerConfig;
use crate::judge::Input;
use crate::judge::ladder::Deed;
use crate::leases::{Leases, Wish};

/// Runs the hook or the made-up job of a deed.
pub(super) async fn deed(deed: Deed, config: WorkerConfig) -> Input {
    let began = clock::uptime();
    let result = match deed {
        Deed::TakeOut | Deed::PutBack | Deed::Prove => {
            Err(format!("{deed:?} is not built yet for {}", config.name))
        }
        // Signals are the driver's.
        Deed::Send(_) => Ok(()),
    };
    let took = clock::uptime().saturating_sub(began);
    Input::Done { deed, result: result.map(|()| took) }
}

/// Asks the fleet.
pub(super) async fn lease(leases: Leases, config: WorkerConfig, cause: Cause) -> Input {
    let wish = Wish { worker: config.name.clone(), cause, ready: true };
    Input::Leased(leases.ask(wish).await)
}

/// Until the driver looks again.
pub(super) const LOOK_AGAIN: Duration = Duration::from_secs(2);
