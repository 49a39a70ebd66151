//! The figures of a look: their keys in the configuration, and what counts as one.
//!
//! Takes what a source gave, whatever it is; gives a look in which every number is one, or says which is
//! not. A count is 0 or more and finite; an age below 0 is a clock that is ahead, and reads as 0. Pure.

use diarwatch_shared::reading::Reading;

use super::{Look, UNDER_WAY_MAX};

/// The largest figure: up to here a float counts one by one.
pub const FIGURE_MAX: f64 = 9_007_199_254_740_992.0;

/// One figure of a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Figure {
    /// Jobs that wait.
    Waiting,
    /// Jobs that are worked on.
    Processing,
    /// Age of the oldest waiting job.
    OldestSeconds,
    /// Jobs completed so far.
    CompletedTotal,
    /// Jobs failed so far.
    FailedTotal,
    /// Mean processing time.
    MeanSeconds,
    /// 95th percentile of the processing time.
    P95Seconds,
}

impl Figure {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Waiting,
        Self::Processing,
        Self::OldestSeconds,
        Self::CompletedTotal,
        Self::FailedTotal,
        Self::MeanSeconds,
        Self::P95Seconds,
    ];

    /// Its key in the configuration.
    #[must_use]
    pub fn key(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Processing => "processing",
            Self::OldestSeconds => "oldest_seconds",
            Self::CompletedTotal => "completed_total",
            Self::FailedTotal => "failed_total",
            Self::MeanSeconds => "mean_seconds",
            Self::P95Seconds => "p95_seconds",
        }
    }

    fn accept(self, value: f64) -> Result<f64, String> {
        if !value.is_finite() || value > FIGURE_MAX {
            return Err(format!("`{}` is {value}, which is no figure of a queue", self.key()));
        }
        match self {
            Self::OldestSeconds => Ok(value.max(0.0)),
            _ if value < 0.0 => Err(format!("`{}` is {value}; it cannot be below 0", self.key())),
            _ => Ok(value),
        }
    }
}

impl Look {
    /// Sets a figure.
    pub fn set(&mut self, figure: Figure, reading: Reading) {
        *self.place(figure) = reading;
    }

    /// The look, when all of its numbers can be ones of a queue.
    ///
    /// # Errors
    /// The first that cannot.
    pub fn checked(mut self) -> Result<Self, String> {
        for figure in Figure::ALL {
            let place = self.place(figure);
            if let Ok(value) = *place {
                *place = Ok(figure.accept(value)?);
            }
        }
        let span = |seconds: &f64| seconds.is_finite() && (0.0..=FIGURE_MAX).contains(seconds);
        for ended in &mut self.ended {
            ended.took_seconds = ended.took_seconds.filter(span);
            ended.audio_seconds = ended.audio_seconds.filter(span);
        }
        self.under_way.truncate(UNDER_WAY_MAX);
        for job in &mut self.under_way {
            job.audio_seconds = job.audio_seconds.filter(span);
        }
        if matches!((self.waiting, self.oldest_seconds), (Ok(waiting), Ok(_)) if waiting == 0.0) {
            self.oldest_seconds = Ok(0.0);
        }
        Ok(self)
    }

    fn place(&mut self, figure: Figure) -> &mut Reading {
        match figure {
            Figure::Waiting => &mut self.waiting,
            Figure::Processing => &mut self.processing,
            Figure::OldestSeconds => &mut self.oldest_seconds,
            Figure::CompletedTotal => &mut self.completed_total,
            Figure::FailedTotal => &mut self.failed_total,
            Figure::MeanSeconds => &mut self.mean_seconds,
            Figure::P95Seconds => &mut self.p95_seconds,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::Ended;
    use diarwatch_shared::clock::UnixMicros;
    use proptest::prelude::*;

    #[test]
    fn a_clock_that_is_ahead_makes_no_job_younger_than_new_and_an_empty_queue_has_no_oldest() {
        let look = Look { waiting: Ok(1.0), oldest_seconds: Ok(-3.0), ..Look::default() };
        assert_eq!(look.checked().unwrap().oldest_seconds, Ok(0.0));
        let look = Look { waiting: Ok(0.0), oldest_seconds: Ok(9.0), ..Look::default() };
        assert_eq!(look.checked().unwrap().oldest_seconds, Ok(0.0));
    }

    #[test]
    fn a_figure_that_cannot_be_is_named() {
        let look = Look { failed_total: Ok(-1.0), ..Look::default() };
        assert_eq!(look.checked().unwrap_err(), "`failed_total` is -1; it cannot be below 0");
    }

    proptest! {
        #[test]
        fn a_checked_look_holds_only_numbers_that_a_queue_can_have(
            values in proptest::collection::vec(any::<f64>(), 7), took: f64, audio: f64
        ) {
            let mut look = Look::default();
            for (figure, value) in Figure::ALL.into_iter().zip(&values) {
                look.set(figure, Ok(*value));
            }
            let (took_seconds, audio_seconds) = (Some(took), Some(audio));
            look.ended = vec![Ended { at: UnixMicros(1), failed: false, took_seconds, audio_seconds }];
            let good = |value: f64| value.is_finite() && (0.0..=FIGURE_MAX).contains(&value);
            if let Ok(mut look) = look.checked() {
                for figure in Figure::ALL {
                    prop_assert!(good(look.place(figure).unwrap()), "{figure:?}");
                }
                for seconds in [look.ended[0].took_seconds, look.ended[0].audio_seconds].into_iter().flatten() {
                    prop_assert!(good(seconds));
                }
            }
        }
    }
}
