//! The frame stage: ticks into one frame per second, cut at once when a tick must not wait.
//!
//! Takes ticks in any order of groups; gives [`Cut`]s (a body packed under its schema). A group
//! whose series change starts a new schema, after what was open under the old one is cut. When the
//! spool is slow the loop above waits and the ticks' queue drops. Pure: time is an argument.

use std::sync::Arc;
use std::time::Duration;

use diarwatch_shared::clock::UnixMicros;
use diarwatch_shared::frame::{self, Body, FrameError, Group};
use diarwatch_shared::limits::{FRAME_BYTES_MAX, GROUPS_MAX, LABEL_BYTES_MAX, SERIES_MAX, TICKS_MAX};
use diarwatch_shared::reading::{Missing, Reading};
use diarwatch_shared::schema::{GroupDef, Schema, SchemaId, SeriesDef, SeriesKey, schema_id};

use crate::sample::Tick;

/// A frame is cut when its first tick is this old.
pub const FRAME_INTERVAL: Duration = Duration::from_secs(1);
/// Frames that are cut early come at most this often.
pub const EARLY_INTERVAL: Duration = Duration::from_millis(100);
/// Bytes that the columns of a frame may take in the worst case, so that it fits its envelope.
const COLUMN_BYTES_MAX: usize = FRAME_BYTES_MAX - 2 * 1024;
/// Bytes of one value in the worst case, with its part of the column's head and bitmap.
const VALUE_BYTES: usize = 11;
/// Bytes of a tick's time in the worst case.
const TIME_BYTES: usize = 10;

/// A group without a tick for so many cuts makes room when the schema changes anyway.
const IDLE_CUTS_MAX: u32 = 600;

/// A packed frame without its number.
#[derive(Clone, Debug, PartialEq)]
pub struct Cut {
    /// The time its times are relative to.
    pub base: UnixMicros,
    /// Its schema.
    pub schema: SchemaId,
    /// The schema's bytes, with the first frame that uses it.
    pub new_schema: Option<Arc<[u8]>>,
    /// Most ticks of any group.
    pub ticks: u16,
    /// Series over all groups.
    pub series: u16,
    /// The columns.
    pub payload: Vec<u8>,
}

struct Open {
    group: Arc<str>,
    keys: Arc<[SeriesKey]>,
    body: Group,
    /// Cuts in a row that found no tick of it.
    idle: u32,
}

/// Collects ticks.
#[derive(Default)]
pub struct Framer {
    groups: Vec<Open>,
    schema: Option<(SchemaId, Arc<Schema>)>,
    announced: Option<SchemaId>,
    /// Bytes of what is open, in the worst case.
    bytes: usize,
    rejected: u64,
}

impl Framer {
    /// Takes a tick; gives what had to be cut before it.
    ///
    /// # Errors
    /// When what was open cannot be packed; it is dropped.
    pub fn push(&mut self, tick: Tick) -> Result<Option<Cut>, FrameError> {
        let known = self.groups.iter().position(|open| open.group == tick.group);
        let same =
            known.and_then(|at| self.groups.get(at)).is_some_and(|open| same_keys(&open.keys, &tick.keys));
        let full =
            known.and_then(|at| self.groups.get(at)).is_some_and(|open| open.body.times.len() >= TICKS_MAX);
        let bytes = TIME_BYTES + VALUE_BYTES * tick.keys.len();
        let heavy = self.bytes + bytes > COLUMN_BYTES_MAX;
        let cut = if same && !full && !heavy { None } else { self.cut()? };
        if !same && !self.lay_out(known, &tick) {
            return Ok(cut);
        }
        let Some(open) = self.groups.iter_mut().find(|open| open.group == tick.group) else { return Ok(cut) };
        open.body.times.push(tick.at);
        let readings = tick.readings.into_iter().chain(std::iter::repeat(Err(Missing::Failed)));
        for (column, reading) in open.body.columns.iter_mut().zip(readings) {
            column.push(reading);
        }
        self.bytes += bytes;
        Ok(cut)
    }

    /// Packs what is open; `None` when nothing is.
    ///
    /// # Errors
    /// When it cannot be packed; it is dropped.
    pub fn cut(&mut self) -> Result<Option<Cut>, FrameError> {
        let Some(base) = self.groups.iter().flat_map(|open| &open.body.times).min().copied() else {
            return Ok(None);
        };
        let (id, schema) = self.schema();
        let body = Body { groups: self.groups.iter_mut().map(Open::take).collect() };
        self.bytes = 0;
        let payload = frame::encode(&schema, base, &body)?;
        let new_schema = (self.announced != Some(id)).then(|| schema.to_bytes().into());
        self.announced = Some(id);
        let count = |number: usize| u16::try_from(number).unwrap_or(u16::MAX);
        let (ticks, series) = (count(body.ticks()), count(schema.series_count()));
        Ok(Some(Cut { base, schema: id, new_schema, ticks, series, payload }))
    }

    /// A last tick of a group whose source is configured no more: every series says that there is
    /// nothing to read, so that nobody takes its last values for the present.
    #[must_use]
    pub fn last_tick(&self, group: &str, at: UnixMicros) -> Option<Tick> {
        let open = self.groups.iter().find(|open| &*open.group == group)?;
        let readings = vec![Err(Missing::NotSupported); open.keys.len()];
        Some(Tick { group: Arc::clone(&open.group), at, keys: Arc::clone(&open.keys), readings })
    }

    /// The frame that carried the schema was lost: the next one carries it again.
    pub fn announce_again(&mut self) {
        self.announced = None;
    }

    /// Ticks refused because they would pass the limit on series, on groups or on a name's length.
    #[must_use]
    pub fn rejected(&self) -> u64 {
        self.rejected
    }

    /// Gives the tick's group its columns; false when no aggregator would take such a schema.
    fn lay_out(&mut self, known: Option<usize>, tick: &Tick) -> bool {
        if known.is_none() && self.groups.iter().any(|open| open.idle > IDLE_CUTS_MAX) {
            self.groups.retain(|open| open.idle <= IDLE_CUTS_MAX || !open.body.times.is_empty());
            self.schema = None;
        }
        let others: usize = self
            .groups
            .iter()
            .enumerate()
            .filter(|(at, _)| Some(*at) != known)
            .map(|(_, open)| open.keys.len())
            .sum();
        let too_many =
            others + tick.keys.len() > SERIES_MAX || (known.is_none() && self.groups.len() >= GROUPS_MAX);
        if too_many || tick.keys.iter().any(is_too_long) {
            self.rejected += 1;
            return false;
        }
        let columns: Vec<Vec<Reading>> = vec![Vec::new(); tick.keys.len()];
        let body = Group { times: Vec::new(), columns };
        let open = Open { group: Arc::clone(&tick.group), keys: Arc::clone(&tick.keys), body, idle: 0 };
        match known.and_then(|at| self.groups.get_mut(at)) {
            Some(slot) => *slot = open,
            None => self.groups.push(open),
        }
        self.schema = None;
        true
    }

    fn schema(&mut self) -> (SchemaId, Arc<Schema>) {
        if let Some((id, schema)) = &self.schema {
            return (*id, Arc::clone(schema));
        }
        let group = |open: &Open| GroupDef {
            name: open.group.to_string(),
            series: open.keys.iter().cloned().map(SeriesDef::of).collect(),
        };
        let schema = Arc::new(Schema::new(self.groups.iter().map(group).collect()));
        let id = schema_id(&schema.to_bytes());
        self.schema = Some((id, Arc::clone(&schema)));
        (id, schema)
    }
}

impl Open {
    fn take(&mut self) -> Group {
        self.idle = if self.body.times.is_empty() { self.idle.saturating_add(1) } else { 0 };
        let empty = Group { times: Vec::new(), columns: vec![Vec::new(); self.keys.len()] };
        std::mem::replace(&mut self.body, empty)
    }
}

/// Whether an aggregator would refuse the whole schema for this series.
fn is_too_long(key: &SeriesKey) -> bool {
    let long = |text: &str| text.len() > LABEL_BYTES_MAX;
    long(&key.metric) || key.labels.iter().any(|(name, value)| long(name) || long(value))
}

fn same_keys(known: &Arc<[SeriesKey]>, new: &Arc<[SeriesKey]>) -> bool {
    Arc::ptr_eq(known, new) || known == new
}

/// When the next frame is due.
#[derive(Clone, Copy, Debug, Default)]
pub struct Due {
    last: Duration,
    early: bool,
}

impl Due {
    /// A frame was cut.
    pub fn cut(&mut self, now: Duration) {
        *self = Self { last: now, early: false };
    }

    /// Something came that must not wait for the second to end.
    pub fn hurry(&mut self) {
        self.early = true;
    }

    /// When to cut.
    #[must_use]
    pub fn at(&self) -> Duration {
        self.last + if self.early { EARLY_INTERVAL } else { FRAME_INTERVAL }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use diarwatch_shared::node::Epoch;
    use diarwatch_shared::wire::Codec;
    use diarwatch_shared::wire::v1::{self, FLAG_KEYFRAME, Header};
    use proptest::prelude::*;

    fn tick(group: &str, at: u64, keys: &[&str], value: f64) -> Tick {
        let keys: Vec<SeriesKey> = keys.iter().map(|key| SeriesKey::new(key, &[])).collect();
        let readings = keys.iter().map(|_| Ok(value)).collect();
        Tick { group: group.into(), at: UnixMicros(at), keys: keys.into(), readings }
    }

    #[test]
    fn a_group_that_is_no_more_makes_room_when_another_one_comes() {
        let mut framer = Framer::default();
        for round in 0..3 * GROUPS_MAX as u64 {
            framer.push(tick(&format!("g{round}"), round, &["a"], 1.0)).unwrap();
            for _ in 0..=IDLE_CUTS_MAX / 8 {
                framer.push(tick("steady", round, &["b"], 1.0)).unwrap();
                framer.cut().unwrap();
            }
        }
        assert_eq!(framer.rejected(), 0);
        assert!(framer.groups.len() <= 12, "{}", framer.groups.len());
    }

    #[test]
    fn a_schema_travels_once_and_a_new_series_makes_a_new_one() {
        let mut framer = Framer::default();
        assert_eq!(framer.push(tick("a", 1, &["x"], 1.0)), Ok(None));
        let first = framer.cut().unwrap().unwrap();
        assert!(first.new_schema.is_some());
        framer.push(tick("a", 2, &["x"], 1.0)).unwrap();
        assert!(framer.cut().unwrap().unwrap().new_schema.is_none());
        framer.push(tick("a", 3, &["x"], 3.0)).unwrap();
        let before = framer.push(tick("a", 4, &["x", "y"], 4.0)).unwrap().unwrap();
        assert_eq!((before.schema, before.ticks), (first.schema, 1));
        let after = framer.cut().unwrap().unwrap();
        assert_ne!(after.schema, first.schema);
        assert_eq!(after.series, 2);
    }

    #[test]
    fn nothing_is_cut_out_of_nothing() {
        assert_eq!(Framer::default().cut(), Ok(None));
    }

    #[test]
    fn what_must_not_wait_is_cut_within_a_tenth_of_a_second() {
        let mut due = Due::default();
        due.cut(Duration::from_secs(5));
        assert_eq!(due.at(), Duration::from_secs(6));
        due.hurry();
        assert_eq!(due.at(), Duration::from_millis(5_100));
    }

    #[test]
    fn series_beyond_the_limit_are_refused_and_counted() {
        let mut framer = Framer::default();
        let many: Vec<String> = (0..SERIES_MAX).map(|n| format!("m{n}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        framer.push(tick("a", 1, &many, 1.0)).unwrap();
        let cut = framer.push(tick("b", 1, &["x"], 1.0)).unwrap().unwrap();
        assert_eq!(framer.rejected(), 1);
        assert_eq!(usize::from(cut.series), SERIES_MAX);
        assert_eq!(framer.cut(), Ok(None));
    }

    #[test]
    fn a_schema_that_no_aggregator_would_take_is_never_made() {
        let mut framer = Framer::default();
        for group in 0..=GROUPS_MAX {
            framer.push(tick(&group.to_string(), 1, &["x"], 1.0)).unwrap();
        }
        let key = SeriesKey::new("x", &[("mountpoint", &"x".repeat(LABEL_BYTES_MAX + 1))]);
        let long = Tick { group: "0".into(), at: UnixMicros(2), keys: [key].into(), readings: vec![Ok(1.0)] };
        framer.push(long).unwrap();
        assert_eq!(framer.rejected(), 2);
        framer.push(tick("0", 3, &["x"], 1.0)).unwrap();
        framer.announce_again();
        let cut = framer.cut().unwrap().unwrap();
        assert_eq!(usize::from(cut.series), GROUPS_MAX);
        assert!(Schema::from_bytes(&cut.new_schema.unwrap()).is_ok());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn every_frame_fits_its_envelope(
            groups in prop::collection::vec((0_usize..8, prop::collection::vec(any::<f64>(), 1..9)), 1..40),
            width in 1_usize..480,
        ) {
            let mut framer = Framer::default();
            let names: Vec<String> = (0..width).map(|n| format!("m{n}")).collect();
            let keys: Arc<[SeriesKey]> = names.iter().map(|name| SeriesKey::new(name, &[])).collect();
            let header = |cut: &Cut| Header {
                seq: 0, base: cut.base, epoch: Epoch(1), schema: cut.schema, ticks: cut.ticks,
                series: cut.series, flags: FLAG_KEYFRAME, codec: Codec::Columns,
            };
            let fits = |cut: Option<Cut>| cut.is_none_or(|cut| v1::seal(&header(&cut), cut.payload).is_ok());
            for (at, (group, values)) in groups.iter().enumerate() {
                let readings = values.iter().cycle().take(width).map(|value| Ok(*value)).collect();
                let at = UnixMicros(if at % 2 == 0 { 0 } else { u64::MAX / 2 });
                let tick = Tick { group: group.to_string().into(), at, keys: Arc::clone(&keys), readings };
                prop_assert!(fits(framer.push(tick).unwrap()));
            }
            prop_assert!(fits(framer.cut().unwrap()));
            prop_assert_eq!(framer.rejected(), 0);
        }

        #[test]
        fn every_tick_is_in_exactly_one_frame(groups in prop::collection::vec((0_u8..3, 1_usize..4, any::<bool>()), 1..40)) {
            let mut framer = Framer::default();
            let mut schemas = std::collections::BTreeMap::new();
            let mut seen = Vec::new();
            let mut take = |cut: Option<Cut>| {
                let Some(cut) = cut else { return };
                if let Some(bytes) = &cut.new_schema {
                    schemas.insert(cut.schema, Schema::from_bytes(bytes).unwrap());
                }
                let body = frame::decode(&schemas[&cut.schema], cut.base, &cut.payload).unwrap();
                seen.extend(body.groups.iter().flat_map(|group| &group.times).map(|time| time.0));
            };
            for (at, (group, width, cut)) in groups.iter().enumerate() {
                let keys = ["x", "y", "z"];
                let tick = tick(&group.to_string(), at as u64, &keys[..*width], 0.0);
                take(framer.push(tick).unwrap());
                if *cut { take(framer.cut().unwrap()); }
            }
            take(framer.cut().unwrap());
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..groups.len() as u64).collect::<Vec<_>>());
        }
    }
}
