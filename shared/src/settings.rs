//! The configuration that is in effect: every key with its value and where that comes from.
//!
//! Takes a configuration as JSON and its text; gives rows for `config show`. Pure. What may be a secret
//! is not among the values: passwords in addresses are left out here, other secrets by whoever turns
//! the configuration into JSON.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config;

/// What stands for a value that may be a secret.
pub const REDACTED: &str = "(redacted)";

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// The configuration sets it.
    File,
    /// The configuration does not say.
    Default,
}

/// One key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Setting {
    /// Its dotted path: `gpu.fast_interval`, `worker[0].name`.
    pub key: String,
    /// Its value; `null` when it is not set and has no default.
    pub value: Value,
    /// Where that comes from.
    pub origin: Origin,
    /// The line that sets it.
    pub line: Option<usize>,
}

/// Every key of `config`, of which `text` sets some.
#[must_use]
pub fn of(config: Value, text: &str) -> Vec<Setting> {
    let mut settings = Vec::new();
    flatten("", config, &config::places(text), &mut settings);
    settings
}

fn flatten(key: &str, value: Value, places: &BTreeMap<String, usize>, settings: &mut Vec<Setting>) {
    match value {
        Value::Object(table) if !table.is_empty() => {
            for (name, inner) in table {
                let path = if key.is_empty() { name } else { format!("{key}.{name}") };
                flatten(&path, inner, places, settings);
            }
        }
        Value::Array(items) if items.iter().any(Value::is_object) => {
            for (at, item) in items.into_iter().enumerate() {
                flatten(&format!("{key}[{at}]"), item, places, settings);
            }
        }
        value => {
            let line = places.get(key).copied();
            let origin = if line.is_some() { Origin::File } else { Origin::Default };
            settings.push(Setting { key: key.to_owned(), value: without_password(value), origin, line });
        }
    }
}

/// `scheme://user:password@host?key=value` without the password, in a text or in each text of a list.
fn without_password(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(mask(&text)),
        Value::Array(items) => Value::Array(items.into_iter().map(without_password).collect()),
        other => other,
    }
}

/// An address without its password and without the values of its query, which are often keys.
#[must_use]
pub fn mask(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let (authority, path) = rest.find(['/', '?']).map_or((rest, ""), |at| rest.split_at(at));
    let authority =
        match authority.rsplit_once('@').and_then(|(user, host)| Some((user.split_once(':')?.0, host))) {
            Some((name, host)) => format!("{name}:{REDACTED}@{host}"),
            None => authority.to_owned(),
        };
    let path = match path.split_once('?') {
        Some((path, query)) => {
            let hidden = |pair: &str| match pair.split_once('=') {
                Some((key, _)) => format!("{key}={REDACTED}"),
                None => pair.to_owned(),
            };
            format!("{path}?{}", query.split('&').map(hidden).collect::<Vec<_>>().join("&"))
        }
        None => path.to_owned(),
    };
    format!("{scheme}://{authority}{path}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_in_an_address_is_left_out_and_the_rest_stays() {
        assert_eq!(mask("redis://u:p@h:6379/0"), format!("redis://u:{REDACTED}@h:6379/0"));
        assert_eq!(mask("http://h/q?token=t&x"), format!("http://h/q?token={REDACTED}&x"));
        for plain in ["http://h/a@b:c", "redis://u@h/", "h:1", "日本"] {
            assert_eq!(mask(plain), plain);
        }
    }
}
