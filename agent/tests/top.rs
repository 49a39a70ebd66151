//! `diarwatch top` in a real terminal, over a real agent: it shows what the agent says, at every size,
//! says so when the agent is gone, and leaves the terminal as it was.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "helpers of a test")]

mod common;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::Duration;

use common::tmux::Terminal;
use common::{Agent, NODE, Node, diarwatch, lives, pid_of, until};
use diarwatch_agent::proc_text::TICKS_PER_SECOND;
use diarwatch_shared::clock;
use rustix::process::{Signal, kill_process};

const VARYING: &str = "gpus = 2\ngpu.0.util = sine(5,95,2)\ngpu.0.power_mw = 61000\ngpu.1.util = 40\ngpu.1.temp = unsupported\n";

/// A node with two GPUs and a worker that is always ready.
fn node() -> Node {
    let mut node = Node::new().with_gpus(VARYING);
    node.more = format!(
        "[gpu]\n\n[[worker]]\nname = \"pyannote-1\"\nservice = \"pyannote-1\"\ndriver = \"child\"\n\
         command = [\"/bin/sh\", \"-c\", \"exec sleep 1000\"]\n\n[worker.readiness]\nurl = \"{}\"\n\
         interval = \"100ms\"\njson_pointer = \"/status\"\nequals = \"ready\"\n",
        ready()
    );
    node
}

/// An address that answers `ready` until the test ends.
fn ready() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/ready", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            drop(stream.read(&mut [0; 2048]));
            let body = r#"{"status":"ready"}"#;
            let head =
                format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
            drop(stream.write_all(format!("{head}{body}").as_bytes()));
        }
    });
    url
}

/// The command line, and the exit number behind it.
fn top(node: &Node, more: &str) -> String {
    let socket = node.socket.display();
    format!("{} top --socket {socket} {more}; echo exit=$?", env!("CARGO_BIN_EXE_diarwatch"))
}

fn shows_everything(screen: &str) -> bool {
    [NODE, "SIMULATED", "GeForce R", "● pyannote-1", "61 W", "q quit"]
        .iter()
        .all(|words| screen.contains(words))
}

/// Waits until the command is over, and looks whether the terminal is as it was.
#[track_caller]
fn left_clean(terminal: &Terminal, exit: i32) -> String {
    // What was typed has `exit=` too.
    let ended =
        |screen: &str| screen.split("exit=").any(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    let screen = terminal.sees("the exit number", ended);
    assert!(screen.contains(&format!("exit={exit}\n")), "{screen}");
    assert_eq!((terminal.fact("alternate_on"), terminal.fact("cursor_flag")), ("0".into(), "1".into()));
    terminal.types("clear; stty -a");
    let modes = terminal.sees("the terminal's modes", |screen| screen.contains("echoctl"));
    for mode in ["icanon", "echo", "isig", "icrnl", "opost"] {
        assert!(modes.split_whitespace().any(|word| word == mode), "{mode}:\n{modes}");
    }
    screen
}

#[test]
fn a_node_is_shown_at_every_size_and_q_leaves_a_clean_terminal() {
    let Some(terminal) = Terminal::open() else { return };
    let node = node();
    let agent = node.run();
    terminal.types("clear");
    terminal.types(&top(&node, "--lang en"));
    let screen = terminal.sees("everything", shows_everything);
    assert!(screen.contains("— No data: Temp 1 (not_supported)"), "{screen}");
    assert!(screen.contains("▲ Warning"), "no aggregator is there: {screen}");
    for (columns, rows) in [(120, 40), (60, 16), (80, 24)] {
        terminal.resize(columns, rows);
        let screen = terminal.sees("everything at another size", |screen| {
            let lines = screen.lines().count();
            shows_everything(screen) && lines == usize::from(rows) && at_the_bottom(screen)
        });
        let footers = screen.matches("q quit").count();
        assert_eq!(footers, 1, "nothing of the old picture is left:\n{screen}");
    }
    terminal.resize(40, 10);
    terminal.sees("what it needs", |screen| screen.contains("60x16"));
    terminal.resize(80, 24);
    terminal.sees("everything again", shows_everything);
    terminal.press("e");
    terminal.press("Enter");
    terminal
        .sees("the events alone", |screen| screen.contains("Agent started") && !screen.contains("GeForce"));
    terminal.press("Enter");
    terminal.sees("everything", shows_everything);
    terminal.press("q");
    left_clean(&terminal, 0);
    drop(agent);
}

fn at_the_bottom(screen: &str) -> bool {
    screen.lines().last().is_some_and(|line| line.starts_with("q quit"))
}

/// The line of the chosen GPU's utilisation, its blocks alone.
fn line_of_gpu_0(screen: &str) -> String {
    let of = |line: &&str| line.contains("GPU 0 使用率") || line.contains("GPU 0 Utilisation");
    let found = screen.lines().find(of).unwrap_or_default();
    found.chars().filter(|c| ('▁'..='█').contains(c)).collect()
}

#[test]
fn lines_move_with_the_values_of_the_gpu() {
    let Some(terminal) = Terminal::open() else { return };
    let node = node();
    let _agent = node.run();
    terminal.types(&top(&node, "--lang ja"));
    let line = line_of_gpu_0;
    let different = |line: &str| line.chars().collect::<std::collections::BTreeSet<_>>().len();
    let first = terminal.sees("a line with ups and downs", |screen| different(&line(screen)) >= 4);
    terminal.sees("the line moved", |screen| {
        line(screen) != line(&first) && line(screen).len() >= line(&first).len()
    });
    terminal.press("Space");
    let held = terminal.sees("the pause", |screen| screen.contains("一時停止中"));
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(line(&terminal.screen()), line(&held), "a pause holds the picture");
    terminal.press("Space");
    terminal.sees("the line moves again", |screen| line(screen) != line(&held));
    terminal.press("?");
    terminal.sees("the help", |screen| screen.contains("どのキーでも戻ります"));
    terminal.press("x");
    terminal.sees("no help", |screen| !screen.contains("どのキーでも戻ります"));
    terminal.press("C-c");
    left_clean(&terminal, 0);
}

#[test]
fn an_agent_that_is_gone_is_told_and_its_values_come_back_by_themselves() {
    let Some(terminal) = Terminal::open() else { return };
    let node = node();
    let agent = node.run();
    terminal.types(&top(&node, "--lang en"));
    terminal.sees("everything", shows_everything);
    drop(agent);
    let gone = terminal.sees("the silence", |screen| screen.contains("The agent does not answer for"));
    assert!(gone.contains("GeForce") && gone.contains("61 W"), "old values stay:\n{gone}");
    assert!(gone.contains("old values") && gone.contains("no agent answers at"), "{gone}");
    let agent = node.run();
    let back = terminal.sees("values", |screen| shows_everything(screen) && !screen.contains("old values"));
    assert!(back.contains("● Ready") || back.contains("Ready"), "{back}");

    agent.signal(Signal::STOP);
    terminal.sees("that it hangs", |screen| screen.contains("The agent does not answer for"));
    terminal.press("?");
    terminal.sees("keys work meanwhile", |screen| screen.contains("any key goes back"));
    terminal.press("?");
    agent.signal(Signal::CONT);
    terminal.sees("values again", |screen| shows_everything(screen) && !screen.contains("old values"));
    terminal.press("Escape");
    left_clean(&terminal, 0);
}

#[test]
fn a_worker_that_is_killed_is_seen_and_a_terminal_that_is_gone_leaves_nothing_behind() {
    let Some(terminal) = Terminal::open() else { return };
    let node = node();
    let agent = node.run();
    let pid = agent.until("the worker is ready", |status| {
        let worker = &status["workers"][0];
        worker["pid"].as_u64().filter(|_| worker["ready"] == true)
    });
    terminal.types(&top(&node, "--lang en"));
    terminal.sees("its process", |screen| screen.contains(&pid.to_string()));
    kill_process(pid_of(u32::try_from(pid).unwrap()), Signal::KILL).unwrap();
    let screen = terminal.sees("its end", |screen| screen.contains("■ Worker exited"));
    assert!(screen.contains("signal 9"), "{screen}");
    terminal.sees("its return", |screen| {
        let row = screen.lines().find(|line| line.contains("● pyannote-1")).unwrap_or_default();
        row.contains("Ready") && !row.contains(&pid.to_string()) && row.contains(" 1 ")
    });
    let process = terminal.process();
    drop(terminal);
    until("it ends with its terminal", || (!lives(process)).then_some(()));
}

#[test]
fn a_signal_and_a_suspension_leave_a_clean_terminal() {
    let Some(terminal) = Terminal::open() else { return };
    let node = node();
    let _agent = node.run();
    let line = top(&node, "--lang en");
    terminal.types(&line);
    terminal.sees("everything", shows_everything);
    terminal.press("C-z");
    terminal.sees("the shell", |screen| screen.contains("Stopped") || screen.contains("Suspended"));
    assert_eq!((terminal.fact("alternate_on"), terminal.fact("cursor_flag")), ("0".into(), "1".into()));
    terminal.types("clear; fg; echo exit=$?");
    terminal.sees("everything again", |screen| shows_everything(screen) && at_the_bottom(screen));
    kill_process(pid_of(terminal.process()), Signal::TERM).unwrap();
    left_clean(&terminal, 0);
}

#[test]
fn where_there_is_no_terminal_it_says_what_to_type_instead() {
    let node = node();
    let output = diarwatch(&["top", "--socket", &node.socket.display().to_string()]);
    let talk = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(64), "{talk}");
    assert!(output.stdout.is_empty() && talk.contains("try: diarwatch status --watch"), "{talk}");

    let Some(terminal) = Terminal::open() else { return };
    terminal.types(&format!("TERM=dumb {}", top(&node, "")));
    let screen = left_clean(&terminal, 64);
    assert!(screen.contains("try: diarwatch status --watch"), "{screen}");
    terminal.types("clear");
    terminal.sees("a clear screen", |screen| !screen.contains("echoctl"));
    terminal.types(&top(&node, "--lang en"));
    let screen = left_clean(&terminal, 69);
    assert!(screen.contains("no agent answers") && screen.contains("try: systemctl status"), "{screen}");
}

#[test]
fn without_colours_none_are_sent() {
    let Some(terminal) = Terminal::open() else { return };
    let node = node();
    let _agent = node.run();
    let file = node.path("sent");
    let sent = |line: &str| {
        terminal.types("clear");
        terminal.pipe(Some(&file));
        terminal.types(line);
        terminal.sees("everything", shows_everything);
        terminal.press("q");
        terminal.sees("the exit number", |screen| screen.contains("exit=0"));
        terminal.pipe(None);
        until("what was sent is kept", || std::fs::read_to_string(&file).ok().filter(|text| !text.is_empty()))
    };
    let colours = ["\u{1b}[31m", "\u{1b}[33m", "\u{1b}[38;5;"];
    let plain = sent(&format!("NO_COLOR=1 {}", top(&node, "--lang en")));
    assert!(!colours.iter().any(|colour| plain.contains(colour)), "{plain:?}");
    let coloured = sent(&format!("NO_COLOR=1 {}", top(&node, "--lang en --color always")));
    assert!(colours.iter().any(|colour| coloured.contains(colour)), "{coloured:?}");
}

/// CPU seconds that a process has used.
fn cpu_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let ticks = fields.split_whitespace().skip(11).take(2);
    ticks.map(|field| field.parse::<f64>().unwrap()).sum::<f64>() / TICKS_PER_SECOND
}

/// The part of a core that it used over three seconds, in percent.
fn percent_of_a_core(cpu: impl Fn() -> f64) -> f64 {
    let (before, at) = (cpu(), clock::uptime());
    std::thread::sleep(Duration::from_secs(3));
    (cpu() - before) / (clock::uptime() - at).as_secs_f64() * 100.0
}

#[test]
fn what_it_costs_is_told() {
    let Some(terminal) = Terminal::open() else { return };
    let node = node();
    let agent: Agent = node.run();
    let alone = percent_of_a_core(|| cpu_seconds(agent.pid()));
    terminal.types(&top(&node, "--lang en"));
    terminal.sees("everything", shows_everything);
    let process = terminal.process();
    let watched = percent_of_a_core(|| cpu_seconds(agent.pid()));
    let own = percent_of_a_core(|| cpu_seconds(process));
    let end = clock::uptime() + Duration::from_secs(1);
    let mut pictures = std::collections::BTreeSet::new();
    while clock::uptime() < end {
        pictures.insert(line_of_gpu_0(&terminal.screen()));
    }
    terminal.press("q");
    left_clean(&terminal, 0);
    println!(
        "top: {own:.1} % of a core at {} pictures a second; agent: {watched:.1} % while top runs, {alone:.1} % \
         without (dev build)",
        pictures.len()
    );
}
