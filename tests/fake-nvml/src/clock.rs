//! The only reader of time in this library. Everything else takes `now` as an argument.
//!
//! Not `diarwatch_shared::clock`: this library is loaded into the program under test and brings no
//! dependency with it.

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Time since this library was first called; monotonic.
#[expect(clippy::disallowed_methods, reason = "the one reader of the monotonic clock in this library")]
pub(crate) fn uptime() -> Duration {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed()
}

/// Microseconds since 1970, as NVML stamps its samples.
#[expect(clippy::disallowed_methods, reason = "the one reader of the wall clock in this library")]
pub(crate) fn unix_micros() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
