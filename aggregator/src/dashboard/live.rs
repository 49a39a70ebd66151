//! The shell around the page: once a second it feeds the day, renders what somebody looks at and hands
//! each reader the parts that changed.
//!
//! Takes the store, the desk and the readers of streams; gives documents and messages. A reader whose
//! queue is full is cut off and counted: it comes back and gets everything. A disk that refuses the
//! day's file is said on the page.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use diarwatch_shared::clock;
use diarwatch_shared::texts::Lang;
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::{MissedTickBehavior, interval};
use tracing::{error, warn};

use super::parts::{self, Parts};
use super::words::Words;
use super::{BUILD, Page, render};
use crate::computed;
use crate::desk::Desk;
use crate::effect::InEffect;
use crate::store::Store;
use crate::trend::{Opened, Trend};
use crate::view::figures::Figures;
use crate::view::own::Streams;
use crate::view::{self, Sources, View};

/// Streams at once, over all browsers.
pub const STREAMS_MAX: usize = 64;
/// Pages that one stream may carry: the tabs of a browser.
pub const STREAM_PAGES_MAX: usize = 8;
/// Different pages that streams carry at once; each is rendered once a second.
pub const PAGES_MAX: usize = 128;
/// Messages that wait for a reader; each page has one a second.
pub const MESSAGES_WAITING_MAX: usize = 4 * STREAM_PAGES_MAX;
/// Between two looks.
const TICK: Duration = Duration::from_secs(1);
/// Looks between two writes of the day.
const SAVE_EVERY: u64 = 60;
/// Looks after the start in which nothing changes its "since": nodes are still coming back.
const SETTLE_TICKS: u64 = 15;

/// A page in a language.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shown {
    /// The language.
    pub lang: LangKey,
    /// The page.
    pub page: Page,
}

/// A language as a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LangKey {
    /// Japanese.
    Ja,
    /// English.
    En,
}

impl Shown {
    /// A page in a language.
    #[must_use]
    pub fn new(lang: Lang, page: Page) -> Self {
        let lang = match lang {
            Lang::Ja => LangKey::Ja,
            Lang::En => LangKey::En,
        };
        Self { lang, page }
    }

    /// The one of a name: `ja/fleet`, `en/node/gpu-01`.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        let (lang, page) = name.split_once('/')?;
        let lang = match lang {
            "ja" => Lang::Ja,
            "en" => Lang::En,
            _ => return None,
        };
        Some(Self::new(lang, Page::of(page)?))
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}/{}", self.lang().tag(), self.page.name())
    }

    fn lang(&self) -> Lang {
        match self.lang {
            LangKey::Ja => Lang::Ja,
            LangKey::En => Lang::En,
        }
    }
}

/// A message to a reader: its number and its text.
pub type Message = (u64, Arc<str>);

/// What a reader holds: dropping it ends the stream.
#[derive(Debug)]
pub struct Reading {
    /// What comes.
    pub messages: mpsc::Receiver<Message>,
    /// Its place among the streams.
    pub place: OwnedSemaphorePermit,
}

/// The pages of this aggregator.
#[derive(Clone, Debug)]
pub struct Pages {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: Store,
    desk: Desk,
    effect: watch::Receiver<Arc<InEffect>>,
    /// Where the day is kept.
    directory: PathBuf,
    day: RwLock<Day>,
    readers: Mutex<Readers>,
    places: Arc<Semaphore>,
    cut: AtomicU64,
    refused: AtomicU64,
}

#[derive(Debug, Default)]
struct Day {
    trend: Trend,
    problem: Option<String>,
    /// The file is of a later version: nothing is written over it.
    untouchable: bool,
}

#[derive(Debug, Default)]
struct Readers {
    all: Vec<Reader>,
    /// What was sent of each page that has a reader.
    sent: BTreeMap<Shown, BTreeMap<&'static str, String>>,
    number: u64,
}

#[derive(Debug)]
struct Reader {
    pages: BTreeSet<Shown>,
    messages: mpsc::Sender<Message>,
}

/// The text of a message.
#[derive(Serialize)]
struct Update<'a> {
    view: String,
    build: &'static str,
    at_ms: i64,
    updated: &'a str,
    parts: BTreeMap<&'static str, &'a str>,
}

/// A page as it is now.
struct Rendered {
    at_ms: i64,
    updated: String,
    parts: Parts,
}

impl Pages {
    /// The pages over store and desk; the day goes on where it was left.
    #[must_use]
    pub fn open(store: Store, desk: Desk, effect: watch::Receiver<Arc<InEffect>>) -> Self {
        let directory = effect.borrow().config.store.directory.clone();
        let day = match Trend::open(&directory) {
            Opened::Trend(trend) => Day { trend, ..Day::default() },
            Opened::Damaged(why) => {
                warn!(why, "the page's day begins anew: its file cannot be read");
                Day::default()
            }
            Opened::Untouchable(why) => {
                warn!(why, "the page's day is not kept across restarts");
                Day { problem: Some(why), untouchable: true, ..Day::default() }
            }
        };
        let inner = Inner {
            store,
            desk,
            effect,
            directory,
            day: RwLock::new(day),
            readers: Mutex::default(),
            places: Arc::new(Semaphore::new(STREAMS_MAX)),
            cut: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        };
        Self { inner: Arc::new(inner) }
    }

    /// What of the configuration is in effect now.
    #[must_use]
    pub fn effect(&self) -> Arc<InEffect> {
        Arc::clone(&self.inner.effect.borrow())
    }

    /// Builds the document and what else `read` makes of the same state.
    pub async fn look<T>(&self, lang: Lang, read: impl FnOnce(&Sources<'_>, View) -> T) -> T {
        self.sources(lang, |sources| read(sources, view::of(sources))).await
    }

    async fn sources<T>(&self, lang: Lang, read: impl FnOnce(&Sources<'_>) -> T) -> T {
        let Inner { store, desk, day, .. } = &*self.inner;
        let effect = self.effect();
        let kept = desk.read(Clone::clone).await;
        let now = clock::now();
        store.read(|memory| {
            let sending = computed::sending(memory, effect.config.nodes.timeout.0, now);
            let day = day.read().unwrap_or_else(PoisonError::into_inner);
            read(&Sources {
                memory,
                kept: &kept,
                trend: &day.trend,
                trend_problem: day.problem.as_deref(),
                sending: &sending,
                services: &effect.config.page.services,
                streams: self.streams(),
                zone: &effect.zone,
                lang,
                now,
            })
        })
    }

    /// A page as HTML; none for a node that is not known.
    pub async fn html(&self, shown: &Shown) -> Option<String> {
        let effect = self.effect();
        let zone_name = &effect.config.display.zone;
        self.look(shown.lang(), |sources, view| {
            let parts = parts_of(sources, &view, &shown.page)?;
            Some(render(&shown.page, &view, &parts, zone_name, shown.lang()))
        })
        .await
    }

    /// A place for a reader of these pages; none when there are too many streams or pages.
    #[must_use]
    pub fn subscribe(&self, pages: BTreeSet<Shown>) -> Option<Reading> {
        let refuse = || {
            self.inner.refused.fetch_add(1, Ordering::Relaxed);
            None
        };
        let Ok(place) = Arc::clone(&self.inner.places).try_acquire_owned() else { return refuse() };
        let mut readers = self.readers();
        let new = pages.iter().filter(|page| !readers.sent.contains_key(*page)).count();
        if pages.is_empty() || pages.len() > STREAM_PAGES_MAX || readers.sent.len() + new > PAGES_MAX {
            return refuse();
        }
        let (messages, received) = mpsc::channel(MESSAGES_WAITING_MAX);
        let number = readers.number;
        for page in &pages {
            // What others have seen already; a page that is new is whole in the next message.
            let sent = readers.sent.entry(page.clone()).or_default();
            if !sent.is_empty() {
                let parts = sent.iter().map(|(name, html)| (*name, html.as_str())).collect();
                let whole = Update { view: page.name(), build: BUILD, at_ms: 0, updated: "", parts };
                drop(messages.try_send((number, text(&whole))));
            }
        }
        readers.all.push(Reader { pages, messages });
        Some(Reading { messages: received, place })
    }

    /// Feeds the day and the readers until the aggregator stops.
    pub async fn run(self) {
        let mut each = interval(TICK);
        each.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for tick in 0_u64.. {
            each.tick().await;
            self.feed(tick >= SETTLE_TICKS).await;
            if tick % SAVE_EVERY == SAVE_EVERY - 1 {
                self.save().await;
            }
            let wanted = self.wanted();
            if !wanted.is_empty() {
                let rendered = self.render_all(&wanted).await;
                self.tell(rendered);
            }
        }
    }

    /// Writes the day.
    pub async fn save(&self) {
        let directory = self.inner.directory.clone();
        let trend = {
            let day = self.inner.day.read().unwrap_or_else(PoisonError::into_inner);
            if day.untouchable {
                return;
            }
            day.trend.clone()
        };
        let written = tokio::task::spawn_blocking(move || trend.save(&directory)).await;
        let problem = written.map_err(|error| error.to_string()).and_then(|saved| saved).err();
        let mut day = self.inner.day.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(problem) = problem.as_ref().filter(|_| problem != day.problem) {
            error!(problem, "the page's day is not on disk");
        }
        day.problem = problem;
    }

    async fn feed(&self, settled: bool) {
        let read = |sources: &Sources<'_>| {
            let figures = Figures::of(sources.memory, sources.sending, sources.now);
            (figures, view::standing(sources), sources.now)
        };
        let effect = self.effect();
        let (figures, standing, now) = self.sources(effect.config.display.lang, read).await;
        let mut day = self.inner.day.write().unwrap_or_else(PoisonError::into_inner);
        day.trend.step(figures.samples(), now, &effect.zone);
        day.trend.stand(standing.iter().map(|(name, state)| (name.as_str(), *state)), settled, now);
    }

    /// The pages that have a reader.
    fn wanted(&self) -> BTreeSet<Shown> {
        let mut readers = self.readers();
        readers.all.retain(|reader| !reader.messages.is_closed());
        let wanted: BTreeSet<Shown> = readers.all.iter().flat_map(|reader| reader.pages.clone()).collect();
        readers.sent.retain(|page, _| wanted.contains(page));
        wanted
    }

    async fn render_all(&self, wanted: &BTreeSet<Shown>) -> BTreeMap<Shown, Rendered> {
        let mut rendered = BTreeMap::new();
        for lang in [Lang::Ja, Lang::En] {
            let pages: Vec<&Shown> = wanted.iter().filter(|shown| shown.lang() == lang).collect();
            if pages.is_empty() {
                continue;
            }
            self.look(lang, |sources, view| {
                for shown in pages {
                    let parts = parts_of(sources, &view, &shown.page).unwrap_or_default();
                    let (at_ms, updated) = (view.updated_at_ms, view.updated.clone());
                    rendered.insert(shown.clone(), Rendered { at_ms, updated, parts });
                }
            })
            .await;
        }
        rendered
    }

    /// Hands out what changed. Also when nothing did: a reader has to know that it looks at the present.
    fn tell(&self, rendered: BTreeMap<Shown, Rendered>) {
        let mut guard = self.readers();
        let readers = &mut *guard;
        readers.number += 1;
        for (shown, page) in rendered {
            let Some(sent) = readers.sent.get_mut(&shown) else { continue };
            let changed = |(name, html): &&(&'static str, String)| sent.get(name) != Some(html);
            let parts = page.parts.iter().filter(changed).map(|(name, html)| (*name, html.as_str()));
            let update = Update {
                view: shown.name(),
                build: BUILD,
                at_ms: page.at_ms,
                updated: &page.updated,
                parts: parts.collect(),
            };
            let message = (readers.number, text(&update));
            *sent = page.parts.into_iter().collect();
            readers.all.retain(|reader| {
                if !reader.pages.contains(&shown) {
                    return true;
                }
                let sent = reader.messages.try_send(message.clone());
                if let Err(mpsc::error::TrySendError::Full(_)) = sent {
                    self.inner.cut.fetch_add(1, Ordering::Relaxed);
                }
                sent.is_ok()
            });
        }
    }

    /// What is known of the streams.
    #[must_use]
    pub fn streams(&self) -> Streams {
        let free = self.inner.places.available_permits();
        Streams {
            open: STREAMS_MAX.saturating_sub(free) as u64,
            cut: self.inner.cut.load(Ordering::Relaxed),
            refused: self.inner.refused.load(Ordering::Relaxed),
        }
    }

    fn readers(&self) -> MutexGuard<'_, Readers> {
        self.inner.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn parts_of(sources: &Sources<'_>, view: &View, page: &Page) -> Option<Parts> {
    let words = Words { lang: sources.lang };
    match page {
        Page::Fleet => Some(parts::fleet(view, words, sources.zone)),
        Page::Node(name) => {
            let node = view::node::of(sources, view, name)?;
            Some(parts::node(view, &node, words, sources.zone))
        }
    }
}

fn text(update: &Update<'_>) -> Arc<str> {
    serde_json::to_string(update).unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn pages(directory: &Path) -> Pages {
        let text = "[identity]\nca = \"a\"\ncertificate = \"b\"\nkey = \"c\"\n";
        let mut config = crate::config::parse(Path::new("aggregator.toml"), text).unwrap();
        config.store.directory = directory.to_owned();
        let store = Store::start(&config.store, &[], clock::now()).unwrap();
        let desk = Desk::open(directory).unwrap();
        let effect = InEffect::of(config).unwrap();
        Pages::open(store, desk, watch::channel(Arc::new(effect)).1)
    }

    fn fleet() -> Shown {
        Shown::new(Lang::Ja, Page::Fleet)
    }

    /// One look, with this as the only part.
    fn tell(pages: &Pages, html: String) {
        let rendered = Rendered { at_ms: 1, updated: String::new(), parts: vec![("head", html)] };
        pages.tell(BTreeMap::from([(fleet(), rendered)]));
    }

    #[tokio::test]
    async fn a_slow_reader_is_cut_and_counted_and_nobody_waits_for_it() {
        let directory = tempfile::tempdir().unwrap();
        let pages = pages(directory.path());
        let mut slow = pages.subscribe(BTreeSet::from([fleet()])).unwrap();
        let mut quick = pages.subscribe(BTreeSet::from([fleet()])).unwrap();
        for number in 0..2 * MESSAGES_WAITING_MAX {
            tell(&pages, number.to_string());
            assert!(quick.messages.recv().await.is_some());
        }
        assert_eq!(pages.streams(), Streams { open: 2, cut: 1, refused: 0 });
        let mut held = 0;
        while slow.messages.recv().await.is_some() {
            held += 1;
        }
        assert_eq!(held, MESSAGES_WAITING_MAX, "what was put in order for it is there, then it ends");
        drop(slow);
        assert_eq!(pages.streams().open, 1);
    }

    #[tokio::test]
    async fn a_reader_gets_what_is_there_and_then_only_what_changed() {
        let directory = tempfile::tempdir().unwrap();
        let pages = pages(directory.path());
        let mut first = pages.subscribe(BTreeSet::from([fleet()])).unwrap();
        tell(&pages, "a".into());
        let mut second = pages.subscribe(BTreeSet::from([fleet()])).unwrap();
        tell(&pages, "a".into());
        let said = |reading: &mut Reading| reading.messages.try_recv().map(|(_, text)| text.contains("head"));
        assert_eq!([said(&mut first), said(&mut first)], [Ok(true), Ok(false)]);
        assert_eq!([said(&mut second), said(&mut second)], [Ok(true), Ok(false)]);
        drop((first, second));
        assert!(pages.wanted().is_empty(), "nothing is rendered for nobody");
        assert!(pages.readers().sent.is_empty());
    }

    #[tokio::test]
    async fn pages_that_streams_carry_are_bounded() {
        let directory = tempfile::tempdir().unwrap();
        let pages = pages(directory.path());
        let page = |name: String| Shown::new(Lang::En, Page::of(&format!("node/{name}")).unwrap());
        let mut held = Vec::new();
        for stream in 0..PAGES_MAX / STREAM_PAGES_MAX {
            let own = (0..STREAM_PAGES_MAX).map(|tab| page(format!("n{stream}-{tab}")));
            held.push(pages.subscribe(own.collect()).unwrap());
        }
        assert!(pages.subscribe(BTreeSet::from([fleet()])).is_none());
        assert!(
            pages.subscribe(BTreeSet::from([page("n0-0".into())])).is_some(),
            "one that is rendered anyway"
        );
        assert_eq!(pages.streams().refused, 1);
    }
}
