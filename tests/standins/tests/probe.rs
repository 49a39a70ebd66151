//! The WAV that the agent posts as a synthetic job: it is made here, and its bytes are those that ship.
#![expect(clippy::unwrap_used, reason = "a test fails by it")]

use std::path::PathBuf;

const RATE: u32 = 16_000;
/// Samples of one period of the two tones, 125 and 250 Hz: whole numbers, so that every machine makes the
/// same bytes.
const PERIODS: [u32; 2] = [128, 64];
/// Samples of one tone, half a second.
const TURN: u32 = RATE / 2;
const TURNS: u32 = 4;
const PEAK: i32 = 8_000;
const BYTES_MAX: usize = 70 * 1_024;

#[test]
fn the_shipped_probe_is_two_seconds_of_two_alternating_tones() {
    let shipped = std::fs::read(path()).unwrap();
    assert!(shipped.len() <= BYTES_MAX, "{}", shipped.len());
    assert!(shipped == made(), "make it anew: cargo test -p diarwatch-standins --test probe -- --ignored");
}

#[test]
#[ignore = "writes the file that ships"]
fn make_the_probe_anew() {
    std::fs::create_dir_all(path().parent().unwrap()).unwrap();
    std::fs::write(path(), made()).unwrap();
}

fn path() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../agent/assets/probe.wav"))
}

/// 16 kHz, 16 bits, mono.
fn made() -> Vec<u8> {
    let samples = (0..TURNS).flat_map(|turn| {
        let [low, high] = PERIODS;
        let period = if turn % 2 == 0 { low } else { high };
        (0..TURN).map(move |at| triangle(at % period, period))
    });
    let data: Vec<u8> = samples.flat_map(i16::to_le_bytes).collect();
    let length = u32::try_from(data.len()).unwrap();
    let long = u32::to_le_bytes;
    let short = u16::to_le_bytes;
    [
        &b"RIFF"[..],
        &long(36 + length),
        b"WAVEfmt ",
        &long(16),
        &short(1),
        &short(1),
        &long(RATE),
        &long(RATE * 2),
        &short(2),
        &short(16),
        b"data",
        &long(length),
        &data,
    ]
    .concat()
}

/// Up, down and up again in one period.
fn triangle(at: u32, period: u32) -> i16 {
    let (at, quarter) = (i32::try_from(at).unwrap(), i32::try_from(period / 4).unwrap());
    let height = match at / quarter {
        0 => at,
        1 | 2 => 2 * quarter - at,
        _ => at - 4 * quarter,
    };
    i16::try_from(height * PEAK / quarter).unwrap()
}
