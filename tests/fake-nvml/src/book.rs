//! The scenario file as it was last read: takes its path and the time, gives the [`Moment`] that a
//! call is answered from. The file is looked at once in 5 ms at most and read again when it changed;
//! counters go on over that. The folder of claims is read at the same times.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::abi::Code;
use crate::claims::{self, Claim};
use crate::scenario::{Card, Key, Scenario};

/// Time between two looks at the scenario file.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Bytes of a scenario that are read.
const SCENARIO_BYTES_MAX: u64 = 1024 * 1024;
/// Energy on the counter before this process, mJ: a card is never new.
const ENERGY_BEFORE_MJ: f64 = 1_000_000.0;

/// The keys whose area is a counter: it goes on over a change of the file.
const COUNTED: [Key; 3] = [Key::PowerMw, Key::PcieTxKb, Key::PcieRxKb];
type Counters = [f64; COUNTED.len()];

/// The scenario at the time of a call.
#[derive(Clone)]
pub(crate) struct Moment {
    /// What the file says.
    pub(crate) scenario: Arc<Scenario>,
    /// Seconds since it was loaded.
    pub(crate) seconds: f64,
    /// What processes say that they hold.
    pub(crate) claims: Arc<Vec<Claim>>,
    /// Counters at that load, by GPU.
    before: Arc<Vec<Counters>>,
}

/// How a file is known to have changed: time of change (ns), bytes, inode.
type Stamp = (i64, i64, u64, u64);

/// The loaded file.
pub(crate) struct Book {
    path: Option<PathBuf>,
    claims_folder: Option<PathBuf>,
    claims: Arc<Vec<Claim>>,
    stamp: Option<Stamp>,
    scenario: Arc<Scenario>,
    before: Arc<Vec<Counters>>,
    loaded: Option<Duration>,
    looked: Duration,
}

impl Book {
    /// Nothing is read before the first look.
    pub(crate) fn new(path: Option<PathBuf>, claims_folder: Option<PathBuf>) -> Self {
        Self {
            path,
            claims_folder,
            claims: Arc::default(),
            stamp: None,
            scenario: Arc::default(),
            before: Arc::default(),
            loaded: None,
            looked: Duration::ZERO,
        }
    }

    /// The scenario at `now`, and whether it was read again because its file changed.
    pub(crate) fn moment(&mut self, now: Duration) -> (Moment, bool) {
        let due = self.loaded.is_none() || now.saturating_sub(self.looked) >= LOOK_EVERY;
        let is_new = due && self.look(now);
        if let Some(folder) = self.claims_folder.as_deref().filter(|_| due) {
            self.claims = Arc::new(claims::read(folder));
        }
        (self.at(now), is_new)
    }

    fn at(&self, now: Duration) -> Moment {
        let seconds = now.saturating_sub(self.loaded.unwrap_or(now)).as_secs_f64();
        Moment {
            scenario: Arc::clone(&self.scenario),
            seconds,
            claims: Arc::clone(&self.claims),
            before: Arc::clone(&self.before),
        }
    }

    fn look(&mut self, now: Duration) -> bool {
        self.looked = now;
        let stamp = self.path.as_ref().and_then(|path| std::fs::metadata(path).ok()).and_then(|meta| {
            meta.is_file().then(|| (meta.mtime(), meta.mtime_nsec(), meta.size(), meta.ino()))
        });
        if self.loaded.is_some() && stamp == self.stamp {
            return false;
        }
        let text = stamp.and(self.path.as_ref()).map(read).unwrap_or_default();
        self.before = Arc::new(self.counters(now));
        self.scenario = Arc::new(Scenario::parse(&text));
        self.loaded = Some(now);
        self.stamp = stamp;
        true
    }

    fn counters(&self, now: Duration) -> Vec<Counters> {
        let moment = self.at(now);
        let cards = (0..).zip(&self.scenario.cards);
        let mut counters: Vec<Counters> = cards
            .map(|(index, card)| {
                COUNTED.map(|key| {
                    moment.counter(index, card, key).unwrap_or_else(|_| before(&self.before, index, key))
                })
            })
            .collect();
        // A GPU that is away now keeps its counters for when it is back.
        counters.extend(self.before.iter().skip(counters.len()));
        counters
    }
}

impl Moment {
    /// A counter of what a key of a GPU has added up to.
    pub(crate) fn counter(&self, index: u32, card: &Card, key: Key) -> Result<f64, Code> {
        let gained = card.gained(key, self.seconds)?;
        Ok(before(&self.before, index, key) + gained)
    }
}

fn before(counters: &[Counters], index: u32, key: Key) -> f64 {
    let place = COUNTED.iter().position(|counted| *counted == key);
    let found = counters.get(index as usize).zip(place).and_then(|(counters, place)| counters.get(place));
    found.copied().unwrap_or(if key == Key::PowerMw { ENERGY_BEFORE_MJ } else { 0.0 })
}

fn read(path: &PathBuf) -> String {
    let mut bytes = Vec::new();
    // An unreadable scenario is an empty one: what was read until then still counts.
    drop(File::open(path).and_then(|file| file.take(SCENARIO_BYTES_MAX).read_to_end(&mut bytes)));
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_file(text: &str) -> (tempfile::TempDir, PathBuf, Book) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("scenario");
        std::fs::write(&path, text).unwrap();
        let book = Book::new(Some(path.clone()), None);
        (folder, path, book)
    }

    fn replace(path: &PathBuf, text: &str) {
        let beside = path.with_extension("new");
        std::fs::write(&beside, text).unwrap();
        std::fs::rename(beside, path).unwrap();
    }

    fn temp(moment: &Moment) -> Result<f64, Code> {
        moment.scenario.cards[0].read(Key::Temp, moment.seconds)
    }

    #[test]
    fn a_changed_file_holds_at_the_next_look_and_not_before() {
        let (_folder, path, mut book) = with_file("gpu.0.temp = 50");
        let start = Duration::from_secs(1);
        assert_eq!(temp(&book.moment(start).0), Ok(50.0));
        replace(&path, "gpu.0.temp = 90");
        assert_eq!(temp(&book.moment(start + Duration::from_millis(4)).0), Ok(50.0));
        assert_eq!(temp(&book.moment(start + LOOK_EVERY).0), Ok(90.0));
    }

    #[test]
    fn a_file_that_went_away_leaves_the_default_card() {
        let (_folder, path, mut book) = with_file("gpu.0.name = Other");
        book.moment(Duration::ZERO);
        std::fs::remove_file(path).unwrap();
        let (moment, is_new) = book.moment(LOOK_EVERY);
        assert!(is_new);
        assert_eq!(moment.scenario.cards[0].name, "NVIDIA GeForce RTX 4060");
    }

    #[test]
    fn time_in_the_scenario_starts_at_its_load() {
        let (_folder, path, mut book) = with_file("gpu.0.temp = ramp(0,100,10)");
        book.moment(Duration::from_secs(100));
        assert_eq!(temp(&book.moment(Duration::from_secs(105)).0), Ok(50.0));
        replace(&path, "gpu.0.temp = ramp(0,200,10)");
        assert_eq!(temp(&book.moment(Duration::from_secs(106)).0), Ok(0.0));
    }

    #[test]
    fn the_energy_counter_goes_on_over_a_change_of_the_file_and_an_absent_gpu() {
        let (_folder, path, mut book) = with_file("gpu.0.power_mw = 1000");
        let energy = |book: &mut Book, second: u64| {
            let (moment, _) = book.moment(Duration::from_secs(second));
            moment.counter(0, &moment.scenario.cards[0], Key::PowerMw).unwrap()
        };
        assert_eq!(energy(&mut book, 0), ENERGY_BEFORE_MJ);
        assert_eq!(energy(&mut book, 10), ENERGY_BEFORE_MJ + 10_000.0);
        replace(&path, "gpus = 0");
        book.moment(Duration::from_secs(20));
        replace(&path, "gpu.0.power_mw = 2000");
        assert_eq!(energy(&mut book, 30), ENERGY_BEFORE_MJ + 20_000.0);
        assert_eq!(energy(&mut book, 31), ENERGY_BEFORE_MJ + 22_000.0);
    }
}
