//! Words of actions to a tree that only needs labels and a value.
//!
//! Takes a template's text; gives its parts, or a fault with its byte offset. Names, numbers of
//! arguments and variables are checked here, so that little can go wrong when an alert fires.

use diarwatch_shared::config::nearest;

use super::lex::{Piece, Word, pieces, words};
use crate::rules::fault::TextFault;

/// The functions that templates may call, with the number of their arguments (none: at least one).
pub(super) const FUNCTIONS: &[(&str, Option<usize>)] = &[
    ("humanize", Some(1)),
    ("humanize1024", Some(1)),
    ("humanizePercentage", Some(1)),
    ("humanizeDuration", Some(1)),
    ("toUpper", Some(1)),
    ("toLower", Some(1)),
    ("title", Some(1)),
    ("printf", None),
    ("index", Some(2)),
];
/// Words of Go's templates that are not functions.
const KEYWORDS: &[&str] = &[
    "if", "else", "end", "range", "with", "define", "template", "block", "break", "continue", "nil", "true",
    "false",
];
/// Levels of parentheses.
const DEPTH_MAX: usize = 32;

/// A part of a template.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Part {
    /// Text as it is.
    Text(String),
    /// Something to work out.
    Action(Pipeline),
}

/// Commands, each taking what the one before gave as its last argument.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Pipeline(pub(super) Vec<Command>);

/// One step of a pipeline.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Command {
    /// A value.
    Value(Operand),
    /// A function and the arguments that are written out.
    Call(String, Vec<Operand>),
}

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Operand {
    /// A quoted text.
    Text(String),
    /// A number without a point.
    Int(i64),
    /// Another number.
    Float(f64),
    /// A pipeline in parentheses.
    Nested(Pipeline),
    /// A variable as a whole.
    Root(Root),
    /// A label of the sample.
    Label(String),
    /// A label that the aggregator adds to everything it sends; there are none so far.
    ExternalLabel,
}

/// A variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Root {
    /// `$labels`
    Labels,
    /// `$value`
    Value,
    /// `$externalLabels`
    ExternalLabels,
    /// `$externalURL`
    ExternalUrl,
}

/// The parts of a template.
pub(super) fn parse(text: &str) -> Result<Vec<Part>, TextFault> {
    pieces(text)?
        .into_iter()
        .map(|piece| match piece {
            Piece::Text(text) => Ok(Part::Text(text.to_owned())),
            Piece::Action(action, start) => {
                let words = words(action, start)?;
                let mut parser = Parser { words: &words, next: 0, end: start + action.len(), depth: 0 };
                let pipeline = parser.pipeline()?;
                match parser.peek() {
                    None => Ok(Part::Action(pipeline)),
                    Some((_, at)) => Err(TextFault::new(*at, "`)` closes nothing")),
                }
            }
        })
        .collect()
}

struct Parser<'a> {
    words: &'a [(Word, usize)],
    next: usize,
    end: usize,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<&'a (Word, usize)> {
        self.words.get(self.next)
    }

    /// Commands up to the end or a closing parenthesis.
    fn pipeline(&mut self) -> Result<Pipeline, TextFault> {
        let mut commands = Vec::new();
        loop {
            commands.push(self.command(!commands.is_empty())?);
            if !matches!(self.peek(), Some((Word::Sign('|'), _))) {
                return Ok(Pipeline(commands));
            }
            self.next += 1;
        }
    }

    fn command(&mut self, piped: bool) -> Result<Command, TextFault> {
        let Some((first, at)) = self.peek() else {
            return Err(TextFault::new(self.end, "a value is missing"));
        };
        if let Word::Name(name) = first {
            self.next += 1;
            let arity = function(name, *at)?;
            let operands = self.operands()?;
            let given = operands.len() + usize::from(piped);
            return match arity {
                Some(wanted) if wanted != given => {
                    Err(TextFault::new(*at, format!("`{name}` takes {wanted} argument(s), not {given}")))
                }
                None if given == 0 => Err(TextFault::new(*at, format!("`{name}` takes at least 1 argument"))),
                _ => Ok(Command::Call(name.clone(), operands)),
            };
        }
        let mut operands = self.operands()?;
        match (operands.pop(), operands.is_empty(), piped) {
            (Some(only), true, false) => Ok(Command::Value(only)),
            (None, ..) => Err(TextFault::new(*at, "a value is missing")),
            _ => Err(TextFault::new(*at, "a value takes no argument")
                .hint(Some(String::from("name a function first, or join with `|`")))),
        }
    }

    /// Values up to a `|`, a closing parenthesis or the end.
    fn operands(&mut self) -> Result<Vec<Operand>, TextFault> {
        let mut operands = Vec::new();
        while let Some((word, at)) = self.peek() {
            let operand = match word {
                Word::Sign('|' | ')') => break,
                Word::Sign('(') => {
                    operands.push(Operand::Nested(self.nested(*at)?));
                    continue;
                }
                Word::Sign(sign) => return Err(unexpected(*sign, *at)),
                Word::Name(name) => {
                    function(name, *at)?;
                    return Err(TextFault::new(*at, format!("function `{name}` stands in place of a value"))
                        .hint(Some(format!("write `({name} ...)`"))));
                }
                Word::Text(text) => Operand::Text(text.clone()),
                Word::Int(number) => Operand::Int(*number),
                Word::Float(number) => Operand::Float(*number),
                Word::Path(root, fields) => variable(root, fields, *at)?,
            };
            self.next += 1;
            operands.push(operand);
        }
        Ok(operands)
    }

    fn nested(&mut self, at: usize) -> Result<Pipeline, TextFault> {
        self.next += 1;
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(TextFault::new(at, format!("more than {DEPTH_MAX} levels of parentheses")));
        }
        let pipeline = self.pipeline()?;
        self.depth -= 1;
        if !matches!(self.peek(), Some((Word::Sign(')'), _))) {
            return Err(TextFault::new(at, "`(` is not closed"));
        }
        self.next += 1;
        Ok(pipeline)
    }
}

fn function(name: &str, at: usize) -> Result<Option<usize>, TextFault> {
    if let Some((_, arity)) = FUNCTIONS.iter().find(|(known, _)| *known == name) {
        return Ok(*arity);
    }
    if KEYWORDS.contains(&name) {
        return Err(TextFault::new(at, format!("`{name}` is not supported yet in templates")));
    }
    let known: Vec<&str> = FUNCTIONS.iter().map(|(name, _)| *name).collect();
    let hint = nearest(name, known.iter().copied()).map(|name| format!("did you mean `{name}`?"));
    let problem =
        format!("function `{name}` is not supported yet in templates; supported: {}", known.join(", "));
    Err(TextFault::new(at, problem).hint(hint))
}

fn variable(root: &str, fields: &[String], at: usize) -> Result<Operand, TextFault> {
    let (root, name, fields) = match (root, fields) {
        (".", [first, rest @ ..]) => (format!(".{first}"), None, rest),
        (root, fields) => (root.to_owned(), Some(root), fields),
    };
    let root = match root.as_str() {
        "$labels" | ".Labels" => Root::Labels,
        "$value" | ".Value" => Root::Value,
        "$externalLabels" | ".ExternalLabels" => Root::ExternalLabels,
        "$externalURL" | ".ExternalURL" => Root::ExternalUrl,
        unknown => {
            let known = ["$labels", "$value", "$externalLabels", "$externalURL"];
            let hint =
                name.and_then(|name| nearest(name, known)).map(|name| format!("did you mean `{name}`?"));
            let problem = format!("`{unknown}` is not known in templates; {} are", known.join(", "));
            return Err(TextFault::new(at, problem).hint(hint));
        }
    };
    match (root, fields) {
        (root, []) => Ok(Operand::Root(root)),
        (_, [.., empty]) if empty.is_empty() => Err(TextFault::new(at, "a name is missing behind the dot")),
        (Root::Labels, [label]) => Ok(Operand::Label(label.clone())),
        (Root::ExternalLabels, [_]) => Ok(Operand::ExternalLabel),
        (_, [field, ..]) => Err(TextFault::new(at, format!("a field `{field}` of something that has none"))),
    }
}

fn unexpected(sign: char, at: usize) -> TextFault {
    let fault = TextFault::new(at, format!("unexpected `{sign}` in a template"));
    match sign {
        ':' | '=' => fault.hint(Some(String::from("variables of your own are not supported yet"))),
        _ => fault,
    }
}
