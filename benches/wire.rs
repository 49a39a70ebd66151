//! The frame on the wire as it is now (codec 1): bytes and CPU time per sample, envelope included.
//!
//! A seeded stream of 152 series at 10 Hz (8 GPUs with 16 metrics, 20 of the host, 4 of a queue),
//! 120 frames of a second; every decoded value is checked. Prints one line, last. Thread CPU time,
//! so that a busy machine changes little. The peers come with the codec that is to beat them.

#![expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a bench: small numbers, and a fault ends it"
)]

use diarwatch_shared::backoff::unit;
use diarwatch_shared::clock::UnixMicros;
use diarwatch_shared::frame::{self, Body, Group};
use diarwatch_shared::node::Epoch;
use diarwatch_shared::reading::Reading;
use diarwatch_shared::schema::{GroupDef, Schema, SeriesDef, SeriesKey, schema_id};
use diarwatch_shared::wire::Codec;
use diarwatch_shared::wire::v1::{self, FLAG_KEYFRAME, Header};

const FRAMES: u64 = 120;
const TICKS: u64 = 10;
const ROUNDS: usize = 7;

/// (metric, quantum, lowest, highest, how often a tick changes it)
type Shape = (&'static str, (u32, u32), f64, f64, f64);

const GPU: [Shape; 16] = [
    ("gpu_utilization_ratio", (1, 100), 0.0, 1.0, 0.5),
    ("gpu_memory_utilization_ratio", (1, 100), 0.0, 1.0, 0.5),
    ("gpu_memory_used_bytes", (1, 1), 2e9, 8e9, 0.05),
    ("gpu_memory_total_bytes", (1, 1), 8e9, 8e9, 0.0),
    ("gpu_power_watts", (1, 1000), 20.0, 115.0, 1.0),
    ("gpu_temperature_celsius", (1, 1), 40.0, 80.0, 0.1),
    ("gpu_clock_sm", (1, 1), 210.0, 2_460.0, 0.1),
    ("gpu_clock_memory", (1, 1), 8_501.0, 8_501.0, 0.0),
    ("gpu_fan", (1, 1), 30.0, 60.0, 0.02),
    ("gpu_energy", (1, 1), 0.0, 1e9, 1.0),
    ("gpu_pcie_rx", (1, 1), 0.0, 1e9, 1.0),
    ("gpu_pcie_tx", (1, 1), 0.0, 1e9, 1.0),
    ("gpu_encoder", (1, 100), 0.0, 0.0, 0.0),
    ("gpu_decoder", (1, 100), 0.0, 0.0, 0.0),
    ("gpu_ecc", (1, 1), 0.0, 0.0, 0.0),
    ("gpu_throttle", (1, 1), 0.0, 4.0, 0.01),
];
const HOST: Shape = ("host", (1, 10_000), 0.0, 1.0, 0.5);
const QUEUE: Shape = ("queue", (1, 1), 0.0, 60.0, 0.05);

fn main() {
    let shapes: Vec<(SeriesKey, Shape)> = shapes();
    let series = shapes.iter().map(|(key, shape)| SeriesDef { key: key.clone(), quantum: shape.1 }).collect();
    let schema = Schema::new(vec![GroupDef { name: "all".into(), series }]);
    let id = schema_id(&schema.to_bytes());
    let bodies: Vec<(UnixMicros, Body)> = (0..FRAMES).map(|frame| body(&shapes, frame)).collect();
    let header = |base: UnixMicros, seq: u64| Header {
        seq,
        base,
        epoch: Epoch(1),
        schema: id,
        ticks: 10,
        series: 152,
        flags: FLAG_KEYFRAME,
        codec: Codec::Columns,
    };
    let encode = || -> Vec<Vec<u8>> {
        let seal = |(seq, (base, body)): (u64, &(UnixMicros, Body))| {
            let payload = frame::encode(&schema, *base, body).expect("a body of the schema's shape");
            v1::seal(&header(*base, seq), payload).expect("a frame within its limit")
        };
        (0..).zip(&bodies).map(seal).collect()
    };
    let (encode_ns, frames) = best(encode);
    let decode = || -> Vec<Body> {
        let open = |bytes: &Vec<u8>| {
            let (header, payload) = v1::open(bytes).expect("a sound envelope");
            frame::decode(&schema, header.base, &payload).expect("a sound payload")
        };
        frames.iter().map(open).collect()
    };
    let (decode_ns, decoded) = best(decode);
    let same = decoded.iter().zip(&bodies).all(|(decoded, (_, body))| near(decoded, body, &shapes));
    assert!(same, "a decoded value differs by more than half its quantum");
    let samples = (FRAMES * TICKS) as f64 * shapes.len() as f64;
    let bytes: usize = frames.iter().map(Vec::len).sum();
    println!(
        "wire quantised_bytes_per_sample={:.3} bytes_per_frame={} encode_ns_per_sample={:.1} decode_ns_per_sample={:.1}",
        bytes as f64 / samples,
        bytes / frames.len(),
        encode_ns / samples,
        decode_ns / samples
    );
}

fn shapes() -> Vec<(SeriesKey, Shape)> {
    let gpus = (0..8)
        .flat_map(|gpu| GPU.map(|shape| (SeriesKey::new(shape.0, &[("gpu", &gpu.to_string())]), shape)));
    let more = |count: u32, shape: Shape| {
        (0..count).map(move |number| (SeriesKey::new(shape.0, &[("of", &number.to_string())]), shape))
    };
    gpus.chain(more(20, HOST)).chain(more(4, QUEUE)).collect()
}

/// A second of every series; the same for the same number.
fn body(shapes: &[(SeriesKey, Shape)], frame: u64) -> (UnixMicros, Body) {
    let base = UnixMicros(1_764_826_335_000_000 + frame * 1_000_000);
    let jitter = |tick: u64| (unit(frame * TICKS + tick) * 300.0) as u64;
    let times = (0..TICKS).map(|tick| UnixMicros(base.0 + tick * 100_000 + jitter(tick))).collect();
    let column = |(number, (_, shape)): (u64, &(SeriesKey, Shape))| -> Vec<Reading> {
        let (_, quantum, low, high, change) = *shape;
        let mut last = u64::MAX;
        (0..TICKS)
            .map(|tick| {
                let at = frame * TICKS + tick;
                let draw = unit(number << 32 | at);
                last = if draw < change || last == u64::MAX { at } else { last };
                let value = low + (high - low) * unit(number << 40 | last);
                Ok((value * f64::from(quantum.1)).round() / f64::from(quantum.1))
            })
            .collect()
    };
    let columns = (0..).zip(shapes).map(column).collect();
    (base, Body { groups: vec![Group { times, columns }] })
}

fn near(decoded: &Body, body: &Body, shapes: &[(SeriesKey, Shape)]) -> bool {
    decoded.groups.iter().zip(&body.groups).all(|(decoded, group)| {
        decoded.times == group.times
            && decoded.columns.iter().zip(&group.columns).zip(shapes).all(|((got, want), (_, shape))| {
                let step = f64::from(shape.1.0) / f64::from(shape.1.1);
                got.iter()
                    .zip(want)
                    .all(|pair| matches!(pair, (Ok(got), Ok(want)) if (got - want).abs() <= step / 2.0))
            })
    })
}

/// The least thread CPU time of some rounds, in nanoseconds, and what the last one gave.
fn best<T>(mut work: impl FnMut() -> T) -> (f64, T) {
    let mut least = f64::INFINITY;
    let mut answer = work();
    for _ in 0..ROUNDS {
        let before = cpu_ns();
        answer = work();
        least = least.min(cpu_ns() - before);
    }
    (least, answer)
}

fn cpu_ns() -> f64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    now.tv_sec as f64 * 1e9 + now.tv_nsec as f64
}
