//! What `diarwatch-aggregator rules check FILE...` says.
//!
//! Takes the texts of files; gives the number of good rules and every fault. Pure.

use std::collections::HashMap;
use std::path::PathBuf;

use serde::Serialize;

use super::fault::RuleFault;
use super::file::load;
use super::model::{Group, Place, Rule};

/// The version of the report's JSON form.
const REPORT_SCHEMA: u32 = 1;

/// The result of a check; its JSON form is a contract.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CheckReport {
    /// The version of this form.
    pub schema: u32,
    /// What this is: `rules_check`.
    pub kind: &'static str,
    /// Files that were checked.
    pub files: usize,
    /// Rules in files without a fault in their text.
    pub rules: usize,
    /// Everything that is wrong.
    pub faults: Vec<RuleFault>,
}

impl CheckReport {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.faults.is_empty()
    }
}

/// Checks files, in their order.
#[must_use]
pub fn check(files: &[(PathBuf, String)]) -> CheckReport {
    let mut report = CheckReport {
        schema: REPORT_SCHEMA,
        kind: "rules_check",
        files: files.len(),
        rules: 0,
        faults: Vec::new(),
    };
    for (path, text) in files {
        match load(path, text) {
            Ok(groups) => {
                report.rules += groups.iter().map(|group| group.rules.len()).sum::<usize>();
                report.faults.extend(groups.iter().flat_map(duplicates));
            }
            Err(faults) => report.faults.extend(faults),
        }
    }
    report
}

/// Rules of a group that make the same series or alert as an earlier one.
fn duplicates(group: &Group) -> Vec<RuleFault> {
    let mut seen: HashMap<String, Place> = HashMap::new();
    let mut faults = Vec::new();
    for rule in &group.rules {
        let Place { line, column } = rule.place();
        if let Some(first) = seen.insert(identity(rule), rule.place()) {
            faults.push(RuleFault {
                path: group.path.clone(),
                line,
                column,
                problem: format!(
                    "rule `{}` stands twice in group `{}`, first in line {}",
                    rule.name(),
                    group.name,
                    first.line
                ),
                hint: Some(String::from("remove one, or give it a label that tells them apart")),
            });
        }
    }
    faults
}

fn identity(rule: &Rule) -> String {
    match rule {
        Rule::Alert(alert) => {
            let labels: Vec<(&String, &str)> =
                alert.labels.iter().map(|(name, template)| (name, template.text())).collect();
            format!("alert {:?} {labels:?}", alert.name)
        }
        Rule::Record(record) => format!("record {:?} {:?}", record.name, record.labels),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(text: &str) -> CheckReport {
        check(&[(PathBuf::from("r.yaml"), text.to_owned())])
    }

    #[test]
    fn the_rules_of_the_requirements_are_clean() {
        let report = report(include_str!("../../../tests/rules/alerting-rules.yaml"));
        assert!(report.is_clean(), "{report:?}");
        assert_eq!(report.rules, 6);
    }

    #[test]
    fn a_rule_that_stands_twice_in_a_group_is_a_fault() {
        let text = "groups:\n  - name: g\n    rules:\n      - {alert: A, expr: up == 0}\n      - {alert: A, expr: up == 1}\n      - {alert: A, expr: up, labels: {severity: warning}}\n      - {record: A, expr: up}\n";
        let report = report(text);
        assert_eq!(report.faults.len(), 1, "{report:?}");
        assert!(report.faults[0].to_string().starts_with("r.yaml:5:9: rule `A` stands twice"), "{report:?}");
    }

    #[test]
    fn the_json_form_stays() {
        let report = report("groups:\n  - nam: g\n    name: g\n");
        let json = serde_json::to_string(&report).unwrap();
        let golden = r#"{"schema":1,"kind":"rules_check","files":1,"rules":0,"faults":[{"path":"r.yaml","line":2,"column":5,"problem":"unknown key `nam` in a group","hint":"did you mean `name`?"}]}"#;
        assert_eq!(json, golden);
    }
}
