//! Shape, word and colour of what is said on a terminal. Text carries its colour as marks of no width, so
//! that columns align; [`Paint::finish`] turns them into escape codes, or into nothing. What comes from
//! outside is cleaned first: nothing in a document can move the cursor. Pure.

use std::fmt::Write;

use anstyle::{AnsiColor, Style};
use diarwatch_shared::daemon::is_harmful;
use diarwatch_shared::texts::{Lang, Text};

use super::common::Colour;

/// What a text says by its colour; the words beside it say the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Tone {
    /// Nothing.
    #[default]
    Plain,
    /// As it should be.
    Good,
    /// A person should look.
    Warn,
    /// It does not work.
    Bad,
    /// Less important.
    Dim,
    /// A head.
    Strong,
}

/// Ends a tone. Characters of this row have no width and no business in a name.
const END: char = '\u{2060}';
const MARKS: [(Tone, char); 5] = [
    (Tone::Good, '\u{2061}'),
    (Tone::Warn, '\u{2062}'),
    (Tone::Bad, '\u{2063}'),
    (Tone::Dim, '\u{2064}'),
    (Tone::Strong, '\u{200b}'),
];

impl Tone {
    /// Cleans a text and marks it.
    pub(super) fn mark(self, text: &str) -> String {
        let text = clean(text);
        match MARKS.iter().find(|(tone, _)| *tone == self) {
            Some((_, mark)) => format!("{mark}{text}{END}"),
            None => text,
        }
    }

    fn style(self) -> Style {
        match self {
            Self::Plain => Style::new(),
            Self::Good => AnsiColor::Green.on_default(),
            Self::Warn => AnsiColor::Yellow.on_default(),
            Self::Bad => AnsiColor::Red.on_default().bold(),
            Self::Dim => Style::new().dimmed(),
            Self::Strong => Style::new().bold(),
        }
    }
}

/// How well something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    /// As it should be.
    Ok,
    /// Not known.
    Unknown,
    /// A person should look.
    Warning,
    /// It does not work.
    Critical,
}

impl Level {
    /// Its shape, the same as on the page.
    pub(super) fn shape(self) -> char {
        match self {
            Self::Ok => '●',
            Self::Warning => '▲',
            Self::Critical => '■',
            Self::Unknown => '○',
        }
    }

    /// Its colour.
    pub(super) fn tone(self) -> Tone {
        match self {
            Self::Ok => Tone::Good,
            Self::Warning => Tone::Warn,
            Self::Critical => Tone::Bad,
            Self::Unknown => Tone::Dim,
        }
    }

    /// Its own word.
    pub(super) fn word(self, lang: Lang) -> &'static str {
        let text = match self {
            Self::Ok => Text::Ok,
            Self::Warning => Text::Warning,
            Self::Critical => Text::Critical,
            Self::Unknown => Text::Unknown,
        };
        text.in_lang(lang)
    }

    /// Its shape, marked.
    pub(super) fn mark(self) -> String {
        self.tone().mark(&self.shape().to_string())
    }

    /// Shape and a word, marked.
    pub(super) fn say(self, word: &str) -> String {
        self.tone().mark(&format!("{} {word}", self.shape()))
    }
}

/// Whether colours are wanted; pure. `variable` gives the environment.
pub(super) fn wanted(asked: Colour, terminal: bool, variable: impl Fn(&str) -> Option<String>) -> bool {
    let set = |name: &str| variable(name).filter(|value| !value.is_empty());
    match asked {
        Colour::Always => true,
        Colour::Never => false,
        Colour::Auto if set("NO_COLOR").is_some() => false,
        Colour::Auto if set("CLICOLOR_FORCE").is_some_and(|value| value != "0") => true,
        Colour::Auto if set("TERM").is_none_or(|term| term == "dumb") => false,
        Colour::Auto if set("CLICOLOR").is_some_and(|value| value == "0") => false,
        Colour::Auto => terminal,
    }
}

/// Turns marks into escape codes when `colours` are wanted, else takes them out.
pub(super) fn finish(text: &str, colours: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        let tone = MARKS.iter().find(|(_, mark)| *mark == c).map(|(tone, _)| *tone);
        match tone {
            Some(tone) if colours => drop(write!(out, "{}", tone.style().render())),
            None if c == END && colours => drop(write!(out, "{}", anstyle::Reset.render())),
            None if c != END => out.push(c),
            _ => {}
        }
    }
    out
}

/// A text from outside: on one line, without control characters and marks.
fn clean(text: &str) -> String {
    let mark = |c: char| c == END || MARKS.iter().any(|(_, mark)| *mark == c);
    let kept = text.chars().filter(|c| !mark(*c));
    kept.map(|c| if is_harmful(c) { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn with(variables: &'static [(&str, &str)]) -> impl Fn(&str) -> Option<String> {
        |name| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
    }

    #[test]
    fn colours_follow_the_flag_then_the_environment_then_the_terminal() {
        let xterm: &[(&str, &str)] = &[("TERM", "xterm")];
        assert!(wanted(Colour::Auto, true, with(xterm)));
        assert!(!wanted(Colour::Auto, false, with(xterm)));
        assert!(wanted(Colour::Always, false, with(&[("NO_COLOR", "1")])));
        assert!(!wanted(Colour::Never, true, with(&[("CLICOLOR_FORCE", "1")])));
        assert!(!wanted(Colour::Auto, true, with(&[("TERM", "xterm"), ("NO_COLOR", "1")])));
        assert!(wanted(Colour::Auto, true, with(&[("TERM", "xterm"), ("NO_COLOR", "")])));
        assert!(wanted(Colour::Auto, false, with(&[("CLICOLOR_FORCE", "1")])));
        assert!(!wanted(Colour::Auto, true, with(&[("TERM", "dumb")])));
        assert!(!wanted(Colour::Auto, true, with(&[])));
    }

    #[test]
    fn a_mark_becomes_a_colour_or_nothing() {
        let text = format!("a {}", Level::Critical.say("異常"));
        assert_eq!(finish(&text, false), "a ■ 異常");
        let coloured = finish(&text, true);
        assert!(coloured.contains("\u{1b}[31m") && coloured.ends_with("\u{1b}[0m"), "{coloured:?}");
    }

    proptest! {
        #[test]
        fn no_text_from_outside_moves_the_cursor(text in "\\PC{0,20}[\u{1b}\r\n\u{7}\u{2060}-\u{2064}]{0,4}\\PC{0,5}") {
            let said = finish(&Tone::Warn.mark(&text), false);
            prop_assert!(!said.chars().any(char::is_control), "{said:?}");
        }
    }
}
