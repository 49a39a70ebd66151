//! The day before the test began: the aggregator's own file of the page's day, as it was left at its
//! last stop. Takes a site that does not run yet; gives values that are known for each ten minutes.

use std::time::Duration;

use diarwatch_shared::clock::{self, UnixMicros, Zone};
use serde_json::{Value, json};

use crate::fleet::{API_P95_SECONDS, ERRORS_RATIO, SESSIONS_PEAK};
use crate::site::Site;

/// Minutes that share a point of a chart.
const STEP: u64 = 10;
/// The hour of [`late`].
const LATE_HOUR: i64 = 22;
const MINUTE: Duration = Duration::from_secs(60);

/// Mean of a figure in a step of the day, as it was fed.
pub(crate) fn fed(figure: &str, step: u64) -> f64 {
    let wave = 1.0 + 0.3 * (step as f64 / 9.0).sin() * (step as f64 / 4.0).cos();
    match figure {
        "api_p95" => API_P95_SECONDS * wave,
        "error_rate" => ERRORS_RATIO * wave,
        _ => (40.0 * wave).round(),
    }
}

/// A zone in which it is late in the evening now: the page is at its heaviest, and midnight, where
/// peaks and curves begin anew, does not fall into the run.
pub(crate) fn late() -> String {
    let hour = i64::try_from(clock::now().0 / 3_600_000_000 % 24).unwrap_or(0);
    let offset = (LATE_HOUR - hour + 11).rem_euclid(24) - 11;
    // These names count westward.
    format!("Etc/GMT{:+}", -offset)
}

/// Writes it, up to now.
pub(crate) fn lived(site: &Site, zone: &str) -> Result<(), String> {
    let now = clock::now();
    let (begins, ends) = Zone::named(zone)?.day(now);
    let passed = now.since(begins).as_secs() / MINUTE.as_secs();
    let figure = |name: &str| {
        let value = |minute: u64| fed(name, minute / STEP);
        let minutes: Vec<Value> = (0..passed)
            .map(|minute| json!([minute, value(minute) * 0.9, value(minute), value(minute) * 1.1, 60]))
            .collect();
        let at = |minute: u64| begins.plus(MINUTE * u32::try_from(minute).unwrap_or(0));
        let peak = (0..passed).max_by(|a, b| value(*a).total_cmp(&value(*b)));
        let most = |minute| if name == "sessions" { SESSIONS_PEAK } else { value(minute) * 1.1 };
        let peak = peak.map(|minute| json!({ "value": most(minute), "at": at(minute) }));
        json!({ "minutes": minutes, "peak": peak })
    };
    let names = ["api_p95", "error_rate", "sessions"];
    let figures: serde_json::Map<String, Value> =
        names.into_iter().map(|name| (name.to_owned(), figure(name))).collect();
    let day = json!({ "version": 1, "begins": begins, "ends": ends, "figures": figures, "standings": {} });
    site.put("store/page-day.json", &day.to_string())
}

/// Steps of the day that are over, the running one and the one before left out.
pub(crate) fn steps_passed(zone: &str) -> u64 {
    let now = clock::now();
    let begins = Zone::named(zone).map_or(UnixMicros(now.0), |zone| zone.day(now).0);
    (now.since(begins).as_secs() / MINUTE.as_secs() / STEP).saturating_sub(1)
}
