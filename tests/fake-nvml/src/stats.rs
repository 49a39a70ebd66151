//! How often each entry point was called: counted for the process, and written to the file that
//! `DIARWATCH_FAKE_NVML_STATS` names, once a second and at shutdown, a line `COUNT NAME` each. A
//! file that cannot be written is left out; the count goes on.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;

/// Time between two writes of the file.
const WRITE_EVERY: Duration = Duration::from_secs(1);

static CALLS: AtomicU64 = AtomicU64::new(0);
static TALLY: LazyLock<Option<Mutex<Tally>>> = LazyLock::new(|| {
    let path = PathBuf::from(std::env::var_os("DIARWATCH_FAKE_NVML_STATS")?);
    Some(Mutex::new(Tally { path, counts: BTreeMap::new(), written: Duration::ZERO }))
});

/// Bounded by the number of entry points: the names are theirs.
struct Tally {
    path: PathBuf,
    counts: BTreeMap<&'static str, u64>,
    written: Duration,
}

/// Counts one call; the file follows when its time has come.
pub(crate) fn count(function: &'static str, now: Duration) {
    CALLS.fetch_add(1, Ordering::Relaxed);
    let Some(tally) = TALLY.as_ref() else { return };
    let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
    *tally.counts.entry(function).or_default() += 1;
    if now.saturating_sub(tally.written) >= WRITE_EVERY || function == "nvmlShutdown" {
        tally.written = now;
        drop(std::fs::write(&tally.path, lines(&tally.counts)));
    }
}

/// All calls so far.
pub(crate) fn calls() -> u64 {
    CALLS.load(Ordering::Relaxed)
}

fn lines(counts: &BTreeMap<&'static str, u64>) -> String {
    counts.iter().map(|(function, count)| format!("{count} {function}\n")).collect()
}
