//! The list of checks; a file for each subject. A check takes the lab, boots what it needs, and gives why
//! it failed. Its name is a statement about the product, or about the ground that other checks stand on.

mod agent;
mod engine;
mod systemd;

use std::fmt::Debug;
use std::fs;

use crate::lab::Lab;

/// A check by its name.
pub(crate) struct Check {
    pub(crate) name: &'static str,
    pub(crate) run: fn(&Lab) -> Result<(), String>,
}

/// Names each function by itself.
macro_rules! checks {
    ($($module:ident::$function:ident),* $(,)?) => {
        vec![$(Check { name: stringify!($function), run: $module::$function }),*]
    };
}

/// Every check; the longest first.
pub(crate) fn all() -> Vec<Check> {
    checks![
        agent::an_agent_without_root_answers_in_a_node,
        systemd::an_unprivileged_user_restarts_exactly_the_unit_that_a_rule_names,
        systemd::what_oomd_kills_is_an_oom_kill,
        systemd::a_unit_over_its_memory_is_killed_by_the_kernel,
        systemd::nodes_reach_each_other_and_the_lab,
        engine::a_container_that_is_killed_is_seen_as_exited_with_137,
        engine::a_container_over_its_memory_is_seen_as_killed_for_it,
    ]
}

/// Fails when a check expected something else.
pub(crate) fn same<T: PartialEq + Debug + ?Sized>(what: &str, seen: &T, expected: &T) -> Result<(), String> {
    if seen == expected { Ok(()) } else { Err(format!("{what}: expected {expected:?}, seen {seen:?}")) }
}

/// After all nodes and engines ended: no process but this one, no mount of theirs, no network.
pub(crate) fn nothing_is_left() -> Result<(), String> {
    let entries = fs::read_dir("/proc").map_err(|error| error.to_string())?.filter_map(Result::ok);
    let ids =
        entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()).filter(|id| *id > 1);
    // Without a command line: one that ended and that nobody waited for.
    let lines = ids.filter_map(|id| fs::read_to_string(format!("/proc/{id}/cmdline")).ok());
    let mut left: Vec<String> =
        lines.filter(|line| !line.is_empty()).map(|line| line.replace('\0', " ")).collect();
    let mounts = fs::read_to_string("/proc/self/mounts").map_err(|error| error.to_string())?;
    left.extend(mounts.lines().filter(|line| line.contains("/run/lab/")).map(str::to_owned));
    let networks = fs::read_dir("/run/netns").into_iter().flatten().filter_map(Result::ok);
    left.extend(networks.map(|entry| format!("network {}", entry.file_name().display())));
    if left.is_empty() { Ok(()) } else { Err(left.join("; ")) }
}
