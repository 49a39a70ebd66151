//! The scenario: takes the text of the file, gives the machine it describes and a complaint for
//! each line that says nothing. Pure; no text makes it panic, and what it holds is bounded.

mod card;
mod rule;

pub(crate) use card::{Card, Key, Process};
pub(crate) use rule::{Action, Event, Rule, Scope};

/// GPUs of one machine.
const GPUS_MAX: usize = 64;
/// Characters of one complaint; a line may be long.
const COMPLAINT_CHARS_MAX: usize = 200;
/// Complaints that are kept word for word; further ones are counted.
const COMPLAINTS_MAX: usize = 16;

/// What holds until the file says otherwise.
const DEFAULT: &str = include_str!("default.scenario");

/// A machine with its GPUs, and what happens to the calls.
#[derive(Debug, Default)]
pub(crate) struct Scenario {
    /// Version of the driver.
    pub(crate) driver: String,
    /// Version of CUDA, as 12040 for 12.4.
    pub(crate) cuda: i32,
    /// The GPUs by index.
    pub(crate) cards: Vec<Card>,
    /// What happens to calls; the last line that fits holds.
    pub(crate) rules: Vec<Rule>,
    /// Events by rising number.
    pub(crate) events: Vec<Event>,
    /// The lines that say nothing, each with its number.
    pub(crate) complaints: Vec<String>,
    /// Complaints beyond the kept ones.
    pub(crate) complaints_dropped: usize,
}

impl Scenario {
    /// Reads the lines of a scenario on top of the default one.
    pub(crate) fn parse(text: &str) -> Self {
        let mut scenario = Self::default();
        let lines: Vec<(usize, &str)> =
            DEFAULT.lines().map(|line| (0, line)).chain((1..).zip(text.lines())).collect();
        // The number of GPUs first: a line about all of them may stand above it.
        let counts = lines.iter().filter_map(|(_, line)| pair(line)).filter(|(key, _)| *key == "gpus");
        let count = counts.filter_map(|(_, value)| gpu_count(value).ok()).next_back().unwrap_or(0);
        scenario.cards = (0..count).map(Card::numbered).collect();
        for (number, line) in lines {
            if let Err(complaint) = scenario.line(line) {
                scenario.complain(number, &complaint);
            }
        }
        scenario.events.sort_by_key(|event| event.seq);
        scenario
    }

    /// What happens to a call of `function`, about the GPU if it is about one.
    pub(crate) fn action(&self, function: &str, gpu: Option<u32>) -> Action {
        let rule = self.rules.iter().rev().find(|rule| rule.fits(function, gpu));
        rule.map_or(Action::Answer, |rule| rule.action)
    }

    fn line(&mut self, line: &str) -> Result<(), String> {
        let Some((key, value)) = pair(line) else {
            let text = line.split('#').next().unwrap_or_default().trim();
            return if text.is_empty() { Ok(()) } else { Err(format!("`{text}` lacks a `=`")) };
        };
        let parts: Vec<&str> = key.splitn(4, '.').collect();
        match parts.as_slice() {
            ["gpus"] => gpu_count(value).map(drop),
            ["driver"] => {
                value.clone_into(&mut self.driver);
                Ok(())
            }
            ["cuda"] => value.parse().map(|cuda| self.cuda = cuda).map_err(|_| not_a("number", value)),
            ["event", seq] => Event::parse(seq, value).map(|event| self.events.push(event)),
            ["call", function] => self.rule(Scope::Any, function, value),
            ["gpu", gpu, "call", function] => self.rule(Scope::of(gpu)?, function, value),
            ["gpu", gpu, "state"] => self.rule(Scope::of(gpu)?, "*", value),
            ["gpu", gpu, key] => self.cards(Scope::of(gpu)?, |card| card.set(key, value)),
            _ => Err(format!("`{key}` is not a key; tests/fake-nvml/scenario.example has them all")),
        }
    }

    fn rule(&mut self, scope: Scope, function: &str, value: &str) -> Result<(), String> {
        self.rules.push(Rule::parse(scope, function, value)?);
        Ok(())
    }

    /// Every GPU in the scope; one that is not there now may be there later, and is no mistake.
    fn cards(
        &mut self,
        scope: Scope,
        mut set: impl FnMut(&mut Card) -> Result<(), String>,
    ) -> Result<(), String> {
        let cards = (0_u32..).zip(&mut self.cards);
        cards.filter(|(index, _)| scope.covers(Some(*index))).try_for_each(|(_, card)| set(card))
    }

    fn complain(&mut self, number: usize, complaint: &str) {
        if self.complaints.len() < COMPLAINTS_MAX {
            let complaint: String = complaint.chars().take(COMPLAINT_CHARS_MAX).collect();
            self.complaints.push(format!("line {number}: {}", complaint.escape_debug()));
        } else {
            self.complaints_dropped += 1;
        }
    }
}

fn pair(line: &str) -> Option<(&str, &str)> {
    let (key, value) = line.split('#').next()?.split_once('=')?;
    Some((key.trim(), value.trim()))
}

fn gpu_count(value: &str) -> Result<usize, String> {
    value
        .parse()
        .ok()
        .filter(|count| *count <= GPUS_MAX)
        .ok_or_else(|| format!("`{value}` is not a number of GPUs; 0 to {GPUS_MAX} are"))
}

fn not_a(what: &str, value: &str) -> String {
    format!("`{value}` is not a {what}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::Code;
    use proptest::prelude::*;

    #[test]
    fn the_default_is_the_first_users_card_and_complains_of_nothing() {
        let scenario = Scenario::parse("");
        assert_eq!(scenario.complaints, Vec::<String>::new());
        assert_eq!(scenario.driver, "550.54.15");
        let [card] = scenario.cards.as_slice() else { panic!("one card, not {}", scenario.cards.len()) };
        assert_eq!(card.name, "NVIDIA GeForce RTX 4060");
        assert_eq!(card.read(Key::MemTotalMib, 0.0), Ok(8188.0));
        assert_eq!(card.read(Key::EccUe, 0.0), Err(Code::NOT_SUPPORTED));
        for key in Key::ALL {
            assert!(card.is_set(*key), "{key:?} has no default");
        }
    }

    #[test]
    fn the_example_complains_of_nothing_with_its_commented_lines_taken_in() {
        let example = include_str!("../scenario.example");
        let taken_in: String = example
            .lines()
            .map(|line| line.strip_prefix("#: ").unwrap_or(line))
            .fold(String::new(), |text, line| text + line + "\n");
        for text in [example, &taken_in] {
            assert_eq!(Scenario::parse(text).complaints, Vec::<String>::new());
        }
        assert!(Scenario::parse(&taken_in).rules.len() >= 4);
    }

    #[test]
    fn a_line_for_one_gpu_leaves_the_others_alone() {
        let scenario = Scenario::parse("gpu.*.temp = 50\ngpu.1.temp = 90 # hot\ngpus = 2");
        let temps: Vec<_> = scenario.cards.iter().map(|card| card.read(Key::Temp, 3.0)).collect();
        assert_eq!(temps, [Ok(50.0), Ok(90.0)]);
    }

    #[test]
    fn the_last_line_that_fits_a_call_holds() {
        let scenario =
            Scenario::parse("gpus = 3\ngpu.*.state = lost\ngpu.1.state = ok\ncall.nvmlInit_v2 = err:9");
        assert_eq!(scenario.action("nvmlDeviceGetName", Some(0)), Action::Fail(Code::GPU_IS_LOST));
        assert_eq!(scenario.action("nvmlDeviceGetName", Some(1)), Action::Answer);
        assert_eq!(scenario.action("nvmlDeviceGetCount_v2", None), Action::Answer);
        assert_eq!(scenario.action("nvmlInit_v2", None), Action::Fail(Code(9)));
    }

    #[test]
    fn a_mistake_is_named_with_its_line() {
        let scenario =
            Scenario::parse("# fine\ngpu.0.tmep = 3\ngpus = 65\ngpu.0.temp = warm\ngpu.0.state = err:0");
        let lines: Vec<&str> = scenario.complaints.iter().map(|text| &text[..7]).collect();
        assert_eq!(lines, ["line 2:", "line 3:", "line 4:", "line 5:"], "{:?}", scenario.complaints);
        assert!(scenario.complaints[0].contains("`tmep`"));
    }

    #[test]
    fn complaints_beyond_the_limit_are_counted() {
        let scenario = Scenario::parse(&"nonsense\n".repeat(COMPLAINTS_MAX + 5));
        assert_eq!((scenario.complaints.len(), scenario.complaints_dropped), (COMPLAINTS_MAX, 5));
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(
            words in prop::collection::vec(
                prop_oneof![
                    Just("gpu"), Just("."), Just("*"), Just("0"), Just("9999999999999999999"), Just("="),
                    Just("procs"), Just("self:1:2:3"), Just("temp"), Just("state"), Just("hang:"), Just("-1"),
                    Just("call"), Just("event"), Just("xid"), Just(" "), Just("\n"), Just("#"), Just("gpus"),
                    Just("delay_us:"), Just("err:"), Just("1e400"), Just("ramp("), Just(","), Just(")"),
                ],
                0..80,
            ),
            text in "\\PC{0,80}",
        ) {
            let scenario = Scenario::parse(&words.concat());
            prop_assert!(scenario.cards.len() <= GPUS_MAX);
            let _ = scenario.action("nvmlDeviceGetName", Some(0));
            let _ = Scenario::parse(&text);
        }
    }
}
