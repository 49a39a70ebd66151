//! What a diarization would find: takes the bytes of a WAV file or only a length, gives the length and
//! who speaks when. Pure. A voice is a pitch: windows of the same count of zero crossings are one speaker.

use serde::Serialize;

/// Seconds of audio of one job: a week.
const SECONDS_MAX: f64 = 7.0 * 86_400.0;
/// Segments of one job.
const SEGMENTS_MAX: usize = 1_000;
/// Speakers that are told apart.
const SPEAKERS_MAX: usize = 16;
/// Windows in a second.
const WINDOWS_PER_SECOND: u32 = 10;
/// A window whose samples stay below this is silence.
const SILENCE: u16 = 200;
/// How long one speaker speaks in audio that was never there, seconds.
const TURN_SECONDS: f64 = 15.0;
/// Bytes of a sample that is listened to.
const SAMPLE_BYTES: usize = 2;

/// What one speaker says in one go.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Segment {
    /// Seconds from the start of the audio.
    start: f64,
    /// Seconds from the start of the audio.
    end: f64,
    speaker: String,
}

/// Audio that was understood.
#[derive(Debug, PartialEq)]
pub(super) struct Audio {
    /// Its length.
    pub(super) seconds: f64,
    /// Who speaks when.
    pub(super) segments: Vec<Segment>,
}

/// What stands in the `fmt ` chunk.
struct Format {
    channels: usize,
    rate: u32,
    frame_bytes: usize,
    is_heard: bool,
}

impl Audio {
    /// Audio of a length, two speakers in turn.
    pub(super) fn of_length(seconds: f64) -> Result<Self, String> {
        if !(0.0..=SECONDS_MAX).contains(&seconds) {
            return Err(format!("audio_seconds is {seconds}; write 0 to {SECONDS_MAX}"));
        }
        let turns = std::iter::successors(Some(0.0), |start| Some(start + TURN_SECONDS));
        let turns = turns.take_while(|start| *start < seconds).take(SEGMENTS_MAX).enumerate();
        let segment = |(number, start): (usize, f64)| Segment {
            start,
            end: (start + TURN_SECONDS).min(seconds),
            speaker: speaker(number % 2),
        };
        Ok(Self { seconds, segments: turns.map(segment).collect() })
    }

    /// Reads a WAV file.
    pub(super) fn of_wav(bytes: &[u8]) -> Result<Self, String> {
        let format = chunk(bytes, *b"fmt ").and_then(format).ok_or("the WAV has no usable `fmt ` chunk")?;
        let data = chunk(bytes, *b"data").ok_or("the WAV has no `data` chunk")?;
        let frames = u32::try_from(data.len() / format.frame_bytes).map_err(|_| "the WAV is too long")?;
        let seconds = f64::from(frames) / f64::from(format.rate);
        if !format.is_heard {
            return Self::of_length(seconds);
        }
        let first =
            data.chunks_exact(format.frame_bytes).filter_map(|frame| frame.first_chunk::<SAMPLE_BYTES>());
        let samples: Vec<i16> = first.map(|bytes| i16::from_le_bytes(*bytes)).collect();
        Ok(Self { seconds, segments: heard(&samples, format.rate, seconds) })
    }
}

/// The first chunk of that name; a data chunk that claims more than there is ends with the file.
fn chunk(bytes: &[u8], name: [u8; 4]) -> Option<&[u8]> {
    let mut rest = bytes.strip_prefix(b"RIFF")?.get(4..)?.strip_prefix(b"WAVE")?;
    loop {
        let (id, after) = rest.split_first_chunk::<4>()?;
        let (length, body) = after.split_first_chunk::<4>()?;
        let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
        if *id == name {
            return Some(body.get(..length).unwrap_or(body));
        }
        // A chunk of odd length has a byte of padding.
        rest = body.get(length.checked_add(length % 2)?..)?;
    }
}

fn format(chunk: &[u8]) -> Option<Format> {
    let short = |at: usize| Some(u16::from_le_bytes(*chunk.get(at..)?.first_chunk()?));
    let rate = u32::from_le_bytes(*chunk.get(4..)?.first_chunk()?);
    let (tag, channels, frame_bytes, bits) = (short(0)?, short(2)?, short(12)?, short(14)?);
    let is_whole = rate >= WINDOWS_PER_SECOND && channels > 0 && frame_bytes > 0;
    is_whole
        .then_some(Format {
            channels: channels.into(),
            rate,
            frame_bytes: frame_bytes.into(),
            is_heard: tag == 1 && bits == 16,
        })
        .filter(|format| !format.is_heard || format.frame_bytes == format.channels * SAMPLE_BYTES)
}

/// Who is heard when.
fn heard(samples: &[i16], rate: u32, seconds: f64) -> Vec<Segment> {
    let window = usize::try_from(rate / WINDOWS_PER_SECOND).unwrap_or(1).max(1);
    let mut pitches: Vec<usize> = Vec::new();
    let mut segments: Vec<Segment> = Vec::new();
    let mut start = 0.0;
    for samples in samples.chunks(window) {
        let end = f64::min(start + 1.0 / f64::from(WINDOWS_PER_SECOND), seconds);
        if samples.iter().any(|sample| sample.unsigned_abs() >= SILENCE) {
            let name = speaker(speaker_of(crossings(samples), &mut pitches));
            let has_room = segments.len() < SEGMENTS_MAX;
            match segments.last_mut() {
                Some(last) if last.speaker == name && last.end >= start => last.end = end,
                _ if has_room => segments.push(Segment { start, end, speaker: name }),
                _ => {}
            }
        }
        start = end;
    }
    segments
}

fn crossings(samples: &[i16]) -> usize {
    samples.windows(2).filter(|pair| matches!(pair, [a, b] if (*a < 0) != (*b < 0))).count()
}

/// The speaker of a pitch; one that is a fifth away from all others is a new one.
fn speaker_of(pitch: usize, pitches: &mut Vec<usize>) -> usize {
    let known = pitches.iter().position(|known| known.abs_diff(pitch) * 5 <= *known.max(&5));
    known.unwrap_or_else(|| {
        if pitches.len() < SPEAKERS_MAX {
            pitches.push(pitch);
        }
        pitches.len() - 1
    })
}

fn speaker(number: usize) -> String {
    format!("SPEAKER_{number:02}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_length_alone_has_two_speakers_in_turn() {
        let audio = Audio::of_length(40.0).unwrap();
        let told: Vec<_> =
            audio.segments.iter().map(|part| (part.start, part.end, part.speaker.as_str())).collect();
        assert_eq!(told, [(0.0, 15.0, "SPEAKER_00"), (15.0, 30.0, "SPEAKER_01"), (30.0, 40.0, "SPEAKER_00")]);
        assert!(Audio::of_length(-1.0).is_err() && Audio::of_length(f64::NAN).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(
            head in prop_oneof![Just(b"RIFF....WAVE".to_vec()), Just(Vec::new())],
            format in prop::collection::vec(any::<u8>(), 0..24),
            length: u32,
            data in prop::collection::vec(any::<u8>(), 0..400),
        ) {
            let size = u32::try_from(format.len()).unwrap().to_le_bytes();
            let wav = [&head, &b"fmt "[..], &size, &format, b"data", &length.to_le_bytes(), &data].concat();
            let _ = Audio::of_wav(&wav);
        }
    }
}
