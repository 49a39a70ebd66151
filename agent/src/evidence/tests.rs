//! Whatever is known, the event fits, is JSON and tells no secret.

use diarwatch_shared::event::{Event, What};
use diarwatch_shared::node::WorkerId;
use proptest::prelude::*;

use super::*;
use crate::masking::tests::SECRETS;

fn event(bundle: Value) -> Vec<u8> {
    let worker = WorkerId::new("w".repeat(63)).unwrap();
    Event::new(UnixMicros(u64::MAX), What::WorkerEvidence { worker, restart: u64::MAX, bundle }).to_bytes()
}

fn full(text: &str, many: usize) -> Parts {
    let at = UnixMicros(1_764_826_335_000_000);
    let texts = || std::iter::repeat_n(text.to_owned(), many);
    let samples: Vec<Option<f64>> = (0..700_u32).map(|n| Some(f64::from(n % 101) / 100.0)).collect();
    let memory =
        CgroupMemory { oom_kill: u64::MAX, pressure: Some(Pressure::default()), ..Default::default() };
    Parts {
        exit: Some(Exit { pid: 7, reason: text.into(), signal: Some(9), oom: true, ..Exit::default() }),
        cause: Some(Cause::Wedged),
        views: texts().map(|words| View { view: text.into(), words }).collect(),
        lines: texts().enumerate().map(|(n, line)| (UnixMicros(at.0 + n as u64), line)).collect(),
        gpus: (0..many.min(16))
            .map(|gpu| GpuTrace {
                gpu: gpu.to_string(),
                uuid: text.into(),
                from: at,
                step: Duration::from_millis(100),
                utilization: samples.clone(),
                memory_used: samples.iter().map(|s| s.map(|s| s * 8e9)).collect(),
                power: samples.iter().map(|s| s.map(|s| s * 115.0)).collect(),
            })
            .collect(),
        xids: texts().map(|text| Xid { at, xid: 79, text }).collect(),
        jobs: texts()
            .map(|id| UnderWay { id: Some(id), since: at, started: Some(at), audio_seconds: Some(1.5) })
            .collect(),
        memory_before: Some(memory),
        memory_after: Some(memory),
        host_pressure: Some(Pressure::default()),
        probes: texts().map(|verdict| ProbeSeen { at, took_ms: 5, verdict }).collect(),
        versions: texts().enumerate().map(|(n, text)| (n.to_string(), text)).collect(),
        simulated: true,
    }
}

#[test]
fn an_ordinary_end_is_told_whole() {
    let mut parts = full("ordinary words of a worker", 20);
    parts.gpus.truncate(2);
    let told = bundle(&parts);
    assert!(event(told.clone()).len() <= EVENT_BYTES_MAX);
    let left_out: Vec<&String> =
        told.as_object().unwrap().keys().filter(|key| key.ends_with("_left_out")).collect();
    assert!(left_out.is_empty(), "{left_out:?}");
    assert_eq!(
        (&told["simulated"], &told["cause"], &told["exit"]["signal"]),
        (&json!(true), &json!("wedged"), &json!(9))
    );
    let gpu = &told["gpus"][1];
    assert_eq!(gpu["step_ms"], 100);
    for figure in ["utilization_percent", "memory_used_mib", "power_watts"] {
        assert_eq!(gpu[figure].as_array().unwrap().len(), SAMPLES_MAX, "{figure}");
    }
    // The oldest hundred of seven hundred samples are not there, and the first time says so.
    assert_eq!(gpu["from_us"], 1_764_826_345_000_000_u64);
    assert_eq!(gpu["utilization_percent"][0], 100);
}

#[test]
fn the_newest_lines_win_when_the_room_is_short() {
    let mut parts = full("", 0);
    parts.lines = (0..300).map(|n| (UnixMicros(n), format!("{n} {}", "話".repeat(300)))).collect();
    let told = bundle(&parts);
    let lines = told["lines"].as_array().unwrap();
    assert_eq!(lines.last().unwrap()[0], 299);
    assert!(lines.len() > 50, "{}", lines.len());
    let left_out = usize::try_from(told["lines_left_out"].as_u64().unwrap()).unwrap();
    assert_eq!(lines.len() + left_out, LINES_MAX);
}

#[test]
fn many_gpus_are_thinned_and_keep_their_peaks() {
    let mut parts = full("x", 8);
    parts.gpus.iter_mut().for_each(|gpu| {
        gpu.utilization = vec![Some(0.0); 600];
        gpu.utilization[333] = Some(1.0);
    });
    let told = bundle(&parts);
    let gpus = told["gpus"].as_array().unwrap();
    assert_eq!(gpus.len(), 8);
    assert!(gpus[0]["step_ms"].as_u64().unwrap() > 100);
    for gpu in gpus {
        assert!(gpu["utilization_percent"].as_array().unwrap().contains(&json!(100)));
    }
}

#[test]
fn a_value_that_is_no_number_is_none() {
    let mut parts = full("x", 1);
    parts.gpus[0].power = vec![Some(f64::NAN), Some(f64::INFINITY), Some(-1.0), None, Some(7.4)];
    parts.jobs[0].audio_seconds = Some(f64::NAN);
    let told = bundle(&parts);
    assert_eq!(told["gpus"][0]["power_watts"], json!([null, null, null, null, 7]));
    assert_eq!(told["jobs"][0]["audio_seconds"], Value::Null);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn whatever_the_parts_hold_the_event_fits_and_is_read_again(
        text in "(\\PC|\\\\|\"|\\n|\\x00|話){0,300}", times in 1_usize..8, many in 0_usize..400,
    ) {
        let told = bundle(&full(&text.repeat(times), many));
        let bytes = event(told.clone());
        prop_assert!(bytes.len() <= EVENT_BYTES_MAX, "{} bytes", bytes.len());
        let read = Event::from_bytes(&bytes).unwrap();
        let What::WorkerEvidence { bundle, .. } = read.what else { panic!("another kind") };
        prop_assert_eq!(bundle, told);
    }

    #[test]
    fn no_part_brings_a_secret_through(at in 0..SECRETS.len(), many in 1_usize..40, before in "[ -~]{0,40}") {
        let (text, secret) = SECRETS[at];
        let parts = full(&format!("{before} {text} "), many);
        prop_assume!(!before.contains(secret));
        let bytes = serde_json::to_string(&bundle(&parts)).unwrap();
        prop_assert!(!bytes.contains(secret), "{}", bytes);
    }
}
