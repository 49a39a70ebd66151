//! `diarwatch man` and `diarwatch completion`: what packages ship, made from the command tree itself, so
//! that it cannot tell of another command than this one.

use std::io;
use std::path::{Path, PathBuf};

use clap::{Args, Command};
use clap_complete::Shell;
use clap_mangen::Man;
use diarwatch_shared::exit::Exit;

use super::grammar;
use super::output::put;
use crate::cli::ask::Trouble;

/// Flags of `completion`.
#[derive(Debug, Args)]
pub(super) struct CompletionOptions {
    /// The shell.
    shell: Shell,
}

/// Flags of `man`.
#[derive(Debug, Args)]
pub(super) struct ManOptions {
    /// Write a page for every command into this directory.
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
}

/// Adds to the command tree what is known of it: examples and the exit numbers.
pub(super) fn explained(command: Command) -> Command {
    let exits = format!("{}\n\n{}", examples("status"), exit_table());
    explain_below(command.after_help(examples("status")).after_long_help(exits), "")
}

fn explain_below(mut command: Command, path: &str) -> Command {
    let names: Vec<String> = command.get_subcommands().map(|inner| inner.get_name().to_owned()).collect();
    for name in names {
        let words = format!("{path} {name}").trim().to_owned();
        command = command.mut_subcommand(&name, |inner| {
            let inner = explain_below(inner, &words);
            let text = examples(&words);
            if text.is_empty() { inner } else { inner.after_help(text) }
        });
    }
    command
}

fn examples(words: &str) -> String {
    let known = grammar::leaf(words).map(|leaf| leaf.examples).unwrap_or_default();
    let mut text = String::new();
    for (at, (line, what)) in known.iter().enumerate() {
        let head = if at == 0 { "Examples:\n" } else { "\n" };
        text.push_str(&format!("{head}  {line}\n          {what}"));
    }
    match grammar::leaf(words).map(|leaf| leaf.kinds) {
        Some(kinds) if !kinds.is_empty() => format!("{text}\n\n{}", documents(kinds)).trim().to_owned(),
        _ => text,
    }
}

/// Which documents a command prints as JSON.
fn documents(kinds: &[&str]) -> String {
    let kinds: Vec<String> = kinds.iter().map(|kind| format!("`{kind}`")).collect();
    format!("Prints documents of these kinds: {}; `diarwatch schema KIND` describes each.", kinds.join(", "))
}

fn exit_table() -> String {
    let rows = Exit::ALL.iter().map(|(exit, meaning)| format!("  {:>3}  {meaning}", *exit as u8));
    format!("Exit status:\n{}", rows.collect::<Vec<_>>().join("\n"))
}

/// Runs `completion`.
pub(super) fn completion(options: &CompletionOptions, mut command: Command) -> Exit {
    let mut script = Vec::new();
    clap_complete::generate(options.shell, &mut command, "diarwatch", &mut script);
    put(&String::from_utf8_lossy(&script));
    Exit::Ok
}

/// Runs `man`.
pub(super) fn man(options: &ManOptions, mut command: Command) -> Exit {
    command.build();
    let Some(directory) = &options.directory else {
        let page = page(&command, "status").unwrap_or_default();
        put(&String::from_utf8_lossy(&page));
        return Exit::Ok;
    };
    let written = std::fs::create_dir_all(directory).and_then(|()| write_pages(directory, &command, ""));
    match written {
        Ok(()) => Exit::Ok,
        Err(error) => {
            let problem = format!("{}: {error}", directory.display());
            Trouble::new(Exit::Temporary, problem, "diarwatch man --directory ./man1").tell()
        }
    }
}

fn write_pages(directory: &Path, command: &Command, words: &str) -> io::Result<()> {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name());
    std::fs::write(
        directory.join(format!("{name}.1")),
        page(command, if words.is_empty() { "status" } else { words })?,
    )?;
    for inner in command.get_subcommands().filter(|inner| inner.get_name() != "help" && !inner.is_hide_set())
    {
        write_pages(directory, inner, format!("{words} {}", inner.get_name()).trim())?;
    }
    Ok(())
}

/// The page of one command; `words` name its row in the grammar.
fn page(command: &Command, words: &str) -> io::Result<Vec<u8>> {
    let man = Man::new(command.clone()).manual("diarwatch");
    let mut out = Vec::new();
    man.render_title(&mut out)?;
    man.render_name_section(&mut out)?;
    man.render_synopsis_section(&mut out)?;
    man.render_description_section(&mut out)?;
    man.render_options_section(&mut out)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut out)?;
    }
    let known = grammar::leaf(words).map(|leaf| leaf.examples).unwrap_or_default();
    let mut text = String::new();
    if !known.is_empty() {
        text.push_str(".SH EXAMPLES\n");
    }
    for (line, what) in known {
        text.push_str(&format!(".TP\n\\fB{}\\fR\n{}\n", roff(line), roff(what)));
    }
    let kinds = grammar::leaf(words).map(|leaf| leaf.kinds).unwrap_or_default();
    if !kinds.is_empty() {
        text.push_str(&format!(".SH DOCUMENTS\n{}\n", roff(&documents(kinds))));
    }
    text.push_str(".SH \"EXIT STATUS\"\n");
    for (exit, meaning) in Exit::ALL {
        text.push_str(&format!(".TP\n\\fB{}\\fR\n{}\n", exit as u8, roff(meaning)));
    }
    out.extend_from_slice(text.as_bytes());
    Ok(out)
}

/// A text in which nothing is a request of roff.
fn roff(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-").replace('\'', "\\(aq");
    if text.starts_with('.') { format!("\\&{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::super::Arguments;
    use super::*;
    use clap::CommandFactory;

    fn command() -> Command {
        explained(Arguments::command())
    }

    #[test]
    fn help_and_manual_have_the_one_table_of_exits() {
        let help = command().render_long_help().to_string();
        let mut built = command();
        built.build();
        let page = String::from_utf8(page(&built, "status").unwrap()).unwrap();
        for (exit, meaning) in Exit::ALL {
            assert!(help.contains(&format!("{:>3}  {meaning}", exit as u8)), "{help}");
            assert!(page.contains(&format!("\\fB{}\\fR\n{}", exit as u8, roff(meaning))), "{page}");
        }
    }

    #[test]
    fn every_command_has_an_example() {
        for leaf in grammar::LEAVES {
            assert!(!leaf.examples.is_empty(), "{}", leaf.words);
            for (line, _) in leaf.examples {
                assert!(line.starts_with("diarwatch"), "{line}");
            }
        }
    }

    #[test]
    fn no_line_of_a_page_is_a_request_by_accident() {
        assert_eq!(roff(".so x - 'y' \\z"), "\\&.so x \\- \\(aqy\\(aq \\ez");
    }
}
