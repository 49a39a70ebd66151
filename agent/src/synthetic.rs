//! A job that is made up to prove that a worker works: takes its address and a WAV, posts it, gives how
//! long the whole answer took. Success is 2xx within the time that it may take. A worker that fell back
//! to the CPU succeeds too, but 7 to 20 times slower: [`plausible`] tells that from what earlier ones took.

use std::time::Duration;

use diarwatch_shared::clock;
use reqwest::header::CONTENT_TYPE;

use crate::masking::mask;
use crate::probe::{client, for_people, root_cause};

/// The WAV that is posted where none is configured: 2 seconds of two tones, 16 kHz, mono, 16 bit.
pub static WAV: &[u8] = include_bytes!("../assets/probe.wav");
/// Bytes of a WAV that is posted.
pub const WAV_BYTES_MAX: usize = 16 << 20;
/// How many times slower than as a rule is not plausible any more.
pub const SLOWER_MAX: u32 = 5;
/// Earlier ones that are looked at.
pub const HISTORY_MAX: usize = 20;
/// Below this nothing is implausible: at a few milliseconds the network decides.
pub const FAST_ENOUGH: Duration = Duration::from_secs(1);
/// Bytes of an answer that are read.
const ANSWER_BYTES_MAX: usize = 4 << 20;

/// Posts a WAV as `audio/wav` and waits for the whole answer.
///
/// # Errors
/// When the worker does not say 2xx within `max`: what it said, for a person.
pub async fn post(url: &str, wav: &[u8], max: Duration) -> Result<Duration, String> {
    let shown = mask(url);
    if wav.len() > WAV_BYTES_MAX {
        return Err(format!(
            "the WAV has {} bytes, more than {WAV_BYTES_MAX}; name a shorter one",
            wav.len()
        ));
    }
    let client = client().map_err(|error| error.to_string())?;
    let began = clock::uptime();
    let asked = async {
        let request = client.post(url).header(CONTENT_TYPE, "audio/wav").body(wav.to_vec());
        let mut response = request.send().await.map_err(|error| root_cause(&error))?;
        let (mut read, mut words) = (0_usize, Vec::new());
        while let Some(chunk) = response.chunk().await.map_err(|error| root_cause(&error))? {
            read = read.saturating_add(chunk.len());
            if read > ANSWER_BYTES_MAX {
                return Err(format!("its answer has more than {ANSWER_BYTES_MAX} bytes"));
            }
            let room = crate::probe::REASON_BYTES_MAX.saturating_sub(words.len()).min(chunk.len());
            words.extend_from_slice(chunk.get(..room).unwrap_or_default());
        }
        let status = response.status();
        if status.is_success() {
            return Ok(clock::uptime().saturating_sub(began));
        }
        Err(format!("status {status}: {}", mask(&String::from_utf8_lossy(&words))))
    };
    match tokio::time::timeout(max, asked).await {
        Ok(Ok(took)) => Ok(took),
        Ok(Err(problem)) => Err(for_people(&format!("made-up job at {shown}: {problem}"))),
        Err(_) => Err(for_people(&format!(
            "made-up job at {shown}: no whole answer within {} s",
            max.as_secs_f64()
        ))),
    }
}

/// Whether a job took about as long as earlier ones of the same worker, of which the newest count; the
/// first one is taken as it is.
#[must_use]
pub fn plausible(took: Duration, history: &[Duration]) -> bool {
    let mut newest = history.get(history.len().saturating_sub(HISTORY_MAX)..).unwrap_or_default().to_vec();
    newest.sort_unstable();
    let median = newest.get(newest.len().saturating_sub(1) / 2);
    median.is_none_or(|median| took <= FAST_ENOUGH || took <= median.saturating_mul(SLOWER_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    fn secs(secs: &[u64]) -> Vec<Duration> {
        secs.iter().map(|secs| Duration::from_secs(*secs)).collect()
    }

    /// Reads a whole request, then answers; gives its address and what was read.
    async fn worker(answer: &'static str) -> (String, tokio::task::JoinHandle<Vec<u8>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/diarize", listener.local_addr().unwrap());
        let served = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            let whole = |request: &[u8]| request.ends_with(WAV.get(WAV.len() - 64..).unwrap());
            while !whole(&request) && stream.read_buf(&mut request).await.unwrap() > 0 {}
            stream.write_all(answer.as_bytes()).await.unwrap();
            request
        });
        (url, served)
    }

    #[test]
    fn the_shipped_wav_is_two_seconds_of_sound() {
        assert_eq!((&WAV[..4], &WAV[8..16]), (b"RIFF".as_slice(), b"WAVEfmt ".as_slice()));
        let number = |at: usize| u32::from_le_bytes([WAV[at], WAV[at + 1], WAV[at + 2], WAV[at + 3]]);
        // PCM and one channel, 16 kHz, 16 bit; then two seconds of two bytes each.
        assert_eq!((number(20), number(24), number(40)), (0x0001_0001, 16_000, 64_000));
        assert_eq!(WAV.len(), 44 + 64_000);
        assert!(WAV[44..].chunks(2).any(|s| i16::from_le_bytes([s[0], s[1]]).unsigned_abs() > 3_000));
    }

    #[tokio::test]
    async fn a_worker_that_does_the_job_is_posted_the_whole_wav() {
        let (url, served) = worker("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n[]").await;
        let took = post(&url, WAV, Duration::from_secs(60)).await.unwrap();
        assert!(took > Duration::ZERO);
        let request = served.await.unwrap();
        let head = String::from_utf8_lossy(&request[..request.len() - WAV.len()]).to_lowercase();
        assert!(
            head.starts_with("post /diarize http/1.1") && head.contains("content-type: audio/wav"),
            "{head}"
        );
    }

    #[tokio::test]
    async fn a_worker_that_refuses_is_quoted() {
        let (url, _served) =
            worker("HTTP/1.1 500 Oops\r\ncontent-length: 23\r\n\r\ntoken=hf_abcdefghij OOM").await;
        let problem = post(&url, WAV, Duration::from_secs(60)).await.unwrap_err();
        assert!(problem.contains("status 500") && problem.contains("OOM"), "{problem}");
        assert!(!problem.contains("abcdefghij"), "{problem}");
    }

    #[tokio::test]
    async fn a_worker_that_says_nothing_has_its_time_and_no_more() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let problem = post(&url, WAV, Duration::from_millis(50)).await.unwrap_err();
        assert!(problem.contains("no whole answer within 0.05 s"), "{problem}");
    }

    #[test]
    fn a_worker_that_fell_to_the_cpu_is_told_by_its_time() {
        assert!(plausible(Duration::from_secs(50), &[]), "the first is taken as it is");
        let history = secs(&[3, 2, 2, 40, 2]);
        assert!(plausible(Duration::from_secs(10), &history));
        assert!(!plausible(Duration::from_secs(14), &history), "seven times slower");
        // One slow job among the earlier ones does not make slowness the rule.
        assert!(!plausible(Duration::from_secs(100), &history));
        assert!(plausible(Duration::from_millis(900), &[Duration::from_millis(20)]), "too short to tell");
        let old = [secs(&[1; 50]), secs(&[20; HISTORY_MAX])].concat();
        assert!(plausible(Duration::from_secs(60), &old), "only the newest count");
    }
}
