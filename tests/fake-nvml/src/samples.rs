//! The driver's ring of past samples: takes the time of the newest sample that the caller has,
//! gives those after it.

use crate::abi::{Answer, Code, Out, device_entries};
use crate::clock;
use crate::scenario::Key;
use crate::state::{Device, whole};

/// Samples in the ring, whatever the scenario says.
const SAMPLES_MAX: u64 = 4_096;
/// NVML_VALUE_TYPE_UNSIGNED_INT.
const UNSIGNED_INT: u32 = 1;

/// `nvmlSample_t`; the value is a union of eight bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sample {
    timestamp_us: u64,
    value: u64,
}

/// What a caller of `nvmlDeviceGetSamples` hands in to be filled.
struct Places {
    kind: Out<u32>,
    count: Out<u32>,
    list: Out<Sample>,
}

device_entries! {
    fn nvmlDeviceGetSamples(
        device, sampling: u32, last: u64, kind: Out<u32>, count: Out<u32>, list: Out<Sample>,
    ) {
        let places = Places { kind, count, list };
        answer(device, sampled(sampling)?, last, &places)
    };
}

/// The key of an `nvmlSamplingType_t`.
fn sampled(sampling: u32) -> Result<Key, Code> {
    match sampling {
        0 => Ok(Key::PowerMw),
        1 => Ok(Key::Util),
        2 => Ok(Key::MemUtil),
        3 => Ok(Key::Enc),
        4 => Ok(Key::Dec),
        5 => Ok(Key::SmMhz),
        6 => Ok(Key::MemMhz),
        _ => Err(Code::NOT_SUPPORTED),
    }
}

fn answer(device: &Device, key: Key, last: u64, places: &Places) -> Answer {
    let ring = device.whole(Key::Samples)?.min(SAMPLES_MAX);
    let step_us = whole(device.read(Key::SampleMs)? * 1_000.0).max(1);
    let now_us = clock::unix_micros();
    let times = newer(ring, step_us, now_us, last);
    if times.is_empty() {
        return Err(Code::NOT_FOUND);
    }
    places.kind.set(UNSIGNED_INT)?;
    if places.list.is_null() {
        // As the driver does: the size of the ring, not the number of what is new.
        return places.count.set(u32::try_from(ring).unwrap_or(u32::MAX));
    }
    if (places.count.get()? as usize) < times.len() {
        return Err(Code::INVALID_ARGUMENT);
    }
    let samples: Vec<Sample> = times
        .into_iter()
        .map(|timestamp_us| {
            let value = device.read_ago(key, seconds(now_us - timestamp_us)).map(whole)?;
            Ok(Sample { timestamp_us, value })
        })
        .collect::<Result<_, Code>>()?;
    places.list.set_list(&samples, places.count)
}

/// The times in the ring that are after `last`, oldest first.
fn newer(ring: u64, step_us: u64, now_us: u64, last: u64) -> Vec<u64> {
    let newest = now_us - now_us % step_us;
    let times = (0..ring).rev().filter_map(|back| newest.checked_sub(back.checked_mul(step_us)?));
    times.filter(|time| *time > last).collect()
}

#[expect(clippy::cast_precision_loss, reason = "the age of a sample is small")]
fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_caller_gets_each_sample_once() {
        assert_eq!(newer(3, 100, 1_050, 0), [800, 900, 1_000]);
        assert_eq!(newer(3, 100, 1_050, 900), [1_000]);
        assert_eq!(newer(3, 100, 1_050, 1_000), Vec::<u64>::new());
    }

    proptest! {
        #[test]
        fn no_ring_makes_it_panic(ring in 0..SAMPLES_MAX, step in 1_u64.., now: u64, last: u64) {
            let times = newer(ring, step, now, last);
            prop_assert!(times.iter().all(|time| *time > last && *time <= now));
        }
    }
}
