//! The list of checks; a file for each subject. A check takes the lab, boots what it needs, and gives why
//! it failed. Its name is a statement about the product, or about the ground that other checks stand on.

mod agent;
mod containers;
mod drivers;
mod ends;
mod engine;
mod hangs;
mod jobs;
mod people;
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
        drivers::the_tests_of_the_driver_systemd_hold_in_a_node,
        drivers::the_tests_of_the_driver_docker_hold_beside_an_engine,
        hangs::a_worker_that_hangs_is_stopped_and_one_that_works_in_silence_is_not,
        hangs::a_worker_that_fell_to_its_cpu_counts_as_failed_and_is_started_again,
        hangs::a_wedged_driver_keeps_a_dead_gpu_worker_down_until_it_is_back,
        jobs::a_job_that_ended_two_workers_is_set_aside_and_each_end_has_its_evidence,
        people::a_restart_lets_a_server_end_its_accepted_jobs_and_send_their_callbacks,
        people::orders_of_root_are_obeyed_and_those_of_a_stranger_refused,
        people::an_agent_without_root_restarts_exactly_the_units_that_polkit_names,
        people::a_unit_stopped_by_hand_is_left_alone_and_adopted_when_it_is_started,
        agent::an_agent_killed_restarted_and_upgraded_touches_no_worker_and_adopts_each,
        ends::a_crash_loop_opens_the_breaker_which_says_when_it_tries_next_and_outlives_the_agent,
        ends::what_a_killed_worker_left_is_gone_before_its_next_start,
        ends::a_worker_that_exits_is_started_again_and_told,
        ends::a_worker_that_is_killed_for_memory_is_told_as_that,
        ends::a_worker_over_its_memory_limit_comes_back_and_says_why_where_the_kernel_tells,
        ends::systemds_own_restart_is_the_floor_while_no_agent_runs,
        containers::a_container_stopped_by_hand_is_left_alone_and_adopted_when_it_is_started,
        containers::an_engine_that_restarts_gets_its_worker_back,
        containers::a_container_that_outlives_its_engine_is_not_touched,
        containers::a_container_that_exits_or_is_killed_runs_again,
        containers::an_unhealthy_container_is_not_ready_until_its_check_is_well_again,
        containers::a_container_made_anew_under_its_name_is_adopted,
        containers::an_agent_that_starts_anew_beside_an_engine_touches_no_container,
        containers::a_container_over_its_memory_runs_again_and_is_told_as_that,
        drivers::the_test_of_the_driver_systemd_for_memory_holds_where_it_is_limited,
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
