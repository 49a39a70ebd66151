//! Expands a parsed template for one sample.
//!
//! Takes labels and a value; gives text. It never fails an alert: what cannot be expanded becomes
//! `<error expanding template: ...>`, as in Prometheus.

use diarwatch_shared::schema::Labels;

use super::number;
use super::parse::{Command, Operand, Part, Pipeline, Root};
use super::printf::printf;

/// A value inside a template.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Datum {
    /// A text.
    Text(String),
    /// A number.
    Float(f64),
    /// A number that was written without a point.
    Int(i64),
    /// Labels.
    Labels(Labels),
}

impl Datum {
    /// As Go prints it.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Float(value) => number::plain(*value),
            Self::Int(value) => value.to_string(),
            Self::Labels(labels) => {
                let pairs: Vec<String> =
                    labels.iter().map(|(name, value)| format!("{name}:{value}")).collect();
                format!("map[{}]", pairs.join(" "))
            }
        }
    }

    /// As Go calls it.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "string",
            Self::Float(_) => "float64",
            Self::Int(_) => "int",
            Self::Labels(_) => "map[string]string",
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "Go converts the same way")]
    fn number(&self) -> Result<f64, String> {
        match self {
            Self::Float(value) => Ok(*value),
            Self::Int(value) => Ok(*value as f64),
            Self::Text(text) => text.parse().map_err(|_| format!("{text:?} is not a number")),
            Self::Labels(_) => Err(String::from("labels are not a number")),
        }
    }
}

/// The text of a template for one sample.
pub(super) fn expand(parts: &[Part], labels: &Labels, value: f64) -> String {
    let mut out = String::new();
    for part in parts {
        match part {
            Part::Text(text) => out.push_str(text),
            Part::Action(pipeline) => match run(pipeline, labels, value) {
                Ok(datum) => out.push_str(&datum.text()),
                Err(problem) => return format!("<error expanding template: {problem}>"),
            },
        }
    }
    out
}

fn run(pipeline: &Pipeline, labels: &Labels, value: f64) -> Result<Datum, String> {
    let mut piped = None;
    for command in &pipeline.0 {
        piped = Some(match command {
            Command::Value(operand) => evaluate(operand, labels, value)?,
            Command::Call(name, operands) => {
                let mut args = Vec::with_capacity(operands.len() + 1);
                for operand in operands {
                    args.push(evaluate(operand, labels, value)?);
                }
                args.extend(piped);
                call(name, &args)?
            }
        });
    }
    piped.ok_or_else(|| String::from("empty action"))
}

fn evaluate(operand: &Operand, labels: &Labels, value: f64) -> Result<Datum, String> {
    Ok(match operand {
        Operand::Text(text) => Datum::Text(text.clone()),
        Operand::Int(number) => Datum::Int(*number),
        Operand::Float(number) => Datum::Float(*number),
        Operand::Nested(pipeline) => run(pipeline, labels, value)?,
        Operand::Root(Root::Value) => Datum::Float(value),
        Operand::Root(Root::Labels) => Datum::Labels(labels.clone()),
        Operand::Root(Root::ExternalLabels) => Datum::Labels(Labels::new()),
        Operand::Root(Root::ExternalUrl) => Datum::Text(String::new()),
        // A label that is not there is an empty text.
        Operand::Label(name) => Datum::Text(labels.get(name).cloned().unwrap_or_default()),
        Operand::ExternalLabel => Datum::Text(String::new()),
    })
}

fn call(name: &str, args: &[Datum]) -> Result<Datum, String> {
    let number = || args.first().map_or_else(|| Err(String::from("no argument")), Datum::number);
    let text = || args.first().map(Datum::text).unwrap_or_default();
    Ok(match name {
        "humanize" => Datum::Text(number::humanize(number()?)),
        "humanize1024" => Datum::Text(number::humanize_1024(number()?)),
        "humanizePercentage" => Datum::Text(number::humanize_percentage(number()?)),
        "humanizeDuration" => Datum::Text(number::humanize_duration(number()?)),
        "toUpper" => Datum::Text(text().to_uppercase()),
        "toLower" => Datum::Text(text().to_lowercase()),
        "title" => Datum::Text(title(&text())),
        "printf" => Datum::Text(printf(&text(), args.get(1..).unwrap_or_default())),
        "index" => match args {
            [Datum::Labels(labels), name] => {
                Datum::Text(labels.get(&name.text()).cloned().unwrap_or_default())
            }
            _ => return Err(String::from("index needs labels and a name")),
        },
        other => return Err(format!("function {other} is not known")),
    })
}

/// The first letter of each word in upper case.
fn title(text: &str) -> String {
    let mut inside = false;
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if inside {
            out.push(c);
        } else {
            out.extend(c.to_uppercase());
        }
        inside = c.is_alphanumeric() || c == '_' || !c.is_ascii() && !c.is_whitespace();
    }
    out
}
