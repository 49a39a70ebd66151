//! Labels and annotations of alerts: Go's templates as Prometheus' rules use them.
//!
//! Takes the text of a template when a file is loaded, and a sample when an alert fires; gives text.
//! Everything that can be wrong is said at load time, with its place; an alert never fails for its
//! template. Pure.

mod lex;
mod number;
mod parse;
mod printf;
mod run;

use diarwatch_shared::schema::Labels;

use self::parse::Part;
use super::fault::TextFault;

/// Bytes of one template.
const TEMPLATE_BYTES_MAX: usize = 16 * 1024;

/// A template that was read without a fault.
#[derive(Clone, Debug, PartialEq)]
pub struct Template {
    text: String,
    parts: Vec<Part>,
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// What is wrong with it, with its byte offset.
    pub fn parse(text: &str) -> Result<Self, TextFault> {
        if text.len() > TEMPLATE_BYTES_MAX {
            return Err(TextFault::new(0, format!("template is longer than {TEMPLATE_BYTES_MAX} bytes")));
        }
        Ok(Self { text: text.to_owned(), parts: parse::parse(text)? })
    }

    /// The template as it was written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The text for one sample; what cannot be expanded says so in place of the text.
    #[must_use]
    pub fn expand(&self, labels: &Labels, value: f64) -> String {
        run::expand(&self.parts, labels, value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn expand(template: &str, value: f64) -> String {
        let labels = [("service", "pyannote #2"), ("node", "tokyo-1"), ("ratio", "0.5")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()));
        Template::parse(template).unwrap().expand(&labels.into(), value)
    }

    #[test]
    fn annotations_read_as_in_prometheus() {
        for (template, value, text) in [
            ("サービス停止: {{ $labels.service }}", 0.0, "サービス停止: pyannote #2"),
            ("エラー率上昇: {{ $value | humanizePercentage }}", 0.062, "エラー率上昇: 6.2%"),
            ("API応答遅延: P95 {{ $value }}ms", 3100.0, "API応答遅延: P95 3100ms"),
            ("{{$value}}タスク", 51.0, "51タスク"),
            ("{{ .Labels.node }}/{{ .Value }}", 1e21, "tokyo-1/1e+21"),
            ("[{{ $labels.nothing }}{{ $externalLabels.x }}{{ $externalURL }}]", 0.0, "[]"),
            ("a {{- \" b \" -}} c{{/* 監視 */}}", 0.0, "a b c"),
            ("{{ printf \"%.1f%% of %s\" $value $labels.node }}", 12.34, "12.3% of tokyo-1"),
            ("{{ $value | printf \"%.2f\" }}", 12.345, "12.35"),
            ("{{ $labels.node | toUpper | printf \"%s!\" }}", 0.0, "TOKYO-1!"),
            ("{{ printf \"%s\" (title $labels.node) }}", 0.0, "Tokyo-1"),
            (
                "{{ humanize 1500 }} {{ humanize1024 2048.0 }} {{ humanizeDuration $value }}",
                75.0,
                "1.5k 2ki 1m 15s",
            ),
            ("{{ index $labels \"service\" | toLower }}", 0.0, "pyannote #2"),
            ("{{ $labels.ratio | humanizePercentage }}", 0.0, "50%"),
            ("{{ $labels }}", 0.0, "map[node:tokyo-1 ratio:0.5 service:pyannote #2]"),
            ("}} { {", 0.0, "}} { {"),
        ] {
            assert_eq!(expand(template, value), text, "{template}");
        }
    }

    #[test]
    fn a_template_that_cannot_be_expanded_says_so_and_fails_nothing() {
        let text = expand("{{ $labels.node | humanize }}", 0.0);
        assert_eq!(text, "<error expanding template: \"tokyo-1\" is not a number>");
    }

    #[test]
    fn faults_are_found_at_load_time_with_their_place() {
        for (template, at, part) in [
            ("監視 {{ $label.x }}", 10, "did you mean `$labels`?"),
            ("{{ $value | humanise }}", 12, "did you mean `humanize`?"),
            ("{{ if $value }}x{{ end }}", 3, "`if` is not supported yet"),
            ("{{ $value | }}", 11, "a value is missing"),
            ("{{ humanize }}", 3, "takes 1 argument"),
            ("{{ humanize 1 2 }}", 3, "not 2"),
            ("{{ $value $value }}", 3, "takes no argument"),
            ("{{ ($value }}", 3, "`(` is not closed"),
            ("{{ $value) }}", 9, "closes nothing"),
            ("{{ $x := 1 }}", 3, "`$x` is not known"),
            ("{{ $value.x }}", 3, "has none"),
            ("{{ $value", 0, "is not closed"),
            ("{{ }}", 3, "a value is missing"),
            ("{{ \"\\z\" }}", 4, "escape"),
            ("{{ .Foo }}", 3, "`.Foo` is not known"),
            ("{{ $labels. }}", 3, "a name is missing"),
            ("{{ . }}", 3, "`.` is not known"),
        ] {
            let fault = Template::parse(template).unwrap_err();
            let text = format!("{}; {}", fault.problem, fault.hint.clone().unwrap_or_default());
            assert_eq!(fault.offset, at, "{template}: {text}");
            assert!(text.contains(part), "{template}: {text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_a_template_panic(text in "(\\PC|\\{\\{|\\}\\}|\"|\\$value|[-|().]){0,30}", value: f64) {
            match Template::parse(&text) {
                Ok(template) => drop(template.expand(&Labels::new(), value)),
                Err(fault) => prop_assert!(text.is_char_boundary(fault.offset), "{fault:?}"),
            }
        }

        #[test]
        fn text_without_braces_stays_as_it_is(text in "[^{}]{0,60}") {
            prop_assert_eq!(expand(&text, 1.0), text);
        }

        #[test]
        fn a_label_comes_through_unchanged(value in "\\PC{0,40}") {
            let labels = Labels::from([("x".to_owned(), value.clone())]);
            prop_assert_eq!(Template::parse("{{ $labels.x }}").unwrap().expand(&labels, 0.0), value);
        }
    }
}
