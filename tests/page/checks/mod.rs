//! The checks, in order: first those that read a fleet that stands, then those that change it, then
//! those with an aggregator of their own. Takes the browser; gives a line for each check. One that
//! does not end is given up after [`SCENARIO_MAX`], one that panics is a failed check, and the next
//! one runs.

mod bare;
mod faults;
mod hostile;
mod keyboard;
mod language;
mod live;
mod looks;
mod many;
mod network;
mod node;
mod outage;
mod panels;
mod tabs;
mod unscripted;

use std::ops::Range;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::{JoinError, LocalSet};
use tokio::time::timeout;

use crate::day;
use crate::fleet::{self, Voice};
use crate::pipe::{Chromium, Note};
use crate::report::Report;
use crate::site::Site;
use crate::tab::{Profile, Source, Tab, complaint, requests, source};

/// The panels of the page.
pub(crate) const PANELS: [&str; 8] =
    ["services", "api_p95", "error_rate", "sessions", "queue", "alerts", "fleet", "self"];
/// A group of checks that takes longer does not end any more.
const SCENARIO_MAX: Duration = Duration::from_secs(300);
/// The page says that its numbers are of now.
pub(crate) const LIVE: &str = "document.querySelector('#live')?.dataset.state === 'live'";

/// What the checks share: the browser, the report, and a fed fleet.
pub(crate) struct Stage {
    pub(crate) chromium: Arc<Chromium>,
    pub(crate) report: Arc<Report>,
    pub(crate) site: Site,
    pub(crate) voices: Vec<Voice>,
    /// The zone of its day.
    pub(crate) zone: String,
    excused: Mutex<Vec<(Range<usize>, Source)>>,
}

impl Stage {
    /// A browser's user who has never been here, and their first tab at a path of the fed page.
    pub(crate) async fn visitor(&self, path: &str) -> Result<(Profile, Tab), String> {
        let profile = Profile::new(&self.chromium).await?;
        let tab = Tab::at(&profile, &format!("{}{path}", self.site.url())).await?;
        Ok((profile, tab))
    }

    /// What was told from a mark on is no complaint, where it comes from there: the check made it.
    pub(crate) fn excuse(&self, from: usize, source: Source) {
        self.excused.lock().unwrap().push((from..self.chromium.pipe.mark(), source));
    }
}

type Scenario = Pin<Box<dyn Future<Output = Result<(), String>>>>;

/// Runs all of them, or those of one name.
pub(crate) async fn all(chromium: &Arc<Chromium>, report: &Arc<Report>, only: Option<&str>) {
    let stage = match stage(Arc::clone(chromium), Arc::clone(report)).await {
        Ok(stage) => Arc::new(stage),
        Err(error) => return report.check("the fed fleet stands", false, "it to stand", error),
    };
    let scenarios = scenarios(&stage);
    if let Some(only) = only.filter(|only| !scenarios.iter().any(|(name, _)| name == only)) {
        let names: Vec<&str> = scenarios.iter().map(|(name, _)| *name).collect();
        return report.check("there are checks of that name", false, names.join(" "), only);
    }
    for (name, scenario) in scenarios {
        if only.is_none_or(|only| only == name) {
            println!("{name}");
            let ended = alone(timeout(SCENARIO_MAX, scenario)).await;
            let whole = match ended {
                Ok(Ok(ended)) => ended,
                Ok(Err(_)) => Err(format!("it did not end in {} s", SCENARIO_MAX.as_secs())),
                Err(panicked) => Err(panicked.to_string()),
            };
            if whole.is_err() {
                report.done(format!("{name} runs to its end"), &whole);
            }
        }
    }
    console(&stage);
}

fn scenarios(stage: &Arc<Stage>) -> Vec<(&'static str, Scenario)> {
    macro_rules! named {
        ($($name:ident)*) => { vec![$((stringify!($name), Box::pin($name::check(Arc::clone(stage))))),*] };
    }
    named!(faults panels language unscripted network looks keyboard node tabs live bare outage hostile many)
}

/// In a task of its own, so that a panic ends nothing else.
async fn alone<T: 'static>(scenario: impl Future<Output = T> + 'static) -> Result<T, JoinError> {
    let tasks = LocalSet::new();
    let running = tasks.spawn_local(scenario);
    tasks.run_until(running).await
}

async fn stage(chromium: Arc<Chromium>, report: Arc<Report>) -> Result<Stage, String> {
    let zone = day::late();
    let (site, voices) = fleet::standing(&zone, "").await?;
    Ok(Stage { chromium, report, site, voices, zone, excused: Mutex::default() })
}

/// Over everything that the run saw: nothing was complained of, nothing asked elsewhere.
fn console(stage: &Stage) {
    let notes = stage.chromium.pipe.since(0);
    let excused = stage.excused.lock().unwrap();
    let is_excused =
        |at: usize, of: Source| excused.iter().any(|(range, source)| range.contains(&at) && *source == of);
    let complaints: Vec<String> = notes
        .iter()
        .enumerate()
        .filter(|(at, note)| !is_excused(*at, source(note)))
        .filter_map(|(_, note)| complaint(note))
        .collect();
    let elsewhere = notes.iter().enumerate().filter(|(at, _)| !is_excused(*at, Source::Elsewhere));
    let elsewhere: Vec<Note> = elsewhere.map(|(_, note)| note.clone()).collect();
    let own = ["http://127.0.0.1:", "data:", "blob:http://127.0.0.1:", "about:"];
    let outside: Vec<String> = requests(&elsewhere)
        .into_iter()
        .map(|request| request.url)
        .filter(|url| !own.iter().any(|own| url.starts_with(own)))
        .collect();
    println!("console");
    stage.report.figures(|figures| {
        figures.console_errors = complaints.len();
        figures.external_requests = outside.len();
    });
    stage.report.none("no error, warning, fault or policy breach in any tab or worker", &complaints);
    stage.report.none("no request went anywhere but to the aggregator", &outside);
}
