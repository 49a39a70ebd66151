//! What the driver reports by itself, in a thread of the sampler child. Takes the driver's events; gives
//! each XID to the agent at once, and has the sampler look anew at what the driver wants done. It waits for
//! the driver a bounded time, and asks nothing else of it: a driver that hangs is found by the sampler.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::child::{Pipe, number};
use super::message::Message;
use super::nvml::{Driver, Report, Reports, Slot};

/// Longest wait within the driver.
const PATIENCE: Duration = Duration::from_secs(1);
/// Between two tries, when the driver reports nothing or a GPU of it is lost.
const RETRY: Duration = Duration::from_secs(5);

/// Waits for reports until the agent is gone.
pub(super) fn wait(driver: &Driver<'_>, gpus: &[Slot<'_>], pipe: &Pipe, look: &AtomicBool) {
    let mut told = None;
    loop {
        let (reports, problem) = match Reports::of(driver, gpus) {
            Ok((reports, problem)) => (Some(reports), problem),
            Err(problem) => (None, Some(problem)),
        };
        if told.as_ref() != Some(&problem) {
            if !pipe.send(&Message::Reports { problem: problem.clone() }) {
                return;
            }
            told = Some(problem);
        }
        // Those of a set end with a GPU that is lost: the next set is made without it.
        if let Some(reports) = reports
            && !until_trouble(&reports, pipe, look)
        {
            return;
        }
        thread::sleep(RETRY);
    }
}

/// Hands reports on until the driver cannot be waited for; false when the agent is gone.
fn until_trouble(reports: &Reports<'_>, pipe: &Pipe, look: &AtomicBool) -> bool {
    loop {
        match reports.next(PATIENCE) {
            Ok(None) => {}
            Ok(Some(Report::Xid(place, code))) => {
                if !pipe.send(&Message::Xid { gpu: place.map(number), code }) {
                    return false;
                }
                look.store(true, Ordering::Release);
            }
            Ok(Some(Report::Recovery)) => look.store(true, Ordering::Release),
            Err(_) => return true,
        }
    }
}
