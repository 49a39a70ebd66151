//! The agent's configuration as rows: every key with its value and where that comes from. Pure.
//! Environment variables of workers may be secrets: only their names are shown.

use std::path::Path;

use diarwatch_shared::config::ConfigError;
use diarwatch_shared::settings;
pub use diarwatch_shared::settings::{Origin, REDACTED, Setting};

/// Every key of a configuration's text.
///
/// # Errors
/// As [`super::parse`].
pub fn effective(path: &Path, text: &str) -> Result<Vec<Setting>, Vec<ConfigError>> {
    let config = super::parse(path, text)?;
    Ok(settings::of(serde_json::to_value(&config).unwrap_or_default(), text))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"[identity]
ca = "ca.pem"
certificate = "n.pem"
key = "n.key"
[aggregator]
endpoints = ["127.0.0.1:9440"]
[[worker]]
name = "w"
driver = "child"
command = ["/bin/sh"]
environment = { TOKEN = "s3cret" }
readiness = { url = "http://user:pass@127.0.0.1:1/ready" }
"#;

    #[test]
    fn every_key_says_where_its_value_comes_from_and_no_secret() {
        let settings = effective(Path::new("agent.toml"), TEXT).unwrap();
        let of = |key: &str| settings.iter().find(|setting| setting.key == key).unwrap();
        let said = |key: &str| (of(key).value.clone(), of(key).origin, of(key).line);
        assert_eq!(said("gpu.fast_interval"), ("100ms".into(), Origin::Default, None));
        assert_eq!(said("worker[0].name"), ("w".into(), Origin::File, Some(8)));
        assert_eq!(said("worker[0].environment.TOKEN"), (REDACTED.into(), Origin::File, Some(11)));
        assert_eq!(said("worker[0].readiness.failures").1, Origin::Default);
        let text = serde_json::to_string(&settings).unwrap();
        assert!(!text.contains("s3cret") && !text.contains(":pass@"), "{text}");
    }
}
