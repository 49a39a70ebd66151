//! `/etc/diarwatch/aggregator.toml` to a checked [`Config`]; a fault of form with line and column, one
//! of value with its key.
//!
//! Refused at start (exit 78): a configuration, certificate, key, rules file or webhook file that is
//! missing or wrong. Not refused, but a state on the page: a node that does not send, a Slack that
//! does not answer.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use diarwatch_shared::clock::Zone;
use diarwatch_shared::config::{self, ConfigError};
use diarwatch_shared::node::NodeId;
use diarwatch_shared::quantity::{Bytes, Span};
use diarwatch_shared::texts::Lang;
use serde::{Deserialize, Serialize};

/// Where the configuration is looked for when no path is given.
pub const DEFAULT_PATH: &str = "/etc/diarwatch/aggregator.toml";

/// Services that may be named for the page.
pub const SERVICES_MAX: usize = 256;
/// Bytes of a service's name.
pub const SERVICE_BYTES_MAX: usize = 128;

/// The aggregator's configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Who the aggregator is.
    pub identity: IdentityConfig,
    /// Where agents connect.
    #[serde(default)]
    pub intake: IntakeConfig,
    /// Where people and programs ask.
    #[serde(default)]
    pub http: HttpConfig,
    /// What is kept.
    #[serde(default)]
    pub store: StoreConfig,
    /// What is an alert.
    #[serde(default)]
    pub rules: RulesConfig,
    /// Which nodes there are.
    #[serde(default)]
    pub nodes: NodesConfig,
    /// How times and texts are shown.
    #[serde(default)]
    pub display: DisplayConfig,
    /// What the page shows beside what it finds.
    #[serde(default)]
    pub page: PageConfig,
    /// Where alerts go; without it they stand on the page only, and the log says so at start.
    pub slack: Option<SlackConfig>,
}

/// Three PEM files. A missing or unfit one is refused at start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdentityConfig {
    /// The CA that signed the nodes' certificates.
    pub ca: PathBuf,
    /// The aggregator's certificate.
    pub certificate: PathBuf,
    /// Its key; readable by the aggregator only.
    pub key: PathBuf,
}

/// Where agents connect.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct IntakeConfig {
    /// UDP address.
    pub listen: SocketAddr,
}

impl Default for IntakeConfig {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([0, 0, 0, 0], 9440)) }
    }
}

/// Where people and programs ask. Who reads needs no token: anything but a loopback address is refused.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HttpConfig {
    /// TCP address, loopback only.
    pub listen: SocketAddr,
    /// Names in the Host header that are served beside this machine's own, for a proxy in front.
    pub allowed_hosts: Vec<String>,
    /// Operators with the hashes of their tokens, for orders to workers; without it there are no orders.
    /// A missing or unfit one is refused at start; it is read anew at each order.
    pub operator_token_file: Option<PathBuf>,
}

impl Default for HttpConfig {
    fn default() -> Self {
        let listen = SocketAddr::from(([127, 0, 0, 1], 9441));
        Self { listen, allowed_hosts: Vec::new(), operator_token_file: None }
    }
}

/// What is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StoreConfig {
    /// Directory; made when it is not there.
    pub directory: PathBuf,
    /// How far back samples are kept in memory, for rules and the page; at most 1h.
    pub head_window: Span,
    /// How long frames are kept on disk.
    pub retention: Span,
    /// Most bytes of frames on disk; the oldest segment goes when there are more.
    pub bytes_max: Bytes,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            directory: PathBuf::from("/var/lib/diarwatch-aggregator"),
            head_window: Span::secs(900),
            retention: Span::secs(86_400),
            bytes_max: Bytes(8 << 30),
        }
    }
}

/// What is an alert.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RulesConfig {
    /// Prometheus rule files, beside the built-in rules. A missing one is refused at start.
    pub files: Vec<PathBuf>,
    /// Rules are evaluated when frames arrive, and at least this often.
    pub interval: Span,
    /// A series counts while its newest sample is younger than this.
    pub lookback: Span,
}

impl Default for RulesConfig {
    fn default() -> Self {
        Self { files: Vec::new(), interval: Span::secs(1), lookback: Span::secs(300) }
    }
}

/// Which nodes there are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NodesConfig {
    /// Nodes that are shown as "never seen" until they send.
    pub expected: Vec<NodeId>,
    /// A node without frames for this long is down; frames come each second.
    pub timeout: Span,
}

impl Default for NodesConfig {
    fn default() -> Self {
        Self { expected: Vec::new(), timeout: Span::secs(5) }
    }
}

/// How times and texts are shown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DisplayConfig {
    /// IANA time zone.
    pub zone: String,
    /// Language of alerts, and of the page where the browser asks for none of ours.
    pub lang: Lang,
}

impl Default for DisplayConfig {
    fn default() -> Self {
        Self { zone: String::from("Asia/Tokyo"), lang: Lang::Ja }
    }
}

/// What the page shows beside what it finds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PageConfig {
    /// Services in the order of their tiles: those of workers, nodes and probes by their name, and those
    /// of which nothing is known yet. What is known and not named here comes behind them.
    pub services: Vec<String>,
}

/// Slack by incoming webhook.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SlackConfig {
    /// A file that holds the webhook's address: it is a secret. A missing one is refused at start.
    pub webhook_url_file: PathBuf,
}

/// Reads and checks the configuration.
///
/// # Errors
/// The first fault of the file, or every value that is not acceptable.
pub fn load(path: &Path) -> Result<Config, Vec<ConfigError>> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| vec![ConfigError::unreadable(path, &error, DEFAULT_PATH)])?;
    parse(path, &text)
}

/// Checks a configuration's text.
///
/// # Errors
/// As [`load`].
pub fn parse(path: &Path, text: &str) -> Result<Config, Vec<ConfigError>> {
    let config: Config = config::parse(path, text).map_err(|error| vec![error])?;
    let mut faults = Vec::new();
    let mut check = |good: bool, problem: &str, hint: &str| {
        if !good {
            faults.push(ConfigError::whole(path, problem, Some(hint.to_owned())));
        }
    };
    let loopback = config.http.listen.ip().is_loopback();
    check(
        loopback,
        "[http] listen is not a loopback address",
        "write \"127.0.0.1:9441\" and reach it through ssh or a TLS proxy",
    );
    let window = config.store.head_window;
    check(
        window >= Span::secs(60) && window <= Span::secs(3_600),
        "[store] head_window is not between 1m and 1h",
        "write for example \"15m\"",
    );
    check(
        config.store.retention >= window,
        "[store] retention is shorter than head_window",
        "write for example \"1d\"",
    );
    check(
        config.store.bytes_max.0 >= 64 << 20,
        "[store] bytes_max is below 64MiB",
        "write at least \"64MiB\"",
    );
    check(
        config.rules.interval >= Span::millis(100),
        "[rules] interval is below 100ms",
        "write for example \"1s\"",
    );
    check(
        config.rules.lookback >= Span::secs(5) && config.rules.lookback <= window,
        "[rules] lookback is not between 5s and head_window",
        "write for example \"5m\"",
    );
    check(
        config.nodes.timeout >= Span::secs(3),
        "[nodes] timeout is below 3s, three frames",
        "write for example \"5s\"",
    );
    let services = &config.page.services;
    check(
        services.len() <= SERVICES_MAX
            && services.iter().all(|name| (1..=SERVICE_BYTES_MAX).contains(&name.len())),
        &format!(
            "[page] services has more than {SERVICES_MAX} names, or one that is empty or longer than {SERVICE_BYTES_MAX} bytes"
        ),
        "write for example [\"API Gateway\", \"PostgreSQL\"]",
    );
    if let Err(problem) = Zone::named(&config.display.zone) {
        faults.push(ConfigError::whole(path, format!("[display] zone: {problem}"), None));
    }
    if faults.is_empty() { Ok(config) } else { Err(faults) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: &str = "[identity]\nca = \"ca.pem\"\ncertificate = \"a.pem\"\nkey = \"a.key\"\n";

    fn faults(more: &str) -> String {
        let faults = parse(Path::new("aggregator.toml"), &format!("{LEAST}{more}")).unwrap_err();
        faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn the_least_configuration_has_defaults_for_the_rest() {
        let config = parse(Path::new("aggregator.toml"), LEAST).unwrap();
        assert_eq!(config.display.zone, "Asia/Tokyo");
        assert!(config.slack.is_none());
    }

    #[test]
    fn the_shipped_example_says_the_defaults() {
        let example =
            parse(Path::new("docs/aggregator.toml"), include_str!("../../docs/aggregator.toml")).unwrap();
        let least = parse(Path::new("aggregator.toml"), LEAST).unwrap();
        let rest = |config: &Config| {
            let Config { intake, http, store, rules, nodes, display, page, slack, .. } = config;
            format!("{intake:?}{http:?}{store:?}{rules:?}{nodes:?}{display:?}{page:?}{slack:?}")
        };
        assert_eq!(rest(&example), rest(&least));
    }

    #[test]
    fn an_open_http_port_is_refused_while_there_are_no_tokens() {
        assert!(faults("[http]\nlisten = \"0.0.0.0:9441\"\n").contains("loopback"));
    }

    #[test]
    fn an_unknown_key_names_its_place_and_the_nearest_known_one() {
        let text = faults("[nodes]\nexpectd = []\n");
        assert!(
            text.starts_with("aggregator.toml:6:1: ") && text.contains("did you mean `expected`?"),
            "{text}"
        );
    }

    #[test]
    fn a_service_without_a_name_is_refused() {
        assert!(faults("[page]\nservices = [\"API Gateway\", \"\"]\n").contains("[page] services"));
    }

    #[test]
    fn an_unknown_zone_is_refused() {
        assert!(faults("[display]\nzone = \"Asia/Tokio\"\n").contains("Asia/Tokio"));
    }
}
