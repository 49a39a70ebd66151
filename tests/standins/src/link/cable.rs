//! Whether a datagram passes: takes what the cable was told and a seed, gives leave. Pure; the same
//! seed loses the same datagrams.

use diarwatch_shared::backoff::unit;
use serde::{Deserialize, Serialize};

/// Loss by chance.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Loss {
    /// Share of the datagrams that is lost, 0 to 1.
    ratio: f64,
    /// Where chance begins.
    #[serde(default)]
    seed: u64,
}

/// What the cable is and what it did.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Cable {
    forwarded: u64,
    dropped: u64,
    cut: bool,
    loss: Loss,
    clients_evicted: u64,
    #[serde(skip)]
    drawn: u64,
}

impl Cable {
    /// Whether the next datagram passes; one that does not is counted.
    pub(super) fn lets_pass(&mut self) -> bool {
        if self.cut {
            self.dropped += 1;
            return false;
        }
        let chance = unit(self.loss.seed.wrapping_add(self.drawn));
        self.drawn = self.drawn.wrapping_add(1);
        let passes = chance >= self.loss.ratio;
        self.dropped += u64::from(!passes);
        passes
    }

    /// A datagram reached the other end's kernel.
    pub(super) fn arrive(&mut self) {
        self.forwarded += 1;
    }

    /// A datagram could not be sent.
    pub(super) fn lose(&mut self) {
        self.dropped += 1;
    }

    /// A client made room for another.
    pub(super) fn evict(&mut self) {
        self.clients_evicted += 1;
    }

    /// Nothing passes from now on.
    pub(super) fn cut(&mut self) {
        self.cut = true;
    }

    /// Datagrams pass again.
    pub(super) fn restore(&mut self) {
        self.cut = false;
    }

    /// Loses datagrams by chance from now on.
    pub(super) fn lossy(&mut self, loss: Loss) -> Result<Self, &'static str> {
        if !(0.0..=1.0).contains(&loss.ratio) {
            return Err("ratio is a share, 0 to 1");
        }
        self.loss = loss;
        self.drawn = 0;
        Ok(*self)
    }

    /// Everything, to be shown.
    pub(super) fn counts(&self) -> Self {
        *self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_cut_cable_passes_nothing_until_it_is_restored() {
        let mut cable = Cable::default();
        cable.cut();
        assert!(!cable.lets_pass());
        cable.restore();
        assert!(cable.lets_pass());
        assert_eq!(cable.dropped, 1);
    }

    #[test]
    fn a_share_beyond_one_is_refused() {
        for ratio in [-0.1, 1.1, f64::NAN] {
            assert!(Cable::default().lossy(Loss { ratio, seed: 1 }).is_err());
        }
    }

    proptest! {
        #[test]
        fn the_share_that_is_lost_is_the_one_asked_for_and_the_same_for_a_seed(
            ratio in 0.0..=1.0_f64, seed: u64,
        ) {
            let lost = || {
                let mut cable = Cable::default();
                cable.lossy(Loss { ratio, seed }).unwrap();
                (0..4_000).map(|_| !cable.lets_pass()).collect::<Vec<bool>>()
            };
            let share = f64::from(u32::try_from(lost().iter().filter(|lost| **lost).count()).unwrap()) / 4_000.0;
            prop_assert!((share - ratio).abs() < 0.06, "{share} of {ratio}");
            prop_assert_eq!(lost(), lost());
        }
    }
}
