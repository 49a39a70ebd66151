//! The rule files of an aggregator on this host, checked by the aggregator's own program.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use diarwatch_shared::config;
use diarwatch_shared::texts::Text;
use serde::Deserialize;
use serde_json::Value;

use super::report::{Finding, word};
use super::{Facts, PROGRAM_TIMEOUT, output_of};

const PROGRAM: &str = "diarwatch-aggregator";
/// Where packages put it, for a PATH that lacks them.
const PLACES: [&str; 3] = ["/usr/bin", "/usr/local/bin", "/usr/sbin"];

/// The part of `aggregator.toml` that names rule files; the rest is the aggregator's own business.
#[derive(Debug, Default, Deserialize)]
struct AggregatorFile {
    #[serde(default)]
    rules: Rules,
}

#[derive(Debug, Default, Deserialize)]
struct Rules {
    #[serde(default)]
    files: Vec<PathBuf>,
}

/// `rules.files`
pub(super) fn files(facts: &Facts) -> Finding {
    let path = &facts.aggregator_config;
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => return Finding::skip(Text::DoctorNoAggregator, &[&path.display(), &error]),
    };
    let rules = match config::parse::<AggregatorFile>(path, &text) {
        Ok(file) => file.rules.files,
        Err(error) => {
            let mend = format!("{PROGRAM} config check {}", word(path.display()));
            return Finding::fail(Text::DoctorAggregatorBad, &[&error], mend);
        }
    };
    if rules.is_empty() {
        return Finding::skip(Text::DoctorNoRules, &[&path.display()]);
    }
    let Some(program) = program() else {
        return Finding::skip(Text::DoctorNoProgram, &[&PROGRAM]);
    };
    match check(&program, &rules) {
        Ok((report, talk)) => judge(&report, &talk, &rules),
        Err(error) => Finding::skip(Text::DoctorNoProgram, &[&format!("{}: {error}", program.display())]),
    }
}

/// Beside this command first: both come from one package.
fn program() -> Option<PathBuf> {
    let here = std::env::current_exe().ok().and_then(|path| path.parent().map(Path::to_owned));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let named = std::env::split_paths(&path).collect::<Vec<_>>();
    let places = here.into_iter().chain(named).chain(PLACES.map(PathBuf::from));
    places.map(|place| place.join(PROGRAM)).find(|program| program.is_file())
}

/// What the program says on stdout and stderr.
fn check(program: &Path, rules: &[PathBuf]) -> io::Result<(String, String)> {
    let mut command = Command::new(program);
    let output = output_of(command.args(["rules", "check", "--json"]).args(rules), PROGRAM_TIMEOUT)?;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ok((text(output.stdout), text(output.stderr)))
}

fn judge(report: &str, talk: &str, rules: &[PathBuf]) -> Finding {
    let names: Vec<String> = rules.iter().map(|path| word(path.display())).collect();
    let mend = format!("{PROGRAM} rules check {}", names.join(" "));
    let Ok(report) = serde_json::from_str::<Value>(report) else {
        // A file that cannot be read at all is told in words only.
        return Finding::fail(Text::DoctorRulesBad, &[&talk.trim(), &1], mend);
    };
    let faults = report.get("faults").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let Some(first) = faults.first() else {
        return Finding::pass(
            Text::DoctorRulesGood,
            &[&report.get("rules").and_then(Value::as_u64).unwrap_or(0), &rules.len()],
        );
    };
    let text = |key: &str| first[key].as_str().unwrap_or("?");
    let hint = first["hint"].as_str().map(|hint| format!("; {hint}")).unwrap_or_default();
    let shown = format!("{}:{}:{}: {}{hint}", text("path"), first["line"], first["column"], text("problem"));
    Finding::fail(Text::DoctorRulesBad, &[&shown, &faults.len()], mend)
}

#[cfg(test)]
mod tests {
    use super::super::report::Verdict;
    use super::*;

    #[test]
    fn a_fault_is_told_with_its_place_and_words_alone_are_a_fault_too() {
        let rules = [PathBuf::from("r.yaml")];
        let bad = r#"{"faults":[{"path":"r.yaml","line":2,"column":5,"problem":"no `x`","hint":"y"}]}"#;
        let finding = judge(bad, "", &rules);
        assert_eq!(finding.verdict, Verdict::Fail);
        assert!(format!("{finding:?}").contains("r.yaml:2:5: no `x`; y"), "{finding:?}");
        assert_eq!(judge(r#"{"faults":[],"rules":6}"#, "", &rules).verdict, Verdict::Pass);
        assert_eq!(judge("", "error: r.yaml: No such file", &rules).verdict, Verdict::Fail);
    }

    #[test]
    fn keys_that_are_the_aggregators_own_are_no_concern_here() {
        let text = "[store]\nx = 1\n[rules]\nfiles = [\"a.yaml\"]\ninterval = \"1s\"\n";
        let file: AggregatorFile = config::parse(Path::new("a.toml"), text).unwrap();
        assert_eq!(file.rules.files, [PathBuf::from("a.yaml")]);
    }
}
