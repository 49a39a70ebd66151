//! Times of many rounds. Takes them one by one; gives what is at a percentile, a line for people, and a line
//! that another process reads.

use std::fmt::Write as _;
use std::time::Duration;

/// Times of one kind.
#[derive(Default)]
pub(crate) struct Times(Vec<Duration>);

impl Times {
    pub(crate) fn add(&mut self, time: Duration) {
        self.0.push(time);
    }

    /// Milliseconds at a percentile, the nearest rank.
    pub(crate) fn at(&self, percentile: usize) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let rank = (sorted.len() * percentile).div_ceil(100).max(1);
        sorted[rank - 1].as_secs_f64() * 1_000.0
    }

    /// A line for people.
    pub(crate) fn tell(&self, what: &str) {
        println!(
            "  {what}: n={} p50={:.2} ms p90={:.2} p99={:.2} max={:.2}",
            self.0.len(),
            self.at(50),
            self.at(90),
            self.at(99),
            self.at(100)
        );
    }

    /// A line for another process.
    pub(crate) fn line(&self, name: &str) -> String {
        self.0.iter().fold(name.to_owned(), |mut line, time| {
            write!(line, " {}", time.as_nanos()).expect("a text takes it");
            line
        })
    }

    /// Those of this name among such lines.
    pub(crate) fn find(lines: &str, name: &str) -> Result<Self, String> {
        let of_name = lines.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let numbers = of_name.ok_or_else(|| format!("no times of {name} came from the node"))?;
        let times = numbers.split(' ').map(|nanos| nanos.parse().map(Duration::from_nanos));
        times.collect::<Result<_, _>>().map(Self).map_err(|error| format!("times of {name}: {error}"))
    }
}

/// Lengths between two bounds that follow no rhythm of who restarts, and the same in each run.
pub(crate) struct Pauses(u64);

impl Pauses {
    pub(crate) fn new() -> Self {
        Self(0x9e37_79b9_7f4a_7c15)
    }

    /// Sleeps for `shortest` milliseconds to twice that.
    pub(crate) fn sleep(&mut self, shortest: u64) {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        std::thread::sleep(Duration::from_micros(shortest * 1_000 + self.0 % (shortest * 1_000)));
    }
}
