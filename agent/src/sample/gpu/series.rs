//! The series of the GPUs of one driver generation, and ticks of them.

use std::sync::Arc;

use diarwatch_shared::clock::UnixMicros;
use diarwatch_shared::reading::{Missing, Reading};
use diarwatch_shared::schema::SeriesKey;

use super::message::GpuFacts;
use super::{DriverState, FAST, FAST_METRICS, SLOW_METRICS};
use crate::sample::Tick;

/// Keys per tier; the same `Arc`s for the life of the generation.
pub(super) struct Series {
    /// Version of the driver.
    pub(super) driver: String,
    fast: Arc<[SeriesKey]>,
    slow: Arc<[SeriesKey]>,
    info: Arc<[SeriesKey]>,
}

impl Series {
    pub(super) fn new(driver: &str, simulated: bool, gpus: &[GpuFacts]) -> Self {
        let of = |metrics: &[&str]| {
            gpus.iter()
                .flat_map(|gpu| {
                    metrics
                        .iter()
                        .map(|metric| key(metric, &[("gpu", &gpu.index.to_string()), ("uuid", &gpu.uuid)]))
                })
                .collect()
        };
        let simulated = if simulated { "true" } else { "false" };
        let info = |gpu: &GpuFacts| {
            let index = gpu.index.to_string();
            let labels = [
                ("gpu", index.as_str()),
                ("uuid", &gpu.uuid),
                ("name", &gpu.name),
                ("driver", driver),
                ("simulated", simulated),
            ];
            key("gpu_info", &labels)
        };
        Self {
            driver: driver.to_owned(),
            fast: of(&FAST_METRICS),
            slow: of(&SLOW_METRICS),
            info: gpus.iter().map(info).collect(),
        }
    }

    /// A tier's values as ticks; the slow tier brings the facts along.
    pub(super) fn ticks(&self, tier: u8, at_us: u64, gpus: Vec<Vec<Reading>>) -> Vec<Tick> {
        let (group, keys) = if tier == FAST { ("gpu_fast", &self.fast) } else { ("gpu_slow", &self.slow) };
        let at = UnixMicros(at_us);
        let readings: Vec<Reading> = gpus.into_iter().flatten().collect();
        if readings.len() != keys.len() {
            return Vec::new();
        }
        let mut ticks = vec![Tick { group: group.into(), at, keys: Arc::clone(keys), readings }];
        if tier != FAST {
            let readings = vec![Ok(1.0); self.info.len()];
            ticks.push(Tick { group: "gpu_info".into(), at, keys: Arc::clone(&self.info), readings });
        }
        ticks
    }
}

/// A GPU that cannot be opened has neither UUID nor name: a label without a value is left out.
pub(super) fn key(metric: &str, labels: &[(&str, &str)]) -> SeriesKey {
    let labels: Vec<(&str, &str)> = labels.iter().copied().filter(|(_, value)| !value.is_empty()).collect();
    SeriesKey::new(metric, &labels)
}

/// Whether the driver answers, as a tick of its own: told also when no GPU can be read.
pub(super) fn driver_tick(at: UnixMicros, state: &DriverState) -> Tick {
    let flag = |yes: bool| match state {
        DriverState::Starting => Err(Missing::NotYet),
        _ => Ok(if yes { 1.0 } else { 0.0 }),
    };
    let up = matches!(state, DriverState::Up { .. });
    let stuck = matches!(state, DriverState::Unresponsive { .. });
    let keys = [SeriesKey::new("gpu_driver_up", &[]), SeriesKey::new("gpu_driver_unresponsive", &[])];
    Tick { group: "gpu_driver".into(), at, keys: keys.into(), readings: vec![flag(up), flag(stuck)] }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(index: u32) -> GpuFacts {
        let (uuid, name) = (format!("GPU-{index}"), "NVIDIA GeForce RTX 4060".into());
        GpuFacts { index, uuid, name, ..GpuFacts::default() }
    }

    #[test]
    fn a_gpu_is_known_by_its_uuid_and_a_fake_one_says_so() {
        let series = Series::new("550.54.15", true, &[facts(0), facts(1)]);
        let ticks =
            series.ticks(super::super::SLOW, 7, vec![vec![Ok(50.0), Ok(1e9)], vec![Ok(60.0), Ok(2e9)]]);
        assert_eq!(
            ticks[0].keys[2],
            SeriesKey::new("gpu_temperature_celsius", &[("gpu", "1"), ("uuid", "GPU-1")])
        );
        assert_eq!(ticks[1].keys[0].labels["simulated"], "true");
    }

    #[test]
    fn a_tick_of_another_shape_is_left_out() {
        let series = Series::new("550.54.15", false, &[facts(0)]);
        assert!(series.ticks(FAST, 7, vec![vec![Ok(1.0)]]).is_empty());
    }
}
