//! What the columns of a frame mean. Named by the hash of its bytes, sent once per connection,
//! stored by content, so that any old frame decodes for ever.
//!
//! Takes the series of an agent in groups (series of a group are read at the same instants);
//! gives canonical bytes and their id. A new metric makes a new schema, never a changed struct.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::catalogue::{self, Quantum};
use crate::limits::{GROUPS_MAX, LABEL_BYTES_MAX, LABELS_MAX, SCHEMA_BYTES_MAX, SERIES_MAX};

/// The version of the schema's own form.
pub const SCHEMA_VERSION: u16 = 1;

/// Labels of a series, in order of their names.
pub type Labels = BTreeMap<String, String>;

/// The first eight bytes of the SHA-256 of a schema's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SchemaId(pub u64);

impl fmt::Display for SchemaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A metric with its labels.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SeriesKey {
    /// The name, from the catalogue.
    pub metric: String,
    /// The labels; `node` is added by the aggregator from the certificate.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
}

impl SeriesKey {
    /// A series of `metric` with `labels`.
    #[must_use]
    pub fn new(metric: &str, labels: &[(&str, &str)]) -> Self {
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Self { metric: metric.to_owned(), labels }
    }
}

impl fmt::Display for SeriesKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.metric)?;
        let labels: Vec<String> =
            self.labels.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
        if labels.is_empty() { Ok(()) } else { write!(f, "{{{}}}", labels.join(",")) }
    }
}

/// A series and the step its values are kept in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SeriesDef {
    /// Name and labels.
    #[serde(flatten)]
    pub key: SeriesKey,
    /// Numerator and denominator of the quantum; a zero numerator means bit-exact.
    pub quantum: (u32, u32),
}

impl SeriesDef {
    /// The series with the catalogue's quantum.
    #[must_use]
    pub fn of(key: SeriesKey) -> Self {
        let Quantum { numerator, denominator } = catalogue::quantum(&key.metric);
        Self { key, quantum: (numerator, denominator) }
    }
}

/// Series that are read at the same instants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupDef {
    /// The source, for people: `gpu_fast`, `host`, ...
    pub name: String,
    /// The series, in the order of the frame's columns.
    pub series: Vec<SeriesDef>,
}

/// The layout of a frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schema {
    /// [`SCHEMA_VERSION`].
    pub version: u16,
    /// The groups, in the order of the frame.
    pub groups: Vec<GroupDef>,
}

/// Why bytes are not a schema.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// More bytes than a schema may have.
    #[error("schema of {0} bytes is larger than the limit of {SCHEMA_BYTES_MAX} bytes")]
    TooLarge(usize),
    /// Not the form of this version.
    #[error("schema is not readable: {0}")]
    Form(String),
    /// Written by a later version of diarwatch.
    #[error("schema has version {0}, this program reads up to {SCHEMA_VERSION}; upgrade it")]
    Newer(u16),
    /// A count or a length passes its limit.
    #[error("schema passes a limit: {0}")]
    Limit(&'static str),
}

impl Schema {
    /// A schema of these groups.
    #[must_use]
    pub fn new(groups: Vec<GroupDef>) -> Self {
        Self { version: SCHEMA_VERSION, groups }
    }

    /// The canonical bytes: JSON with the fields in order of declaration and labels in order of name.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads and checks the bytes of a schema.
    ///
    /// # Errors
    /// When they are too many, of another form or version, or pass a limit.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SchemaError> {
        if bytes.len() > SCHEMA_BYTES_MAX {
            return Err(SchemaError::TooLarge(bytes.len()));
        }
        #[derive(Deserialize)]
        struct Version {
            version: u16,
        }
        let Version { version } =
            serde_json::from_slice(bytes).map_err(|error| SchemaError::Form(error.to_string()))?;
        if version > SCHEMA_VERSION {
            return Err(SchemaError::Newer(version));
        }
        let schema: Self =
            serde_json::from_slice(bytes).map_err(|error| SchemaError::Form(error.to_string()))?;
        schema.check()?;
        Ok(schema)
    }

    /// The number of series over all groups.
    #[must_use]
    pub fn series_count(&self) -> usize {
        self.groups.iter().map(|group| group.series.len()).sum()
    }

    fn check(&self) -> Result<(), SchemaError> {
        if self.groups.len() > GROUPS_MAX {
            return Err(SchemaError::Limit("groups"));
        }
        if self.series_count() > SERIES_MAX {
            return Err(SchemaError::Limit("series"));
        }
        let long = |text: &str| text.len() > LABEL_BYTES_MAX;
        for def in self.groups.iter().flat_map(|group| &group.series) {
            if def.quantum.1 == 0 {
                return Err(SchemaError::Limit("quantum with a zero denominator"));
            }
            if def.key.labels.len() > LABELS_MAX {
                return Err(SchemaError::Limit("labels of a series"));
            }
            if long(&def.key.metric) || def.key.labels.iter().any(|(name, value)| long(name) || long(value)) {
                return Err(SchemaError::Limit("length of a name or label"));
            }
        }
        Ok(())
    }
}

/// The id of a schema's bytes.
#[must_use]
pub fn schema_id(bytes: &[u8]) -> SchemaId {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    let head = digest.as_ref().first_chunk::<8>().copied().unwrap_or_default();
    SchemaId(u64::from_be_bytes(head))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Schema {
        let key = SeriesKey::new("gpu_power_watts", &[("gpu", "0"), ("uuid", "GPU-1")]);
        Schema::new(vec![GroupDef { name: "gpu_fast".into(), series: vec![SeriesDef::of(key)] }])
    }

    #[test]
    fn golden_bytes_of_version_1_stay() {
        let golden = br#"{"version":1,"groups":[{"name":"gpu_fast","series":[{"metric":"gpu_power_watts","labels":{"gpu":"0","uuid":"GPU-1"},"quantum":[1,1000]}]}]}"#;
        assert_eq!(sample().to_bytes(), golden);
        assert_eq!(Schema::from_bytes(golden).unwrap(), sample());
        assert_eq!(schema_id(golden).to_string(), "5127ac7c8e6460f2");
    }

    #[test]
    fn a_newer_version_is_refused_with_what_to_do() {
        let error = Schema::from_bytes(br#"{"version":9,"rows":[]}"#).unwrap_err();
        assert!(error.to_string().contains("upgrade"), "{error}");
    }

    #[test]
    fn too_many_labels_are_refused() {
        let mut schema = sample();
        let labels = (0..LABELS_MAX + 1).map(|n| (format!("l{n}"), String::new())).collect();
        schema.groups[0].series[0].key.labels = labels;
        assert!(matches!(Schema::from_bytes(&schema.to_bytes()), Err(SchemaError::Limit(_))));
    }
}
