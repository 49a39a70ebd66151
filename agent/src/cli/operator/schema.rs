//! `diarwatch schema`: the JSON Schema (draft 2020-12) of each kind of document, as it is shipped in
//! `shared/schemas/`. A schema only grows within a version of the product.

use clap::Args;
use diarwatch_shared::config::nearest;
use diarwatch_shared::exit::Exit;

use super::output::put;
use crate::cli::ask::Trouble;

/// Flags of `schema`.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// `kind` of a document; all kinds are listed without it.
    kind: Option<String>,
}

macro_rules! schemas {
    ($($kind:literal),* $(,)?) => {
        /// Every kind with its schema.
        pub(super) const SCHEMAS: &[(&str, &str)] =
            &[$(($kind, include_str!(concat!("../../../../shared/schemas/", $kind, ".json"))),)*];
    };
}

schemas![
    "alert",
    "alerts",
    "config",
    "config_check",
    "doctor",
    "doctor_check",
    "error",
    "event",
    "events",
    "fleet_status",
    "gpu",
    "gpus",
    "node",
    "nodes",
    "order",
    "queue",
    "queues",
    "sample",
    "setting",
    "status",
    "why",
    "worker",
    "workers",
];

/// The schema of a kind.
pub(super) fn of(kind: &str) -> Option<&'static str> {
    SCHEMAS.iter().find(|(known, _)| *known == kind).map(|(_, schema)| *schema)
}

/// Runs the command.
pub(super) fn run(options: &Options) -> Exit {
    let Some(kind) = &options.kind else {
        put(&SCHEMAS.iter().map(|(kind, _)| format!("{kind}\n")).collect::<String>());
        return Exit::Ok;
    };
    if let Some(schema) = of(kind) {
        put(schema);
        return Exit::Ok;
    }
    let near = nearest(kind, SCHEMAS.iter().map(|(kind, _)| *kind));
    let hint = near.map_or_else(|| "diarwatch schema".to_owned(), |near| format!("diarwatch schema {near}"));
    Trouble::new(Exit::Unknown, format!("no document is of the kind `{kind}`"), hint).tell()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn every_schema_is_of_its_kind_and_sound() {
        for (kind, text) in SCHEMAS {
            let schema: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{kind}: {error}"));
            assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema", "{kind}");
            assert_eq!(schema["properties"]["kind"]["const"], *kind);
            assert!(jsonschema::meta::is_valid(&schema), "{kind}");
            assert!(text.ends_with("}\n"), "{kind}");
        }
    }

    #[test]
    fn a_list_describes_its_rows_as_the_row_itself() {
        let parse = |kind: &str| serde_json::from_str::<Value>(of(kind).unwrap()).unwrap();
        for (list, row) in [
            ("gpus", "gpu"),
            ("workers", "worker"),
            ("queues", "queue"),
            ("events", "event"),
            ("nodes", "node"),
            ("alerts", "alert"),
        ] {
            let (rows, row) = (parse(list)["properties"][list]["items"].clone(), parse(row));
            for (key, value) in rows["properties"].as_object().unwrap() {
                assert_eq!(row["properties"][key], *value, "{list}: {key}");
            }
            let own = ["schema", "kind", "reasons"];
            let keys =
                row["properties"].as_object().unwrap().keys().filter(|key| !own.contains(&key.as_str()));
            assert_eq!(keys.count(), rows["properties"].as_object().unwrap().len(), "{list}");
        }
    }
}
