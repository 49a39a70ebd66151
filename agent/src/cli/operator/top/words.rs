//! What only this screen says of numbers; the other commands say the rest in `values`. Pure.

use std::time::Duration;

use crate::cli::operator::values::span;

/// `12.5 MiB` or `1.2 GiB`.
#[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
pub(super) fn bytes(bytes: u64) -> String {
    const MIB: f64 = 1_048_576.0;
    const GIB: f64 = 1_073_741_824.0;
    let bytes = bytes as f64;
    if bytes < GIB { format!("{:.1} MiB", bytes / MIB) } else { format!("{:.1} GiB", bytes / GIB) }
}

/// How long ago, or how long still, in whole seconds.
pub(super) fn age(age: Duration) -> String {
    if age < Duration::from_secs(10) { format!("{}s", age.as_secs()) } else { span(age.as_secs_f64()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_has_whole_seconds() {
        let told = [0, 9_999, 10_000, 125_000].map(|ms| age(Duration::from_millis(ms)));
        assert_eq!(told, ["0s", "9s", "10s", "2m05s"]);
    }
}
