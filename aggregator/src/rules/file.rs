//! Prometheus rule files, as they are.
//!
//! Takes the text of a file; gives its groups, or every fault of it with line, column and, where
//! one is known, a way out: a file is mended in one go, not fault by fault. Pure: whoever calls
//! reads the file.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use diarwatch_shared::schema::Labels;
use promql_parser::label::METRIC_NAME;

use super::fault::{RuleFault, TextFault};
use super::model::{AlertRule, Group, Place, RecordRule, Rule};
use super::promql::Query;
use super::reader::{Fields, Reader, is_name};
use super::template::Template;
use super::yaml::{self, Item, Node};

/// Bytes of one rule file.
const FILE_BYTES_MAX: usize = 4 * 1024 * 1024;

const FILE_KEYS: &[&str] = &["groups"];
const GROUP_KEYS: &[&str] = &["name", "interval", "query_offset", "limit", "labels", "rules"];
const RULE_KEYS: &[&str] = &["record", "alert", "expr", "for", "keep_firing_for", "labels", "annotations"];
/// Keys that make no sense for a recording rule.
const ALERT_KEYS: &[&str] = &["for", "keep_firing_for", "annotations"];

/// Reads a rule file.
///
/// # Errors
/// Every fault that was found, in order of place; at least one.
pub fn load(path: &Path, text: &str) -> Result<Vec<Group>, Vec<RuleFault>> {
    // Some editors write a byte order mark; no place should count it.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reader = Reader { path, text, faults: Vec::new() };
    let groups = reader.file();
    if reader.faults.is_empty() {
        return Ok(groups);
    }
    reader.faults.sort_by_key(|fault| (fault.line, fault.column));
    Err(reader.faults)
}

impl Reader<'_> {
    fn file(&mut self) -> Vec<Group> {
        if self.text.len() > FILE_BYTES_MAX {
            self.fault(TextFault::new(0, format!("file is larger than {FILE_BYTES_MAX} bytes")));
            return Vec::new();
        }
        let root = match yaml::read(self.text) {
            Ok(Item { node: Node::Null, .. }) => return Vec::new(),
            Ok(root) => root,
            Err(fault) => {
                self.fault(fault);
                return Vec::new();
            }
        };
        let fields = self.fields(&root, "a rule file", FILE_KEYS);
        let mut groups = Vec::new();
        let mut names = HashMap::new();
        for item in self.list(fields.get("groups").map(|(_, item)| *item), "groups") {
            let Some((group, name_at)) = self.group(item) else { continue };
            if let Some(first) = names.insert(group.name.clone(), name_at) {
                let (line, _) = yaml::place(self.text, first);
                let problem = format!("group name `{}` stands twice, first in line {line}", group.name);
                self.fault(TextFault::new(name_at, problem).hint(Some(String::from("rename one of them"))));
            }
            groups.push(group);
        }
        groups
    }

    fn group(&mut self, item: &Item) -> Option<(Group, usize)> {
        let fields = self.fields(item, "a group", GROUP_KEYS);
        let name_at = fields.get("name").map_or(item.start, |(_, item)| item.start);
        let name = self.text_of(&fields, "name");
        if matches!(item.node, Node::Map(_)) && name.is_none_or(str::is_empty) {
            self.fault(
                TextFault::new(name_at, "group has no name").hint(Some(String::from("add `name: ...`"))),
            );
        }
        let name = name.unwrap_or_default().to_owned();
        let labels = self.labels(&fields);
        let limit = self.limit(&fields);
        let interval = self.duration(&fields, "interval");
        let query_offset = self.duration(&fields, "query_offset").unwrap_or_default();
        let items = self.list(fields.get("rules").map(|(_, item)| *item), "rules");
        let rules = items.into_iter().filter_map(|item| self.rule(item, &name, &labels)).collect();
        let path = self.path.to_owned();
        Some((Group { name, path, interval, query_offset, limit, rules }, name_at))
    }

    fn rule(&mut self, item: &Item, group: &str, group_labels: &[(String, &Item)]) -> Option<Rule> {
        let fields = self.fields(item, "a rule", RULE_KEYS);
        let (line, column) = yaml::place(self.text, item.start);
        let place = Place { line, column };
        let query = self.query(&fields, item);
        let mut labels = group_labels.to_vec();
        labels.extend(self.labels(&fields));
        match (fields.get("alert"), fields.get("record")) {
            (Some(_), None) => {
                let name = self.named(&fields, "alert")?;
                let for_ = self.duration(&fields, "for").unwrap_or_default();
                let keep_firing_for = self.duration(&fields, "keep_firing_for").unwrap_or_default();
                let labels = self.templates(labels);
                let annotations = self.pairs(fields.get("annotations").map(|(_, item)| *item), "annotations");
                let annotations = self.templates(annotations);
                let (query, group) = (query?, group.to_owned());
                Some(Rule::Alert(AlertRule {
                    name,
                    group,
                    query,
                    for_,
                    keep_firing_for,
                    labels,
                    annotations,
                    place,
                }))
            }
            (None, Some(_)) => {
                let name = self.named(&fields, "record").and_then(|name| self.metric_name(&fields, name));
                self.only_for_alerts(&fields);
                let text = |(name, item): (String, &Item)| match &item.node {
                    Node::Text(text) => (name, text.clone()),
                    _ => (name, String::new()),
                };
                let labels: Labels = labels.into_iter().map(text).collect();
                Some(Rule::Record(RecordRule { name: name?, query: query?, labels, place }))
            }
            (Some((at, _)), Some(_)) => {
                self.fault(
                    TextFault::new(*at, "rule has both `alert` and `record`")
                        .hint(Some(String::from("make two rules of it"))),
                );
                None
            }
            (None, None) => {
                if matches!(item.node, Node::Map(_)) {
                    self.fault(
                        TextFault::new(item.start, "rule has neither `alert` nor `record`")
                            .hint(Some(String::from("add `alert: Name` or `record: metric_name`"))),
                    );
                }
                None
            }
        }
    }

    fn query(&mut self, fields: &Fields<'_>, rule: &Item) -> Option<Query> {
        let Some((_, item)) = fields.get("expr") else {
            if matches!(rule.node, Node::Map(_)) {
                self.fault(
                    TextFault::new(rule.start, "rule has no `expr`")
                        .hint(Some(String::from("add `expr: ...`"))),
                );
            }
            return None;
        };
        let text = self.text_of(fields, "expr")?;
        match Query::parse(text) {
            Ok(query) => Some(query),
            Err(faults) => {
                for fault in faults {
                    self.inside(item, fault);
                }
                None
            }
        }
    }

    fn named(&mut self, fields: &Fields<'_>, key: &str) -> Option<String> {
        let name = self.text_of(fields, key)?;
        if name.is_empty() {
            let at = fields.get(key).map_or(0, |(at, _)| *at);
            self.fault(TextFault::new(at, format!("`{key}` is empty")));
            return None;
        }
        Some(name.to_owned())
    }

    fn metric_name(&mut self, fields: &Fields<'_>, name: String) -> Option<String> {
        if is_name(&name, true) {
            return Some(name);
        }
        let at = fields.get("record").map_or(0, |(_, item)| item.start);
        self.fault(
            TextFault::new(at, format!("`{name}` is not a metric name"))
                .hint(Some(String::from("use letters, digits, `_` and `:`, not a digit first"))),
        );
        None
    }

    fn only_for_alerts(&mut self, fields: &Fields<'_>) {
        for key in ALERT_KEYS {
            if let Some((at, _)) = fields.get(key) {
                self.fault(
                    TextFault::new(*at, format!("recording rule has `{key}`, which only an alert can have"))
                        .hint(Some(format!("remove `{key}`"))),
                );
            }
        }
    }

    /// Labels to add, with checked names.
    fn labels<'i>(&mut self, fields: &Fields<'i>) -> Vec<(String, &'i Item)> {
        let pairs = self.pairs(fields.get("labels").map(|(_, item)| *item), "labels");
        pairs.into_iter().filter(|(name, _)| name != METRIC_NAME).collect()
    }

    fn templates(&mut self, pairs: Vec<(String, &Item)>) -> BTreeMap<String, Template> {
        let mut templates = BTreeMap::new();
        for (name, item) in pairs {
            let text = if let Node::Text(text) = &item.node { text.as_str() } else { "" };
            match Template::parse(text) {
                Ok(template) => {
                    templates.insert(name, template);
                }
                Err(fault) => self.inside(item, fault),
            }
        }
        templates
    }
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
