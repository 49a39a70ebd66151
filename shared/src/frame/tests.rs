//! The frame codec gives back what it took, and nothing for what is damaged.

use proptest::prelude::*;

use super::*;
use crate::reading::Missing;
use crate::schema::{GroupDef, SeriesDef, SeriesKey};

fn schema(quanta: &[(u32, u32)]) -> Schema {
    let series = quanta
        .iter()
        .enumerate()
        .map(|(n, quantum)| SeriesDef { key: SeriesKey::new(&format!("m{n}"), &[]), quantum: *quantum })
        .collect();
    Schema::new(vec![GroupDef { name: "g".into(), series }])
}

fn reading() -> impl Strategy<Value = Reading> {
    prop_oneof![
        8 => any::<u64>().prop_map(|bits| Ok(f64::from_bits(bits))),
        8 => (0_i64..1_000_000).prop_map(|n| Ok(n as f64)),
        1 => (1_u8..8).prop_map(|code| Err(Missing::from_wire(code))),
    ]
}

/// Missing ticks of one column share the first one's reason.
fn with_one_reason(column: &[Reading]) -> Vec<Reading> {
    let reason = column.iter().find_map(|reading| reading.err());
    column.iter().map(|reading| reading.map_err(|own| reason.unwrap_or(own))).collect()
}

proptest! {
    #[test]
    fn exact_series_come_back_bit_by_bit(
        columns in prop::collection::vec(prop::collection::vec(reading(), 7), 1..5),
        base in 0_u64..2_000_000_000_000_000,
        steps in prop::collection::vec(-5_000_i64..200_000, 7),
    ) {
        let times = steps.iter().scan(base.cast_signed(), |at, step| { *at += step; Some(UnixMicros(at.cast_unsigned())) }).collect();
        let schema = schema(&vec![(0, 1); columns.len()]);
        let body = Body { groups: vec![Group { times, columns }] };
        let payload = encode(&schema, UnixMicros(base), &body).unwrap();
        let back = decode(&schema, UnixMicros(base), &payload).unwrap();
        prop_assert_eq!(&back.groups[0].times, &body.groups[0].times);
        for (want, got) in body.groups[0].columns.iter().zip(&back.groups[0].columns) {
            let bits = |column: &[Reading]| column.iter().map(|r| r.map(f64::to_bits)).collect::<Vec<_>>();
            prop_assert_eq!(bits(&with_one_reason(want)), bits(got));
        }
    }

    #[test]
    fn quantised_series_come_back_within_half_a_step(values in prop::collection::vec(-1e9_f64..1e9, 1..20)) {
        let schema = schema(&[(1, 10)]);
        let times = (0..values.len() as u64).map(UnixMicros).collect();
        let columns = vec![values.iter().map(|value| Ok(*value)).collect()];
        let payload = encode(&schema, UnixMicros(0), &Body { groups: vec![Group { times, columns }] }).unwrap();
        let back = decode(&schema, UnixMicros(0), &payload).unwrap();
        for (value, got) in values.iter().zip(&back.groups[0].columns[0]) {
            prop_assert!((value - got.unwrap()).abs() <= 0.05 + 1e-6);
        }
    }

    #[test]
    fn foreign_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let schema = schema(&[(0, 1), (1, 100), (0, 1)]);
        let _ = decode(&schema, UnixMicros(0), &bytes);
    }

    #[test]
    fn a_truncated_payload_is_refused(cut in 1_usize..12) {
        let schema = schema(&[(1, 1)]);
        let columns = vec![(0..10).map(|n| Ok(f64::from(n * n))).collect()];
        let times = (0..10).map(|n| UnixMicros(n * 100_000)).collect();
        let payload = encode(&schema, UnixMicros(0), &Body { groups: vec![Group { times, columns }] }).unwrap();
        prop_assert!(decode(&schema, UnixMicros(0), &payload[..payload.len() - cut]).is_err());
    }
}

#[test]
fn golden_bytes_of_codec_1_stay() {
    let schema = schema(&[(1, 100), (0, 1), (1, 1)]);
    let columns = vec![
        vec![Ok(0.92), Ok(0.93), Err(Missing::Timeout)],
        vec![Ok(1.5), Ok(f64::NAN), Ok(-0.0)],
        vec![Err(Missing::NoDriver); 3],
    ];
    let times = vec![UnixMicros(1_000_000), UnixMicros(1_100_000), UnixMicros(1_200_000)];
    let payload =
        encode(&schema, UnixMicros(1_000_000), &Body { groups: vec![Group { times, columns }] }).unwrap();
    let hex: String = payload.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(
        hex,
        "0300c09a0cc09a0c\
         820304b80102\
         03000000000000f83f000000000000f87f0000000000000080\
         0003"
    );
    let back = decode(&schema, UnixMicros(1_000_000), &payload).unwrap();
    assert_eq!(back.groups[0].columns[0], [Ok(0.92), Ok(0.93), Err(Missing::Timeout)]);
}

#[test]
fn a_payload_that_claims_too_much_is_refused_before_memory_is_taken() {
    let schema = schema(&[(0, 1)]);
    let mut payload = Vec::new();
    put_u64(&mut payload, u64::MAX);
    assert_eq!(decode(&schema, UnixMicros(0), &payload), Err(FrameError::Limit("ticks")));
}
