//! Sums and means that do not lose small numbers beside large ones (Kahan, Neumaier), as Prometheus
//! computes them; sum, largest and smallest are shared by aggregations and ranges.

/// The sum, with what rounding took added back.
pub(super) fn sum(values: impl IntoIterator<Item = f64>) -> f64 {
    let (mut sum, mut lost) = (0.0_f64, 0.0_f64);
    for value in values {
        let next = sum + value;
        if next.is_infinite() {
            lost = 0.0;
        } else if sum.abs() >= value.abs() {
            lost += (sum - next) + value;
        } else {
            lost += (value - next) + sum;
        }
        sum = next;
    }
    if sum.is_infinite() { sum } else { sum + lost }
}

/// The mean; values whose sum is too large for a number have one too.
pub(super) fn mean(values: impl IntoIterator<Item = f64> + Clone) -> f64 {
    let direct = sum(values.clone()) / count(values.clone());
    if !direct.is_infinite() || values.clone().into_iter().any(f64::is_infinite) {
        return direct;
    }
    let count = count(values.clone());
    sum(values.into_iter().map(|value| value / count))
}

/// How many there are.
#[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
pub(super) fn count(values: impl IntoIterator<Item = f64>) -> f64 {
    values.into_iter().count() as f64
}

/// The largest; NaN only when there is nothing else.
pub(super) fn largest(values: impl IntoIterator<Item = f64>) -> f64 {
    values.into_iter().fold(f64::NAN, f64::max)
}

/// The smallest; NaN only when there is nothing else.
pub(super) fn smallest(values: impl IntoIterator<Item = f64>) -> f64 {
    values.into_iter().fold(f64::NAN, f64::min)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_numbers_survive_large_ones() {
        assert_eq!(sum([1.0, 1e100, 1.0, -1e100]), 2.0);
        assert_eq!(sum([f64::INFINITY, 1.0]), f64::INFINITY);
        assert!(sum([f64::INFINITY, f64::NEG_INFINITY]).is_nan());
    }

    #[test]
    fn a_mean_does_not_overflow() {
        assert_eq!(mean([f64::MAX, f64::MAX]), f64::MAX);
        assert_eq!(mean([f64::INFINITY, 1.0]), f64::INFINITY);
        assert_eq!(mean([1.0, 2.0, 6.0]), 3.0);
    }

    #[test]
    fn nan_is_neither_largest_nor_smallest() {
        assert_eq!(largest([f64::NAN, 1.0, 2.0]), 2.0);
        assert_eq!(smallest([2.0, f64::NAN, 1.0]), 1.0);
        assert!(largest([f64::NAN]).is_nan());
    }
}
