//! `/etc/diarwatch/agent.toml` to a checked [`Config`]; a fault of form with line and column, one of
//! value with its key.
//!
//! Refused at start (exit 78): a configuration that cannot be read, a value that cannot work, a worker
//! whose program is not there, and a certificate, key or CA that is missing, does not fit or has
//! expired. Refused for now (exit 75): a spool or socket that cannot be opened. Not refused, but a
//! state that `diarwatch status` shows and that mends itself: no NVIDIA driver, an aggregator that
//! does not answer, a worker that ends.

pub mod effective;
pub mod figure;
pub mod queue;
pub mod service;
pub mod worker;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use diarwatch_shared::config::{self, ConfigError};
use diarwatch_shared::event::XidAction;
use diarwatch_shared::quantity::{Bytes, Span};
use serde::{Deserialize, Serialize};

use figure::{FIGURES_MAX, FigureConfig};
use queue::QueueConfig;
use service::{SERVICES_MAX, ServiceConfig};
use worker::{Fault, WorkerConfig};

use crate::sample::gpu::xid;

/// Where the configuration is looked for when no path is given.
pub const DEFAULT_PATH: &str = "/etc/diarwatch/agent.toml";

/// Workers of one host: each has a group of series, of which a frame takes `GROUPS_MAX`.
pub const WORKERS_MAX: usize = 48;

/// Queues of one host: each has a group of series, too.
pub const QUEUES_MAX: usize = 4;

/// The agent's configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Who this node is.
    pub identity: IdentityConfig,
    /// Where frames go.
    pub aggregator: AggregatorConfig,
    /// Where frames are kept until they are acknowledged.
    #[serde(default)]
    pub spool: SpoolConfig,
    /// Where `diarwatch` asks.
    #[serde(default)]
    pub socket: SocketConfig,
    /// GPUs.
    #[serde(default)]
    pub gpu: GpuConfig,
    /// The host itself.
    #[serde(default)]
    pub host: HostConfig,
    /// Workers that are kept alive.
    #[serde(default, rename = "worker")]
    pub workers: Vec<WorkerConfig>,
    /// Services that are asked.
    #[serde(default, rename = "service")]
    pub services: Vec<ServiceConfig>,
    /// Queues that are watched.
    #[serde(default, rename = "queue")]
    pub queues: Vec<QueueConfig>,
    /// Figures of the application that are read.
    #[serde(default, rename = "figure")]
    pub figures: Vec<FigureConfig>,
}

/// Three PEM files. A missing or unfit one is refused at start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdentityConfig {
    /// The CA that signed the aggregator's certificate.
    pub ca: PathBuf,
    /// This node's certificate; the node's name stands in it.
    pub certificate: PathBuf,
    /// Its key; readable by the agent only.
    pub key: PathBuf,
}

/// Where frames go. An aggregator that does not answer is a state, not a fault: frames wait in the spool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AggregatorConfig {
    /// `host:port`, in order of preference.
    pub endpoints: Vec<String>,
}

/// The spool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SpoolConfig {
    /// Directory; made when it is not there.
    pub directory: PathBuf,
    /// Most bytes on disk; the oldest generation is given up and counted when there are more.
    pub bytes_max: Bytes,
    /// A generation is closed at this size.
    pub generation_bytes: Bytes,
    /// A generation is closed at this age.
    pub generation_age: Span,
}

impl Default for SpoolConfig {
    fn default() -> Self {
        Self {
            directory: PathBuf::from("/var/lib/diarwatch-agent/spool"),
            bytes_max: Bytes(1 << 30),
            generation_bytes: Bytes(16 << 20),
            generation_age: Span::secs(3_600),
        }
    }
}

/// The socket of `diarwatch`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SocketConfig {
    /// Path; its group may ask, others may not.
    pub path: PathBuf,
    /// Users, by name or number, who may also give orders: restart, drain, hold. Default: root and the
    /// agent's own user.
    pub operators: Vec<String>,
}

impl Default for SocketConfig {
    fn default() -> Self {
        Self { path: PathBuf::from(DEFAULT_SOCKET), operators: Vec::new() }
    }
}

/// Where the agent listens for `diarwatch`.
pub const DEFAULT_SOCKET: &str = "/run/diarwatch/agent.sock";

/// GPUs. A missing driver is a state, not a fault.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GpuConfig {
    /// Whether GPUs are sampled at all.
    pub enabled: bool,
    /// The NVML library, when it is not where the loader looks for `libnvidia-ml.so.1`.
    pub library: Option<PathBuf>,
    /// Utilisation, memory and power; at least 10 ms.
    pub fast_interval: Span,
    /// Temperature; at least 100 ms.
    pub slow_interval: Span,
    /// How often a missing driver is looked for.
    pub retry_interval: Span,
    /// What an XID calls for, where this host's operator knows better than the shipped table: an action by
    /// its code, `{ "64" = "isolate" }`.
    pub xid_overrides: BTreeMap<String, String>,
}

impl Default for GpuConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            library: None,
            fast_interval: Span::millis(100),
            slow_interval: Span::secs(1),
            retry_interval: Span::secs(10),
            xid_overrides: BTreeMap::new(),
        }
    }
}

/// The host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HostConfig {
    /// CPU, memory, pressure; at least 100 ms.
    pub interval: Span,
}

impl Default for HostConfig {
    fn default() -> Self {
        Self { interval: Span::secs(1) }
    }
}

/// Reads and checks the configuration.
///
/// # Errors
/// The first fault of the file, or every value that is not acceptable.
pub fn load(path: &Path) -> Result<Config, Vec<ConfigError>> {
    read(path).map(|(_, config)| config)
}

/// As [`load`], with the text.
///
/// # Errors
/// As [`load`].
pub fn read(path: &Path) -> Result<(String, Config), Vec<ConfigError>> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| vec![ConfigError::unreadable(path, &error, DEFAULT_PATH)])?;
    let config = parse(path, &text)?;
    Ok((text, config))
}

/// Checks a configuration's text.
///
/// # Errors
/// As [`load`].
pub fn parse(path: &Path, text: &str) -> Result<Config, Vec<ConfigError>> {
    let config: Config = config::parse(path, text).map_err(|error| vec![error])?;
    let faults = validate(&config);
    if faults.is_empty() {
        return Ok(config);
    }
    let fault = |(problem, hint): (String, Option<String>)| ConfigError::whole(path, problem, hint);
    Err(faults.into_iter().map(fault).collect())
}

fn validate(config: &Config) -> Vec<(String, Option<String>)> {
    let mut faults = Vec::new();
    let mut check = |good: bool, problem: &str, hint: &str| {
        if !good {
            faults.push((problem.to_owned(), Some(hint.to_owned())));
        }
    };
    let endpoints = &config.aggregator.endpoints;
    check(
        !endpoints.is_empty(),
        "[aggregator] endpoints is empty",
        "write for example [\"aggregator:9440\"]",
    );
    let has_port = |endpoint: &String| {
        endpoint.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
    };
    check(
        endpoints.iter().all(has_port),
        "[aggregator] endpoints has an entry without a port",
        "write `host:port`, for example \"aggregator:9440\"",
    );
    check(
        config.gpu.fast_interval >= Span::millis(10),
        "[gpu] fast_interval is below 10ms",
        "write at least \"10ms\"; \"100ms\" is the default",
    );
    check(
        config.gpu.slow_interval >= Span::millis(100),
        "[gpu] slow_interval is below 100ms",
        "write at least \"100ms\"",
    );
    check(
        config.gpu.retry_interval >= Span::secs(1),
        "[gpu] retry_interval is below 1s",
        "write at least \"1s\"",
    );
    check(
        config.host.interval >= Span::millis(100),
        "[host] interval is below 100ms",
        "write at least \"100ms\"",
    );
    check(
        config.spool.generation_bytes.0 >= 1 << 20,
        "[spool] generation_bytes is below 1MiB",
        "write at least \"1MiB\"",
    );
    check(
        config.spool.bytes_max.0 >= config.spool.generation_bytes.0.saturating_mul(4),
        "[spool] bytes_max is below four generations",
        "raise it, or lower generation_bytes",
    );
    check(
        config.spool.generation_age >= Span::secs(60),
        "[spool] generation_age is below 1m",
        "write at least \"1m\"",
    );
    for (code, action) in &config.gpu.xid_overrides {
        if let Err(problem) = xid::read(code, action) {
            let actions = XidAction::ALL.map(XidAction::word).join(", ");
            let hint = format!("write `\"64\" = \"isolate\"`; actions are {actions}");
            faults.push((format!("[gpu] xid_overrides: {problem}"), Some(hint)));
        }
    }
    validate_lists(config, &mut faults);
    validate_queues(config, &mut faults);
    faults
}

/// A worker without its queue has no jobs: it would be stopped without a drain, and nothing listed.
fn validate_queues(config: &Config, faults: &mut Vec<(String, Option<String>)>) {
    let names: Vec<&str> = config.queues.iter().map(|queue| queue.name.as_str()).collect();
    for worker in &config.workers {
        if let Some(queue) = worker.queue.as_ref().filter(|queue| !names.contains(&queue.as_str())) {
            let problem =
                format!("[[worker]] `{}`: queue: there is no [[queue]] called `{queue}`", worker.name);
            faults.push((problem, Some(format!("name one of: {}", names.join(", ")))));
        }
    }
}

fn validate_lists(config: &Config, faults: &mut Vec<(String, Option<String>)>) {
    let Config { workers, queues, services, figures, .. } = config;
    let mut list = |kind: &str, max: usize, items: Vec<(String, Vec<Fault>)>| {
        if items.len() > max {
            let problem = format!("there are more than {max} [[{kind}]]");
            faults.push((problem, Some("let the agent of another host take some of them".into())));
        }
        let mut names = std::collections::BTreeSet::new();
        for (name, found) in items {
            for Fault { field, problem, hint } in found {
                faults.push((format!("[[{kind}]] `{name}`: {field}: {problem}"), Some(hint)));
            }
            if !names.insert(name.clone()) {
                let problem = format!("two [[{kind}]] are called `{name}`");
                faults.push((problem, Some("give each its own name".into())));
            }
        }
    };
    let named = |name: &dyn std::fmt::Display, found: Vec<Fault>| (name.to_string(), found);
    list("worker", WORKERS_MAX, workers.iter().map(|item| named(&item.name, item.validate())).collect());
    list("queue", QUEUES_MAX, queues.iter().map(|item| named(&item.name, item.validate())).collect());
    list("service", SERVICES_MAX, services.iter().map(|item| named(&item.name, item.validate())).collect());
    list("figure", FIGURES_MAX, figures.iter().map(|item| named(&item.title(), item.validate())).collect());
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: &str = "[identity]\nca = \"ca.pem\"\ncertificate = \"n.pem\"\nkey = \"n.key\"\n[aggregator]\nendpoints = [\"127.0.0.1:9440\"]\n";

    fn faults(more: &str) -> String {
        let faults = parse(Path::new("agent.toml"), &format!("{LEAST}{more}")).unwrap_err();
        faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn the_least_configuration_has_defaults_for_the_rest() {
        let config = parse(Path::new("agent.toml"), LEAST).unwrap();
        assert_eq!(config.gpu.fast_interval, Span::millis(100));
        assert!(config.workers.is_empty());
    }

    #[test]
    fn the_shipped_example_says_the_defaults_and_its_worker_is_accepted() {
        let example = include_str!("../../../docs/agent.toml");
        let config = parse(Path::new("docs/agent.toml"), example).unwrap();
        let least = parse(Path::new("agent.toml"), LEAST).unwrap();
        let rest = |config: &Config| {
            format!("{:?}{:?}{:?}{:?}", config.spool, config.socket, config.gpu, config.host)
        };
        assert_eq!(rest(&config), rest(&least));
        let worker = "/opt/pyannote/bin/python";
        let whole: Vec<Config> = example
            .split("\n\n")
            .map(uncommented)
            .filter(|text| !text.is_empty())
            .map(|text| text.replace(worker, "/bin/sh").replace("/opt/pyannote", "/"))
            .map(|text| parse(Path::new("docs/agent.toml"), &format!("{LEAST}{text}")).unwrap())
            .collect();
        let workers: Vec<&WorkerConfig> = whole.iter().flat_map(|config| &config.workers).collect();
        assert_eq!(workers.len(), 3, "one with every key, and the two of the first users");
        let said = workers[0];
        let least = "[[worker]]\nname = \"w\"\ndriver = \"child\"\ncommand = [\"/bin/sh\"]\nreadiness = { url = \"http://127.0.0.1/\" }\n";
        let least = parse(Path::new("agent.toml"), &format!("{LEAST}{least}")).unwrap().workers.remove(0);
        let defaults = |worker: &WorkerConfig| {
            let spans = [worker.startup_min, worker.startup_max, worker.backoff_base, worker.backoff_max];
            let (readiness, more) =
                (&worker.readiness, (worker.healthy_after, worker.stop_grace, worker.gpu));
            let probe = (readiness.interval, readiness.timeout, readiness.failures, readiness.status);
            let parts = (&worker.supervise, &worker.stop, &worker.proof, &worker.jobs, &worker.docker_socket);
            format!("{spans:?} {more:?} {probe:?} {parts:?}")
        };
        assert_eq!(defaults(said), defaults(&least));
        let count = |of: fn(&Config) -> usize| whole.iter().map(of).sum::<usize>();
        assert!(count(|config| config.services.len()) > 0 && count(|config| config.figures.len()) >= 3);
        assert!(count(|config| config.queues.len()) >= 6);
    }

    #[test]
    fn the_shipped_example_names_every_key_of_a_worker() {
        let example = include_str!("../../../docs/agent.toml");
        let text = "[[worker]]\nname = \"w\"\ndriver = \"child\"\ncommand = [\"/bin/sh\"]\nreadiness = { url = \"http://127.0.0.1/\" }\n\
                    stop = { take_out = { command = [\"/bin/true\"] } }\n";
        let worker = parse(Path::new("agent.toml"), &format!("{LEAST}{text}")).unwrap().workers.remove(0);
        let mut missing = Vec::new();
        let mut tables = vec![serde_json::to_value(worker).unwrap()];
        while let Some(table) = tables.pop() {
            for (key, value) in table.as_object().into_iter().flatten() {
                if !example.contains(&format!("{key} = ")) && !example.contains(&format!("[worker.{key}]")) {
                    missing.push(key.clone());
                }
                tables.push(value.clone());
            }
        }
        assert!(missing.is_empty(), "docs/agent.toml does not name {missing:?}");
    }

    /// The tables that an example has as comments: from `# [[` on to the next line that is no comment.
    fn uncommented(example: &str) -> String {
        let mut inside = false;
        let mut lines = String::new();
        for line in example.lines() {
            inside = line.starts_with("# [[") || (inside && line.starts_with('#'));
            if inside {
                lines.push_str(line.trim_start_matches('#').trim_start());
                lines.push('\n');
            }
        }
        lines
    }

    #[test]
    fn an_unknown_key_names_its_place_and_the_nearest_known_one() {
        let text = faults("[gpu]\nfast_intervall = \"100ms\"\n");
        assert!(text.starts_with("agent.toml:8:1: unknown field `fast_intervall`"), "{text}");
        assert!(text.contains("did you mean `fast_interval`?"), "{text}");
    }

    #[test]
    fn an_interval_that_would_load_the_driver_is_refused() {
        assert!(faults("[gpu]\nfast_interval = \"1ms\"\n").contains("below 10ms"));
    }

    #[test]
    fn an_override_of_an_xid_names_a_code_and_an_action() {
        let good = parse(
            Path::new("agent.toml"),
            &format!("{LEAST}[gpu]\nxid_overrides = {{ \"64\" = \"isolate\" }}\n"),
        );
        assert_eq!(good.unwrap().gpu.xid_overrides["64"], "isolate");
        let text = faults("[gpu]\nxid_overrides = { \"64\" = \"isolat\", \"x\" = \"reboot\" }\n");
        assert!(text.contains("`isolat` is no action") && text.contains("`x` is no XID"), "{text}");
        assert!(text.contains("restart_worker, reset_gpu, isolate"), "{text}");
    }

    #[test]
    fn more_workers_than_a_frame_has_groups_for_are_refused() {
        let worker = |number: usize| {
            format!(
                "[[worker]]\nname = \"w{number}\"\ndriver = \"child\"\ncommand = [\"/bin/sh\"]\nreadiness = {{ url = \"http://127.0.0.1/\" }}\n"
            )
        };
        let text: String = (0..=WORKERS_MAX).map(worker).collect();
        assert!(faults(&text).contains("more than 48 [[worker]]"), "{}", faults(&text));
        // The host's own groups fit too.
        const ALL: usize = WORKERS_MAX + QUEUES_MAX + SERVICES_MAX + FIGURES_MAX;
        const { assert!(ALL + 10 < diarwatch_shared::limits::GROUPS_MAX) };
    }

    #[test]
    fn each_queue_of_the_shipped_example_is_accepted_and_the_first_says_the_defaults() {
        let example = include_str!("../../../docs/agent.toml");
        let paragraphs = example.split("\n\n").filter(|text| text.starts_with("# [[queue]]"));
        let tables: Vec<String> = paragraphs
            .map(|text| {
                text.lines()
                    .map(|line| line.strip_prefix("# ").unwrap_or(line))
                    .collect::<Vec<_>>()
                    .join("\n")
            })
            .collect();
        assert!(tables.len() >= 10, "{tables:#?}");
        let queue = |table: &String| {
            let config = parse(Path::new("docs/agent.toml"), &format!("{LEAST}{table}"));
            config.map_err(|faults| format!("{table}\n{faults:?}")).unwrap().queues.remove(0)
        };
        let queues: Vec<QueueConfig> = tables.iter().map(queue).collect();
        let least = queue(&"[[queue]]\nname = \"a\"\nredis = { url = \"redis://a\", list = \"b\" }".into());
        assert_eq!((queues[0].interval, queues[0].timeout), (least.interval, least.timeout));
    }

    #[test]
    fn two_queues_of_one_name_and_more_than_four_are_refused() {
        let queue = |name: &str| {
            format!(
                "[[queue]]\nname = \"{name}\"\nredis = {{ url = \"redis://127.0.0.1\", list = \"jobs\" }}\n"
            )
        };
        let four: String = ["a", "b", "c", "d"].map(queue).concat();
        assert_eq!(
            parse(Path::new("agent.toml"), &format!("{LEAST}{four}")).unwrap().queues.len(),
            QUEUES_MAX
        );
        assert!(faults(&format!("{four}{}", queue("e"))).contains("more than 4 [[queue]]"));
        assert!(faults(&format!("{}{}", queue("a"), queue("a"))).contains("two [[queue]] are called `a`"));
        let wrong = queue("a").replace("redis:", "http:");
        assert!(faults(&wrong).contains("[[queue]] `a`: redis.url: "), "{}", faults(&wrong));
    }

    #[test]
    fn a_file_that_is_not_there_says_how_to_name_another() {
        let faults = load(Path::new("/does/not/exist.toml")).unwrap_err();
        assert!(faults[0].to_string().contains("--config"), "{}", faults[0]);
    }
}
