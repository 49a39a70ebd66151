//! The administrator's verbs and what a start refuses, by the real binary: exit numbers, texts that
//! say what to do, and nothing written that was not asked for.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of a test"
)]

mod common;

use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt;

use common::{Site, make_pki, run, text};
use serde_json::Value;

const REQUIREMENTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/rules/alerting-rules.yaml");

/// A copy of the requirements' rules with one expression broken: its path, and where the fault is.
fn broken(site: &Site) -> (String, String) {
    let sound = std::fs::read_to_string(REQUIREMENTS).unwrap();
    assert_eq!(sound.matches("error_rate > 0.05").count(), 1);
    let text = sound.replace("error_rate > 0.05", "error_rate > > 0.05");
    let (line, found) = (1..).zip(text.lines()).find(|(_, line)| line.contains("> >")).unwrap();
    let column = found.find("> >").unwrap() + "> ".len() + 1;
    site.put("broken.yaml", &text);
    let path = site.path("broken.yaml").display().to_string();
    let place = format!("{path}:{line}:{column}: ");
    (path, place)
}

#[test]
fn the_requirements_rules_are_fine_as_they_are_written() {
    let checked = run(&["rules", "check", REQUIREMENTS]);
    assert_eq!(checked.status.code(), Some(0), "{}", text(&checked.stderr));
    assert_eq!(text(&checked.stdout), "ok: 6 rules in 1 files\n");
    assert!(checked.stderr.is_empty());
}

#[test]
fn a_broken_expression_is_named_with_file_line_and_column() {
    let site = Site::new("");
    let (path, place) = broken(&site);
    let checked = run(&["rules", "check", REQUIREMENTS, &path]);
    assert_eq!(checked.status.code(), Some(65));
    assert!(checked.stdout.is_empty(), "stdout is for data");
    let said = text(&checked.stderr);
    assert!(said.contains(&place), "{place} is not in {said}");
    assert_eq!(said.lines().count(), 1, "the sound file has no fault: {said}");
}

#[test]
fn a_check_as_json_is_one_document_whether_it_is_clean_or_not() {
    let site = Site::new("");
    let (path, place) = broken(&site);
    let clean = run(&["rules", "check", "--json", REQUIREMENTS]);
    let report: Value = serde_json::from_slice(&clean.stdout).unwrap();
    assert_eq!((clean.status.code(), &report["kind"]), (Some(0), &"rules_check".into()));
    assert_eq!((&report["rules"], report["faults"].as_array().unwrap().len()), (&6.into(), 0));
    let faulty = run(&["rules", "check", "--json", REQUIREMENTS, &path]);
    let report: Value = serde_json::from_slice(&faulty.stdout).unwrap();
    assert_eq!((faulty.status.code(), &report["files"]), (Some(65), &2.into()));
    let fault = &report["faults"][0];
    let said = format!("{}:{}:{}: ", fault["path"].as_str().unwrap(), fault["line"], fault["column"]);
    assert_eq!(said, place);
}

#[test]
fn a_rules_file_that_is_not_there_is_named() {
    let checked = run(&["rules", "check", REQUIREMENTS, "/nowhere/rules.yaml"]);
    assert_eq!(checked.status.code(), Some(65));
    assert!(text(&checked.stderr).contains("/nowhere/rules.yaml"), "{}", text(&checked.stderr));
}

#[test]
fn a_configuration_is_checked_without_a_trace() {
    let site = Site::new("");
    let config = site.config();
    let path = config.to_str().unwrap();
    let checked = run(&["config", "check", path]);
    assert_eq!(checked.status.code(), Some(0), "{}", text(&checked.stderr));
    assert_eq!(text(&checked.stdout), format!("{path}: ok\n"));
    assert!(!site.path("store").exists(), "a check makes nothing");
    site.put("aggregator.toml", "[identity]\nca = 1\n[intke]\n");
    let checked = run(&["config", "check", path]);
    assert_eq!(checked.status.code(), Some(78));
    assert!(text(&checked.stderr).contains(&format!("{path}:")), "{}", text(&checked.stderr));
}

#[test]
fn a_pki_is_made_once_and_its_keys_are_the_owners_alone() {
    let dir = tempfile::tempdir().unwrap();
    let pki = dir.path().join("pki");
    make_pki(&pki, &["gpu-01"]);
    let before = std::fs::read(pki.join("ca.pem")).unwrap();
    for name in ["ca.key", "aggregator.key", "gpu-01.key"] {
        let mode = std::fs::metadata(pki.join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{name} is readable by others: {mode:o}");
    }
    let path = pki.to_str().unwrap();
    let again = run(&["pki", "init", "--directory", path]);
    assert_eq!(again.status.code(), Some(65));
    assert!(text(&again.stderr).contains("exists already"), "{}", text(&again.stderr));
    assert_eq!(std::fs::read(pki.join("ca.pem")).unwrap(), before);
    let more = run(&["pki", "node", "--directory", path, "gpu-02"]);
    assert_eq!(more.status.code(), Some(0));
    assert_eq!(text(&more.stdout).lines().count(), 2, "stdout names the files: {}", text(&more.stdout));
    assert_eq!(run(&["pki", "node", "--directory", path, "gpu-02"]).status.code(), Some(65));
    let nowhere = run(&["pki", "node", "--directory", "/nowhere", "gpu-03"]);
    assert!(text(&nowhere.stderr).contains("/nowhere/ca.key"), "{}", text(&nowhere.stderr));
}

#[test]
fn a_wrong_command_line_ends_with_64_and_help_with_0() {
    for wrong in [&[][..], &["rnu"], &["run", "--confg", "x"], &["rules", "check"], &["pki", "init"]] {
        let ended = run(wrong);
        assert_eq!(ended.status.code(), Some(64), "{wrong:?}: {}", text(&ended.stderr));
        assert!(ended.stdout.is_empty() && !ended.stderr.is_empty(), "{wrong:?}");
    }
    let bad_name = run(&["pki", "node", "--directory", "x", "GPU_01"]);
    assert_eq!(bad_name.status.code(), Some(64));
    assert!(text(&bad_name.stderr).contains("a-z"), "{}", text(&bad_name.stderr));
    for help in [&["--help"][..], &["run", "--help"], &["--version"]] {
        let ended = run(help);
        assert_eq!(ended.status.code(), Some(0), "{help:?}");
        assert!(!ended.stdout.is_empty(), "{help:?}");
    }
}

/// Starts with the site as it is; it must refuse with this number and these words.
fn refused(site: &Site, code: i32, words: &[&str]) {
    let config = site.config();
    let ended = run(&["run", "--config", config.to_str().unwrap()]);
    let said = text(&ended.stderr);
    assert_eq!(ended.status.code(), Some(code), "{words:?}: {said}");
    for word in words {
        assert!(said.contains(word), "`{word}` is not in: {said}");
    }
    assert!(!said.contains("panicked"), "{said}");
}

#[test]
fn a_start_without_its_configuration_says_where_it_looked() {
    let ended = run(&["run", "--config", "/nowhere/aggregator.toml"]);
    let said = text(&ended.stderr);
    assert_eq!(ended.status.code(), Some(78), "{said}");
    assert!(said.contains("/nowhere/aggregator.toml") && said.contains("--config"), "{said}");
}

#[test]
fn a_start_without_a_sound_identity_is_refused_with_what_to_do() {
    for (file, key) in [("ca.pem", "ca"), ("aggregator.pem", "certificate"), ("aggregator.key", "key")] {
        let site = Site::new("");
        let path = site.path("pki").join(file);
        std::fs::remove_file(&path).unwrap();
        refused(&site, 78, &[&format!("[identity] {key}"), path.to_str().unwrap(), "pki init"]);
        std::fs::write(&path, "no PEM").unwrap();
        refused(&site, 78, &["[identity]", "PEM", "pki init"]);
    }
    let site = Site::new("");
    std::fs::copy(site.path("pki/gpu-01.key"), site.path("pki/aggregator.key")).unwrap();
    refused(&site, 78, &["identity cannot be used", "pki init"]);
}

#[test]
fn a_start_without_sound_rules_is_refused_with_their_place() {
    let mut site = Site::new("");
    site.configure("[rules]\nfiles = [\"/nowhere/rules.yaml\"]");
    refused(&site, 78, &["[rules] files", "/nowhere/rules.yaml"]);
    let (path, place) = broken(&site);
    site.configure(&format!("[rules]\nfiles = [\"{path}\"]"));
    refused(&site, 78, &[&place]);
}

#[test]
fn a_start_without_its_webhook_is_refused_and_never_says_it() {
    let mut site = Site::new("");
    site.configure("[slack]\nwebhook_url_file = \"/nowhere/webhook\"");
    refused(&site, 78, &["[slack] webhook_url_file", "/nowhere/webhook"]);
    let webhook = site.put("webhook", "hooks.slack.example/services/T/B/geheimnis\n");
    site.configure(&format!("[slack]\nwebhook_url_file = {webhook}"));
    let config = site.config();
    let ended = run(&["run", "--config", config.to_str().unwrap()]);
    assert_eq!(ended.status.code(), Some(78));
    let said = text(&ended.stderr);
    assert!(said.contains("webhook_url_file") && !said.contains("geheimnis"), "{said}");
}

#[test]
fn a_start_over_damaged_state_is_refused_and_leaves_it_as_it_is() {
    let site = Site::new("");
    std::fs::create_dir_all(site.path("store/segments")).unwrap();
    for (state, word) in [("{\"version\":1,", "move the file away"), ("{\"version\":99}", "upgrade")] {
        site.put("store/alerts.json", state);
        refused(&site, 78, &["store/alerts.json", word]);
        assert_eq!(std::fs::read_to_string(site.path("store/alerts.json")).unwrap(), state);
    }
    std::fs::remove_file(site.path("store/alerts.json")).unwrap();
    let foreign = "a file of somebody else, longer than a header";
    site.put("store/segments/00000000.log", foreign);
    refused(&site, 78, &["00000000.log", "not a diarwatch log"]);
    assert_eq!(std::fs::read_to_string(site.path("store/segments/00000000.log")).unwrap(), foreign);
}

#[test]
fn a_page_that_others_could_read_is_refused() {
    for address in ["0.0.0.0:9441", "[::]:9441", "192.0.2.1:9441"] {
        let mut site = Site::new("");
        site.configure(&format!("[http]\nlisten = \"{address}\""));
        refused(&site, 78, &["[http] listen is not a loopback address", "127.0.0.1:9441"]);
    }
}

#[test]
fn a_taken_port_is_temporary_and_named() {
    let mut site = Site::new("");
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    site.configure(&format!("[intake]\nlisten = \"{address}\""));
    refused(&site, 75, &["[intake] listen", &address]);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    site.configure(&format!("[http]\nlisten = \"{address}\""));
    refused(&site, 75, &["[http] listen", &address]);
}

#[tokio::test]
async fn a_second_aggregator_on_the_same_store_is_refused() {
    let site = Site::running("").await;
    let other = run(&["run", "--config", site.config().to_str().unwrap()]);
    let said = text(&other.stderr);
    assert_eq!(other.status.code(), Some(75), "{said}");
    assert!(said.contains("in use by another process"), "{said}");
}

#[test]
fn a_store_that_cannot_be_made_is_temporary_and_named() {
    let site = Site::new("");
    std::fs::write(site.path("store"), "a file in its place").unwrap();
    refused(&site, 75, &[site.path("store").to_str().unwrap()]);
}

#[test]
fn a_configuration_is_shown_with_where_each_value_comes_from() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("aggregator.toml");
    let init = run(&["config", "init"]);
    assert_eq!(init.status.code(), Some(0));
    std::fs::write(&path, &init.stdout).unwrap();
    let path = path.display().to_string();
    assert_eq!(run(&["config", "check", &path]).status.code(), Some(0), "what init prints is accepted");
    std::fs::write(
        &path,
        "[identity]\nca = \"a\"\ncertificate = \"b\"\nkey = \"c\"\n[nodes]\ntimeout = \"9s\"\n",
    )
    .unwrap();
    let shown = text(&run(&["config", "show", "--origin", &path]).stdout);
    assert!(shown.contains(&format!("nodes.timeout = \"9s\"   # {path}:6\n")), "{shown}");
    assert!(shown.contains("display.zone = \"Asia/Tokyo\"   # default\n"), "{shown}");
    let document: Value = serde_json::from_slice(&run(&["config", "show", "--json", &path]).stdout).unwrap();
    assert_eq!((document["kind"].as_str(), document["schema"].as_u64()), (Some("config"), Some(1)));
}
