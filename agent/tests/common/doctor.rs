//! `diarwatch doctor` at a node: what it found, each time held against the shipped schema and each line
//! to type held against a shell's grammar.

use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use serde_json::Value;

use super::Node;

const SCHEMA: &str = include_str!("../../../shared/schemas/doctor.json");

/// What one run found.
pub struct Visit {
    pub document: Value,
    pub code: i32,
}

/// A user without rights, by number.
pub const NOBODY: [&str; 4] = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];

/// Runs it; `--json` is added.
pub fn doctor(node: &Node, more: &[&str]) -> Visit {
    doctor_behind(&[], node, more)
}

/// Runs it behind another command, such as one that takes rights away.
pub fn doctor_behind(before: &[&str], node: &Node, more: &[&str]) -> Visit {
    let (config, socket) = (node.config().display().to_string(), node.socket.display().to_string());
    let mut words: Vec<&str> = before.to_vec();
    words.extend([env!("CARGO_BIN_EXE_diarwatch"), "doctor", "--json", "--config", &config]);
    words.extend(["--socket", &socket, "--lang", "en"]);
    words.extend(more);
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).env_remove("DIARWATCH_AGGREGATOR").env("LC_ALL", "C");
    Visit::of(&command.output().unwrap())
}

fn judged(output: &Output) -> Visit {
    let document: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    valid(&document);
    for check in document["checks"].as_array().unwrap() {
        check["mend"].as_str().into_iter().for_each(typeable);
    }
    Visit { document, code: output.status.code().unwrap() }
}

/// Held against the schema that is shipped.
#[track_caller]
pub fn valid(document: &Value) {
    static VALIDATOR: OnceLock<jsonschema::Validator> = OnceLock::new();
    let validator =
        VALIDATOR.get_or_init(|| jsonschema::validator_for(&serde_json::from_str(SCHEMA).unwrap()).unwrap());
    let faults: Vec<String> = validator.iter_errors(document).map(|fault| fault.to_string()).collect();
    assert!(faults.is_empty(), "{faults:#?}\n{document:#}");
}

/// A shell takes it as it is.
#[track_caller]
fn typeable(line: &str) {
    let read = Command::new("bash").args(["-n", "-c", line]).stdin(Stdio::null()).output().unwrap();
    assert!(read.status.success(), "{line}: {}", String::from_utf8_lossy(&read.stderr));
}

impl Visit {
    /// What a run said, with `--json`.
    #[track_caller]
    pub fn of(output: &Output) -> Self {
        judged(output)
    }

    #[track_caller]
    pub fn check(&self, id: &str) -> &Value {
        let checks = self.document["checks"].as_array().unwrap();
        let found = checks.iter().find(|check| check["id"] == id);
        found.unwrap_or_else(|| panic!("no {id} in {:#}", self.document))
    }

    pub fn verdict(&self, id: &str) -> &str {
        self.check(id)["verdict"].as_str().unwrap()
    }

    /// The verdict, and words in what was seen or is to be typed.
    #[track_caller]
    pub fn finds(&self, id: &str, verdict: &str, words: &[&str]) {
        let check = self.check(id);
        assert_eq!(check["verdict"], verdict, "{check:#}");
        let text = format!("{} {}", check["seen"].as_str().unwrap(), check["mend"].as_str().unwrap_or(""));
        for word in words {
            assert!(text.contains(word), "`{word}` is not in {check:#}");
        }
    }
}

/// Closes the node's key to others, as `pki` makes it.
pub fn close_key(node: &Node) {
    mode(node, "node.key", 0o600);
}

pub fn mode(node: &Node, name: &str, bits: u32) {
    std::fs::set_permissions(node.path(name), std::fs::Permissions::from_mode(bits)).unwrap();
}

/// Whether this is root, who may become somebody else; says so where it is not.
#[expect(clippy::print_stdout, reason = "a test that does nothing says so")]
pub fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("SKIPPED: only root can make files of another user");
    }
    root
}
