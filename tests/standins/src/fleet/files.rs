//! The files of a fleet: certificates by the aggregator's own `pki init`, configurations, scenario.

use std::path::{Path, PathBuf};
use std::time::Duration;

use diarwatch_shared::quantity::Span;
use tokio::process::Child;

use super::{FleetError, Ports, WEBHOOK_PATH, spawn};

/// The node of the demo.
pub(super) const NODE: &str = "gpu-01";
/// The requirements' rules (10.1.3), as an operator would bring them.
const RULES: &str = include_str!("../../../rules/alerting-rules.yaml");
/// Stands in a directory that a demo may clear.
const MARK: &str = ".diarwatch-demo";
const SCENARIO: &str = "# The GPU of the demo: rewrite a value and the page follows.\ngpus = 1\n";

/// The workers' lines of a job.
const JOB_LINES: &str = r"accepted = 'job (?<id>\d+) accepted'
started = 'processing job (?<id>\d+)'
finished = 'job (?<id>\d+) done in (?<seconds>\d+)s \(audio (?<audio_seconds>\d+)s\)'
failed = 'job (?<id>\d+) failed'
";

/// Where the files are.
pub(super) struct Files {
    directory: PathBuf,
    pub(super) aggregator: PathBuf,
    pub(super) agent: PathBuf,
    /// The lines of the jobs.
    pub(super) jobs: PathBuf,
}

impl Files {
    /// Makes the directory anew and writes everything.
    pub(super) fn write(
        directory: &Path,
        ports: &Ports,
        binaries: &Path,
        load: Duration,
    ) -> Result<Self, FleetError> {
        let fail = |error| FleetError::io(directory.display().to_string(), error);
        std::fs::create_dir_all(directory).map_err(fail)?;
        let mark = directory.join(MARK);
        if mark.exists() {
            // What an earlier demo left; nothing else is ever removed.
            for old in ["pki", "spool", "store", "nvml"] {
                drop(std::fs::remove_dir_all(directory.join(old)));
            }
        } else if std::fs::read_dir(directory).map_err(fail)?.next().is_some() {
            let text =
                format!("{} is not empty and not a demo's; name another --directory", directory.display());
            return Err(FleetError::Failed(text));
        }
        std::fs::write(&mark, "files of a diarwatch demo, made anew at each start\n").map_err(fail)?;
        let directory = directory
            .canonicalize()
            .map_err(|error| FleetError::io(directory.display().to_string(), error))?;
        let files = Self {
            aggregator: directory.join("aggregator.toml"),
            agent: directory.join("agent.toml"),
            jobs: directory.join("jobs.log"),
            directory,
        };
        files.make_pki(&binaries.join("diarwatch-aggregator"))?;
        files.put("alerting-rules.yaml", RULES)?;
        files.put("gpu.scenario", SCENARIO)?;
        files.put("slack-webhook-url", &format!("http://{}{WEBHOOK_PATH}\n", ports.slack))?;
        files.put("aggregator.toml", &files.aggregator_toml(ports))?;
        files.put("agent.toml", &files.agent_toml(ports, binaries, load))?;
        Ok(files)
    }

    /// Starts a process whose output goes to `NAME.log` here.
    pub(super) fn spawn(
        &self,
        program: &Path,
        name: &str,
        arguments: &[String],
        environment: &[(String, String)],
    ) -> Result<Child, FleetError> {
        spawn(program, arguments, environment, &self.directory.join(format!("{name}.log")))
    }

    /// The fake under the driver's own name, in a folder of the loader's search path; nothing else
    /// tells the agent that it is a fake.
    pub(super) fn put_fake_nvml_in_place(
        &self,
        binaries: &Path,
    ) -> Result<Vec<(String, String)>, FleetError> {
        let fail = |error| FleetError::io("fake NVML (try: make build)", error);
        let folder = self.directory.join("nvml");
        std::fs::create_dir_all(&folder).map_err(fail)?;
        std::fs::copy(binaries.join("libdiarwatch_fake_nvml.so"), folder.join("libnvidia-ml.so.1"))
            .map_err(fail)?;
        Ok(vec![
            ("LD_LIBRARY_PATH".into(), folder.display().to_string()),
            (
                "DIARWATCH_FAKE_NVML_SCENARIO".into(),
                self.directory.join("gpu.scenario").display().to_string(),
            ),
        ])
    }

    fn make_pki(&self, aggregator: &Path) -> Result<(), FleetError> {
        let made = std::process::Command::new(aggregator)
            .args(["pki", "init", "--node", NODE, "--directory"])
            .arg(self.directory.join("pki"))
            .output()
            .map_err(|error| FleetError::io("diarwatch-aggregator pki init", error))?;
        if made.status.success() {
            return Ok(());
        }
        Err(FleetError::Failed(format!("pki init failed: {}", String::from_utf8_lossy(&made.stderr))))
    }

    fn put(&self, name: &str, text: &str) -> Result<(), FleetError> {
        let path = self.directory.join(name);
        std::fs::write(&path, text).map_err(|error| FleetError::io(path.display().to_string(), error))
    }

    fn path(&self, name: &str) -> String {
        // As a TOML string: JSON's form is one.
        serde_json::Value::from(self.directory.join(name).display().to_string()).to_string()
    }

    fn identity(&self, name: &str) -> String {
        let (ca, pem, key) = (
            self.path("pki/ca.pem"),
            self.path(&format!("pki/{name}.pem")),
            self.path(&format!("pki/{name}.key")),
        );
        format!("[identity]\nca = {ca}\ncertificate = {pem}\nkey = {key}\n")
    }

    fn aggregator_toml(&self, ports: &Ports) -> String {
        let (identity, rules, webhook) =
            (self.identity("aggregator"), self.path("alerting-rules.yaml"), self.path("slack-webhook-url"));
        format!(
            "{identity}\n[intake]\nlisten = \"{}\"\n\n[http]\nlisten = \"{}\"\n\n[store]\ndirectory = {}\n\n\
             [rules]\nfiles = [{rules}]\n\n[nodes]\nexpected = [\"{NODE}\"]\n\n[slack]\nwebhook_url_file = {webhook}\n",
            ports.intake,
            ports.page,
            self.path("store"),
        )
    }

    fn agent_toml(&self, ports: &Ports, binaries: &Path, load: Duration) -> String {
        let standins = serde_json::Value::from(binaries.join("diarwatch-standins").display().to_string());
        let worker = |(number, address): (usize, &std::net::SocketAddr)| {
            format!(
                "[[worker]]\nname = \"pyannote-{number}\"\nservice = \"pyannote #{number}\"\ndriver = \"child\"\n\
                 command = [{standins}, \"worker\", \"--listen\", \"{address}\", \"--load\", \"{}\"]\n\
                 [worker.readiness]\nurl = \"http://{address}/ready\"\njson_pointer = \"/status\"\nequals = \"ready\"\n\n",
                Span(load)
            )
        };
        let workers: String = (1..).zip(&ports.workers).map(worker).collect();
        format!(
            "{}\n[aggregator]\nendpoints = [\"{}\"]\n\n[spool]\ndirectory = {}\n\n[socket]\npath = {}\n\n{workers}{}",
            self.identity(NODE),
            ports.cable,
            self.path("spool"),
            self.path("agent.sock"),
            self.application(ports),
        )
    }

    /// What the agent watches beside its workers.
    fn application(&self, ports: &Ports) -> String {
        let figure = |metric: &str, pointer: &str, scale: f64| {
            format!(
                "[[figure]]\nmetric = \"{metric}\"\nscale = {scale:?}\ninterval = \"1s\"\n\
                 [figure.http]\nurl = \"http://{}/figures\"\nformat = \"json\"\nvalue = \"{pointer}\"\n\n",
                ports.app
            )
        };
        let figures = [
            figure("api_request_duration_p95_seconds", "/api/p95_ms", 0.001),
            figure("api_errors_ratio", "/api/errors_ratio", 1.0),
            figure("sessions_active", "/sessions/active", 1.0),
        ];
        format!(
            "{}[[figure]]\nmetric = \"sessions_max\"\nfixed = 100\n\n\
             [[service]]\nname = \"API Gateway\"\nurl = \"http://{}/health\"\ninterval = \"1s\"\n\
             json_pointer = \"/status\"\nequals = \"ok\"\n\n\
             [[queue]]\nname = \"diarization\"\nservice = \"pyannote\"\n[queue.log]\nfile = {}\n{JOB_LINES}",
            figures.concat(),
            ports.app,
            self.path("jobs.log"),
        )
    }
}
