//! Which command takes which of the common flags, in which forms it answers, which documents it prints,
//! and its examples: one row a command. What makes no sense for a command is refused and says why; a
//! default from the environment that makes no sense is left out. Pure.

use clap::ArgMatches;
use clap::parser::ValueSource;
use diarwatch_shared::exit::Exit;

use super::common::{Common, Form};
use crate::cli::ask::Trouble;

/// One command.
#[derive(Clone, Copy, Debug)]
pub(super) struct Leaf {
    /// Its words after `diarwatch`.
    pub(super) words: &'static str,
    /// How it answers.
    forms: &'static [Form],
    /// The common flags that mean something to it; `output` and `json` follow from the forms.
    takes: &'static [&'static str],
    /// Kinds of the documents that it prints.
    pub(super) kinds: &'static [&'static str],
    /// Command lines and what they are for.
    pub(super) examples: &'static [(&'static str, &'static str)],
}

const ALL: &[Form] = &[Form::Table, Form::Wide, Form::Json, Form::Ndjson, Form::Csv];
const SCREEN: &[Form] = &[Form::Table, Form::Wide, Form::Json, Form::Ndjson];
const LINES: &[Form] = &[Form::Table, Form::Wide, Form::Ndjson, Form::Csv];
const TEXT: &[Form] = &[Form::Table, Form::Json];
const ONE: &[Form] = &[Form::Table];

const NOW: &[&str] = &["socket", "timeout", "watch", "lang", "tz", "color"];
const ASKS: &[&str] = &["socket", "timeout", "lang", "tz", "color"];
const ORDERS: &[&str] = &["socket", "timeout", "lang", "color", "fleet", "aggregator"];
const PAST: &[&str] = &["socket", "timeout", "since", "lang", "tz", "color"];
const ANYWHERE: &[&str] = &["socket", "timeout", "watch", "lang", "tz", "color", "fleet", "aggregator"];
const FLEET: &[&str] = &["timeout", "watch", "lang", "tz", "color", "fleet", "aggregator"];

/// Every command.
pub(super) const LEAVES: &[Leaf] = &[
    Leaf {
        words: "status",
        forms: SCREEN,
        takes: ANYWHERE,
        kinds: &["status", "fleet_status"],
        examples: &[
            ("diarwatch", "One screen of this node: what is wrong comes first."),
            (
                "diarwatch status --exit-code",
                "The same for a script: 0 well, 1 warning, 2 critical, 3 not known yet.",
            ),
            ("diarwatch status --json", "Everything that the agent knows, as one document."),
        ],
    },
    Leaf {
        words: "top",
        forms: ONE,
        takes: &["socket", "timeout", "lang", "tz", "color"],
        kinds: &[],
        examples: &[("diarwatch top", "Live, until `q`.")],
    },
    Leaf {
        words: "gpu",
        forms: ALL,
        takes: NOW,
        kinds: &["gpus", "gpu"],
        examples: &[
            ("diarwatch gpu", "The GPUs of this node."),
            ("diarwatch gpu 0", "One of them, by index or by the begin of its UUID."),
            ("diarwatch gpu -o csv", "For a spreadsheet: base units, the unit in the column's name."),
        ],
    },
    Leaf {
        words: "gpu list",
        forms: ALL,
        takes: NOW,
        kinds: &["gpus", "gpu"],
        examples: &[("diarwatch gpu list -o ndjson", "One document a GPU.")],
    },
    Leaf {
        words: "gpu show",
        forms: ALL,
        takes: NOW,
        kinds: &["gpu"],
        examples: &[("diarwatch gpu show 0 --json", "One GPU as a document.")],
    },
    Leaf {
        words: "worker",
        forms: ALL,
        takes: NOW,
        kinds: &["workers", "worker"],
        examples: &[("diarwatch worker", "The workers of this node.")],
    },
    Leaf {
        words: "worker list",
        forms: ALL,
        takes: NOW,
        kinds: &["workers", "worker"],
        examples: &[(
            "diarwatch worker list -o wide",
            "With process, last probe and how the last process ended.",
        )],
    },
    Leaf {
        words: "worker show",
        forms: ALL,
        takes: NOW,
        kinds: &["worker"],
        examples: &[("diarwatch worker show pyannote-1", "All that is known of one worker.")],
    },
    Leaf {
        words: "worker history",
        forms: ALL,
        takes: PAST,
        kinds: &["events", "event"],
        examples: &[
            ("diarwatch worker history", "Starts, ends and recoveries of all workers."),
            ("diarwatch worker history pyannote-1 --since 1h", "Those of one worker in the last hour."),
            (
                "diarwatch worker history pyannote-1 --evidence",
                "With all that was kept of the end of each process.",
            ),
        ],
    },
    Leaf {
        words: "worker why",
        forms: SCREEN,
        takes: NOW,
        kinds: &["why"],
        examples: &[("diarwatch worker why pyannote-1", "The same as `diarwatch why pyannote-1`.")],
    },
    Leaf {
        words: "worker restart",
        forms: ALL,
        takes: ORDERS,
        kinds: &["order"],
        examples: &[
            (
                "diarwatch worker restart pyannote-1 --yes --reason 'new model'",
                "Waits for its jobs, stops it, starts it again; who wanted it and why is an event.",
            ),
            (
                "diarwatch worker restart pyannote-1 --yes --wait --timeout 5m",
                "The same, and ends when it is ready again.",
            ),
        ],
    },
    Leaf {
        words: "worker drain",
        forms: ALL,
        takes: ORDERS,
        kinds: &["order"],
        examples: &[(
            "diarwatch worker drain pyannote-1",
            "Takes it out of its balancer, as [worker.stop] take_out says; it goes on running.",
        )],
    },
    Leaf {
        words: "worker resume",
        forms: ALL,
        takes: ORDERS,
        kinds: &["order"],
        examples: &[("diarwatch worker resume pyannote-1", "Puts it back after a drain.")],
    },
    Leaf {
        words: "worker hold",
        forms: ALL,
        takes: ORDERS,
        kinds: &["order"],
        examples: &[(
            "diarwatch worker hold pyannote-1 --reason 'debugging'",
            "From now on the agent neither stops nor starts it, until it is released.",
        )],
    },
    Leaf {
        words: "worker release",
        forms: ALL,
        takes: ORDERS,
        kinds: &["order"],
        examples: &[("diarwatch worker release pyannote-1", "The agent looks after it again.")],
    },
    Leaf {
        words: "why",
        forms: SCREEN,
        takes: NOW,
        kinds: &["why"],
        examples: &[
            ("diarwatch why pyannote-1", "What is seen of it, what was decided and why, what comes next."),
            ("diarwatch why pyannote-1 --lang ja", "In Japanese."),
        ],
    },
    Leaf {
        words: "queue",
        forms: ALL,
        takes: NOW,
        kinds: &["queues", "queue"],
        examples: &[("diarwatch queue", "What waits, what is worked on, and when nothing waits any more.")],
    },
    Leaf {
        words: "events",
        forms: ALL,
        takes: PAST,
        kinds: &["events", "event"],
        examples: &[
            ("diarwatch events --since 1h", "What happened on this node in the last hour."),
            ("diarwatch events --follow -o ndjson", "What happens, as it happens, one document a line."),
        ],
    },
    Leaf {
        words: "tail",
        forms: LINES,
        takes: ASKS,
        kinds: &["sample"],
        examples: &[
            ("diarwatch tail gpu_power_watts --for 1s", "Samples as they are taken, for a second."),
            (
                "diarwatch tail 'gpu_utilization_ratio{gpu=\"0\"}' --rate 1 --for 1s -o csv",
                "One sample a second of one GPU.",
            ),
        ],
    },
    Leaf {
        words: "nodes",
        forms: ALL,
        takes: FLEET,
        kinds: &["nodes", "node"],
        examples: &[("diarwatch nodes", "The nodes that the aggregator knows, and whether they send.")],
    },
    Leaf {
        words: "alerts",
        forms: ALL,
        takes: FLEET,
        kinds: &["alerts", "alert"],
        examples: &[("diarwatch alerts", "What is firing or about to, over all nodes.")],
    },
    Leaf {
        words: "doctor",
        forms: ALL,
        takes: &["socket", "timeout", "lang", "tz", "color", "aggregator"],
        kinds: &["doctor", "doctor_check"],
        examples: &[("diarwatch doctor", "What is wrong on this node, and how to mend it.")],
    },
    Leaf {
        words: "config check",
        forms: TEXT,
        takes: &[],
        kinds: &["config_check"],
        examples: &[(
            "diarwatch config check /etc/diarwatch/agent.toml",
            "Whether a file would be accepted.",
        )],
    },
    Leaf {
        words: "config show",
        forms: ALL,
        takes: ASKS,
        kinds: &["config", "setting"],
        examples: &[
            ("diarwatch config show --origin", "What is in effect, and which line of the file says so."),
            ("diarwatch config show --file agent.toml", "What a file would bring; asks no agent."),
        ],
    },
    Leaf {
        words: "config init",
        forms: ONE,
        takes: &[],
        kinds: &[],
        examples: &[(
            "diarwatch config init new.toml",
            "A commented configuration to start from; nothing is overwritten.",
        )],
    },
    Leaf {
        words: "completion",
        forms: ONE,
        takes: &[],
        kinds: &[],
        examples: &[("diarwatch completion bash", "For /usr/share/bash-completion/completions/diarwatch.")],
    },
    Leaf {
        words: "man",
        forms: ONE,
        takes: &[],
        kinds: &[],
        examples: &[
            ("diarwatch man", "This page, for `man -l -`."),
            ("diarwatch man --directory man1", "A page for every command."),
        ],
    },
    Leaf {
        words: "schema",
        forms: ONE,
        takes: &[],
        kinds: &[],
        examples: &[
            ("diarwatch schema", "The kinds of documents."),
            ("diarwatch schema status", "The JSON Schema of one kind."),
        ],
    },
];

/// The row of a command.
pub(super) fn leaf(words: &str) -> Option<&'static Leaf> {
    LEAVES.iter().find(|leaf| leaf.words == words)
}

/// The words of the command that was typed; `status` when none was.
pub(super) fn words(matches: &ArgMatches) -> String {
    let mut words = Vec::new();
    let mut level = matches;
    while let Some((word, inner)) = level.subcommand() {
        words.push(word);
        level = inner;
    }
    if words.is_empty() { "status".to_owned() } else { words.join(" ") }
}

/// Refuses what the command does not take, and drops such defaults of the environment.
pub(super) fn check(leaf: &Leaf, matches: &ArgMatches, common: &mut Common) -> Result<(), Trouble> {
    let typed = |flag: &str| matches.value_source(flag) == Some(ValueSource::CommandLine);
    if typed("json") && typed("output") && common.output != Form::Json {
        return Err(refuse(leaf, "json", "`--output` asks for another form"));
    }
    common.timeout_given =
        matches!(matches.value_source("timeout"), Some(ValueSource::CommandLine | ValueSource::EnvVariable));
    let form = common.form();
    if !leaf.forms.contains(&form) {
        if typed("json") || typed("output") {
            let flag = if typed("json") { "json" } else { "output" };
            return Err(refuse(leaf, flag, &other_forms(leaf)));
        }
        common.output = Form::Table;
    }
    let flags = ["socket", "timeout", "watch", "since", "lang", "tz", "color", "fleet", "aggregator"];
    for flag in flags {
        if typed(flag) && !leaf.takes.contains(&flag) {
            return Err(refuse(leaf, flag, why_not(leaf, flag)));
        }
    }
    if common.fleet && typed("socket") {
        return Err(refuse(leaf, "socket", "`--fleet` asks the aggregator, not this node's agent"));
    }
    // A command that may ask either one asks the agent unless it is told.
    if typed("aggregator") && leaf.takes.contains(&"socket") && leaf.takes.contains(&"fleet") && !common.fleet
    {
        return Err(refuse(leaf, "aggregator", "it asks this node's agent; add `--fleet`"));
    }
    Ok(())
}

fn refuse(leaf: &Leaf, flag: &str, why: &str) -> Trouble {
    let problem = format!("`--{flag}` does not go with `diarwatch {}`: {why}", leaf.words);
    Trouble::new(Exit::Usage, problem, format!("diarwatch {} --help", leaf.words))
}

fn other_forms(leaf: &Leaf) -> String {
    let names: Vec<String> = leaf.forms.iter().map(|form| format!("{form:?}").to_lowercase()).collect();
    match names.as_slice() {
        [_] => "it prints text only".to_owned(),
        names => format!("its forms are {}", names.join(", ")),
    }
}

fn why_not(leaf: &Leaf, flag: &str) -> &'static str {
    let asks = leaf.takes.contains(&"timeout");
    match flag {
        "socket" if asks => "it asks the aggregator",
        "socket" => "it asks no agent",
        "timeout" => "it asks nobody, so nothing can take long",
        "watch" if ["events", "worker history"].contains(&leaf.words) => {
            "it is about the past; see `diarwatch events --follow`"
        }
        "watch" if ["top", "tail"].contains(&leaf.words) => "it is live already",
        "watch" if leaf.kinds == ["order"] => "it is done once; see `diarwatch why NAME --watch`",
        "watch" => "it looks once",
        "since" if leaf.words == "tail" => "it shows what is taken from now on",
        "since" => "it is about now, not about the past",
        "fleet" | "aggregator" => "it is about this node only",
        "lang" => "its text is English only",
        "tz" => "it shows no times",
        _ => "it has no colours",
    }
}

#[cfg(test)]
mod tests {
    use super::super::schema;
    use super::*;
    use clap::{CommandFactory, FromArgMatches};

    /// Commands that print no document, each with its reason.
    const WITHOUT_DOCUMENT: [(&str, &str); 5] = [
        ("top", "a live screen"),
        ("config init", "a TOML file"),
        ("completion", "a script of a shell"),
        ("man", "a manual page"),
        ("schema", "is a JSON Schema itself"),
    ];

    /// Commands that can be typed: those without words below them, and groups that do something themselves.
    fn typed(command: &clap::Command, path: &str, found: &mut Vec<String>) {
        for inner in command.get_subcommands().filter(|inner| inner.get_name() != "help") {
            let words = format!("{path} {}", inner.get_name()).trim().to_owned();
            if !inner.has_subcommands() || !inner.is_subcommand_required_set() {
                found.push(words.clone());
            }
            typed(inner, &words, found);
        }
    }

    #[test]
    fn every_command_prints_documents_with_a_schema_or_says_why_not() {
        let mut found = Vec::new();
        typed(&super::super::Arguments::command(), "", &mut found);
        assert!(found.len() >= 20, "{found:?}");
        for words in &found {
            let leaf = leaf(words).unwrap_or_else(|| panic!("`{words}` has no row in grammar.rs"));
            let excused = WITHOUT_DOCUMENT.iter().any(|(known, _)| known == words);
            assert_eq!(
                leaf.kinds.is_empty(),
                excused,
                "`{words}`: name the kinds of its documents, or the reason"
            );
            assert_eq!(
                leaf.forms.contains(&Form::Json) || leaf.forms.contains(&Form::Ndjson),
                !excused,
                "`{words}`"
            );
            for kind in leaf.kinds {
                assert!(schema::of(kind).is_some(), "`{words}`: no schema for kind `{kind}`");
            }
        }
        for leaf in LEAVES {
            assert!(found.iter().any(|words| words == leaf.words), "`{}` is no command", leaf.words);
        }
    }

    fn parse(line: &str) -> Result<Common, Trouble> {
        let matches = super::super::Arguments::command().get_matches_from(line.split(' '));
        let mut common = super::super::Arguments::from_arg_matches(&matches).unwrap().common;
        let leaf = leaf(&words(&matches)).unwrap();
        check(leaf, &matches, &mut common).map(|()| common)
    }

    #[test]
    fn what_makes_no_sense_is_refused_and_says_why() {
        for (line, why) in [
            ("diarwatch status -o csv", "table, wide, json, ndjson"),
            ("diarwatch completion bash --json", "text only"),
            ("diarwatch events -w", "--follow"),
            ("diarwatch top -w", "live already"),
            ("diarwatch gpu --since 1h", "about now"),
            ("diarwatch worker hold w -w", "done once"),
            ("diarwatch why w -o csv", "table, wide, json, ndjson"),
            ("diarwatch gpu --fleet", "this node only"),
            ("diarwatch nodes --socket x", "asks the aggregator"),
            ("diarwatch status --fleet --socket x", "asks the aggregator"),
            ("diarwatch status --aggregator http://x", "add `--fleet`"),
            ("diarwatch config check --timeout 1s", "asks nobody"),
            ("diarwatch man --color never", "no colours"),
            ("diarwatch gpu --json -o csv", "another form"),
            ("diarwatch --since 1h", "about now"),
        ] {
            let trouble = parse(line).unwrap_err();
            assert_eq!(trouble.exit, Exit::Usage);
            assert!(trouble.problem.contains(why) && trouble.hint.is_some(), "{line}: {trouble:?}");
        }
    }

    #[test]
    fn a_flag_means_the_same_before_and_after_the_command() {
        for line in
            ["diarwatch --json -w=5 gpu", "diarwatch gpu --json -w=5", "diarwatch gpu list -o json --watch=5"]
        {
            let common = parse(line).unwrap();
            assert_eq!((common.form(), common.watch), (Form::Json, Some(5.0)), "{line}");
        }
        assert_eq!(parse("diarwatch -w").unwrap().watch, Some(2.0));
        assert!(parse("diarwatch status --fleet --aggregator http://x").unwrap().fleet);
        assert!(parse("diarwatch nodes --aggregator http://x").is_ok());
    }
}
