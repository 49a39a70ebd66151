//! Numbers and reasons as people read them. Pure; every text is as short as its column.

use std::time::Duration;

use diarwatch_shared::texts::{Lang, Text};

/// Stands for a reason that was not told.
pub(super) const UNTOLD: &str = "?";
const GIB: f64 = 1_073_741_824.0;
const MIB: f64 = 1_048_576.0;

/// Why a value is not there, in a person's language; a word of a later version stays as it is.
pub(super) fn why(word: &str, lang: Lang) -> &str {
    let text = match word {
        "not_supported" => Text::TopWhyNotSupported,
        "lost" => Text::TopWhyLost,
        "no_driver" => Text::TopWhyNoDriver,
        "timeout" => Text::TopWhyTimeout,
        "not_yet" => Text::TopWhyNotYet,
        "no_permission" => Text::TopWhyNoPermission,
        "failed" => Text::TopWhyFailed,
        UNTOLD => Text::TopWhyUnknown,
        _ => return word,
    };
    text.in_lang(lang)
}

/// What happened, in a person's language; a kind of a later version stays as it is.
pub(super) fn happened(kind: &str, lang: Lang) -> &str {
    let text = match kind {
        "agent_started" => Text::TopEventAgentStarted,
        "worker_started" => Text::TopEventWorkerStarted,
        "worker_ready" => Text::TopEventWorkerReady,
        "worker_not_ready" => Text::TopEventWorkerNotReady,
        "worker_start_overdue" => Text::TopEventStartOverdue,
        "worker_exited" => Text::TopEventWorkerExited,
        "gpu_driver_unresponsive" => Text::TopEventDriverHangs,
        "gpu_driver_recovered" => Text::TopEventDriverBack,
        "gpu_driver_absent" => Text::TopEventNoDriver,
        _ => return kind,
    };
    text.in_lang(lang)
}

/// `42%`.
pub(super) fn percent(ratio: f64) -> String {
    format!("{:.0}%", ratio * 100.0)
}

/// `3.2/8.0 GiB`.
pub(super) fn memory(used: f64, total: f64) -> String {
    format!("{:.1}/{:.1} GiB", used / GIB, total / GIB)
}

/// `3.2 GiB`.
pub(super) fn gib(bytes: f64) -> String {
    format!("{:.1} GiB", bytes / GIB)
}

/// `12.5 MiB` or `1.2 GiB`.
#[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
pub(super) fn bytes(bytes: u64) -> String {
    let bytes = bytes as f64;
    if bytes < GIB { format!("{:.1} MiB", bytes / MIB) } else { format!("{:.1} GiB", bytes / GIB) }
}

/// `4.2s`, `42s`, `12m05s`, `3h20m`, `5d`.
pub(super) fn seconds(seconds: f64) -> String {
    const MINUTE: f64 = 60.0;
    const HOUR: f64 = 3_600.0;
    const DAY: f64 = 86_400.0;
    if seconds < 9.95 {
        return format!("{seconds:.1}s");
    }
    // Rounded first, so that 59.7 s is a minute and not `60s`.
    let seconds = seconds.round();
    if seconds < MINUTE {
        format!("{seconds:.0}s")
    } else if seconds < HOUR {
        format!("{:.0}m{:02.0}s", (seconds / MINUTE).floor(), seconds % MINUTE)
    } else if seconds < 2.0 * DAY {
        format!("{:.0}h{:02.0}m", (seconds / HOUR).floor(), (seconds % HOUR / MINUTE).floor())
    } else if seconds < 1_000.0 * DAY {
        format!("{:.0}d", seconds / DAY)
    } else {
        String::from(">999d")
    }
}

/// Milliseconds as [`seconds`].
#[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
pub(super) fn milliseconds(ms: u64) -> String {
    seconds(ms as f64 / 1_000.0)
}

/// How long ago, in whole seconds.
pub(super) fn age(age: Duration) -> String {
    if age < Duration::from_secs(10) {
        format!("{}s", age.as_secs())
    } else {
        seconds(age.as_secs_f64().floor())
    }
}

/// A count, whole when it is.
pub(super) fn count(count: f64) -> String {
    if count.fract() == 0.0 { format!("{count:.0}") } else { format!("{count:.1}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_stay_short_at_every_size() {
        let told = [
            (0.0, "0.0s"),
            (9.96, "10s"),
            (59.6, "1m00s"),
            (725.0, "12m05s"),
            (3_599.7, "1h00m"),
            (12_000.0, "3h20m"),
            (432_000.0, "5d"),
            (1e300, ">999d"),
        ];
        for (value, text) in told {
            assert_eq!(seconds(value), text);
        }
    }

    #[test]
    fn a_reason_of_a_later_version_is_shown_as_it_came() {
        assert_eq!(why("lost", Lang::Ja), "消失");
        assert_eq!(why("on_holiday", Lang::Ja), "on_holiday");
        assert_eq!(happened("worker_levitated", Lang::En), "worker_levitated");
    }
}
