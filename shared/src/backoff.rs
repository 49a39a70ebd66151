//! Waiting longer after each failure: 1x, 2x, 4x ... of a base, never above a ceiling, with full
//! jitter so that a fleet does not come back in step. Pure: the random number is an argument.

use std::time::Duration;

/// A bounded exponential wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    base: Duration,
    ceiling: Duration,
}

impl Backoff {
    /// A wait that starts at `base` and never passes `ceiling`.
    #[must_use]
    pub const fn new(base: Duration, ceiling: Duration) -> Self {
        Self { base, ceiling }
    }

    /// The longest wait before try number `attempt` (0 is the first retry).
    #[must_use]
    pub fn bound(&self, attempt: u32) -> Duration {
        let factor = 1_u32.checked_shl(attempt.min(20)).unwrap_or(u32::MAX);
        self.base.saturating_mul(factor).min(self.ceiling)
    }

    /// The wait before try number `attempt`; `unit` is a random number in [0, 1).
    ///
    /// Half of the bound is kept as a floor, so that a string of lucky draws is not a busy loop.
    #[must_use]
    pub fn wait(&self, attempt: u32, unit: f64) -> Duration {
        let bound = self.bound(attempt);
        bound.mul_f64(0.5 + 0.5 * unit.clamp(0.0, 1.0)).max(self.base.mul_f64(0.5))
    }
}

/// A number in [0, 1) out of a seed; splitmix64, enough for jitter.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "53 bits are kept on purpose")]
pub fn unit(seed: u64) -> f64 {
    let mut z = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_wait_is_never_above_the_ceiling_nor_a_busy_loop(attempt in 0_u32..10_000, seed: u64) {
            let backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(120));
            let wait = backoff.wait(attempt, unit(seed));
            prop_assert!(wait <= Duration::from_secs(120));
            prop_assert!(wait >= Duration::from_millis(500));
        }
    }

    #[test]
    fn the_bound_doubles() {
        let backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(120));
        let bounds: Vec<u64> = (0..9).map(|n| backoff.bound(n).as_secs()).collect();
        assert_eq!(bounds, [1, 2, 4, 8, 16, 32, 64, 120, 120]);
    }
}
