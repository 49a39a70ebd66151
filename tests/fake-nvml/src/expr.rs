//! A value that moves with time: takes the text of a scenario, gives a number for each moment and
//! the area under it (what an energy counter shows). Pure.

use std::f64::consts::TAU;

/// One value of the scenario. Time counts in seconds from the load of the file.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Expr {
    /// The same for ever.
    Constant(f64),
    /// From the first to the second within the third's seconds, then constant.
    Ramp(f64, f64, f64),
    /// Between the first and the second, once around in the third's seconds.
    Sine(f64, f64, f64),
    /// Anything between the two.
    Noise(f64, f64),
}

impl Expr {
    /// Reads `12.5`, `ramp(from,to,seconds)`, `sine(low,high,period)` or `noise(low,high)`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if let Some(number) = finite(text) {
            return Some(Self::Constant(number));
        }
        let (name, rest) = text.strip_suffix(')')?.split_once('(')?;
        let arguments: Vec<f64> = rest.split(',').map(finite).collect::<Option<_>>()?;
        match (name.trim(), arguments.as_slice()) {
            ("ramp", &[from, to, seconds]) if seconds > 0.0 => Some(Self::Ramp(from, to, seconds)),
            ("sine", &[low, high, period]) if period > 0.0 => Some(Self::Sine(low, high, period)),
            ("noise", &[low, high]) => Some(Self::Noise(low, high)),
            _ => None,
        }
    }

    /// The value `t` seconds after the load.
    pub(crate) fn at(self, t: f64) -> f64 {
        let t = t.max(0.0);
        match self {
            Self::Constant(value) => value,
            Self::Ramp(from, to, seconds) => from + (to - from) * (t / seconds).min(1.0),
            Self::Sine(low, high, period) => {
                middle(low, high) + (high - low) / 2.0 * (t * TAU / period).sin()
            }
            Self::Noise(low, high) => low + (high - low) * noise(t),
        }
    }

    /// The area under the value from the load to `t` seconds after it.
    pub(crate) fn area(self, t: f64) -> f64 {
        let t = t.max(0.0);
        match self {
            Self::Constant(value) => value * t,
            Self::Ramp(from, to, seconds) => {
                let rising = t.min(seconds);
                from * rising + (to - from) * rising * rising / (2.0 * seconds) + to * (t - rising)
            }
            Self::Sine(low, high, period) => {
                let turn = period / TAU;
                middle(low, high) * t + (high - low) / 2.0 * turn * (1.0 - (t / turn).cos())
            }
            // Noise has no area that could be known beforehand; its mean is what it adds up to.
            Self::Noise(low, high) => middle(low, high) * t,
        }
    }
}

fn finite(text: &str) -> Option<f64> {
    text.trim().parse().ok().filter(|number: &f64| number.is_finite())
}

fn middle(low: f64, high: f64) -> f64 {
    f64::midpoint(low, high)
}

/// A number in [0, 1) out of a time, the same for the same time: splitmix64 over its bits.
#[expect(clippy::cast_precision_loss, reason = "53 bits are kept on purpose")]
fn noise(t: f64) -> f64 {
    let mut z = t.to_bits().wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_ramp_arrives_and_stays() {
        let ramp = Expr::parse("ramp(60, 97, 20)").unwrap();
        assert_eq!(
            [ramp.at(-1.0), ramp.at(0.0), ramp.at(10.0), ramp.at(20.0), ramp.at(99.0)],
            [60.0, 60.0, 78.5, 97.0, 97.0]
        );
    }

    #[test]
    fn what_is_not_a_value_is_refused() {
        for text in
            ["", "warm", "ramp(1,2)", "ramp(1,2,0)", "sine(1,2,-3)", "noise(1)", "nan", "inf", "ramp(1,x,3)"]
        {
            assert_eq!(Expr::parse(text), None, "{text:?}");
        }
    }

    fn power() -> impl Strategy<Value = Expr> {
        let mw = 0.0..500_000.0_f64;
        prop_oneof![
            mw.clone().prop_map(Expr::Constant),
            (mw.clone(), mw.clone(), 0.1..100.0_f64).prop_map(|(a, b, s)| Expr::Ramp(a, b, s)),
            (mw.clone(), mw.clone(), 0.1..100.0_f64).prop_map(|(a, b, s)| Expr::Sine(a, b, s)),
            (mw.clone(), mw).prop_map(|(a, b)| Expr::Noise(a, b)),
        ]
    }

    proptest! {
        #[test]
        fn energy_never_runs_backwards(power in power(), t in 0.0..10_000.0_f64, step in 0.001..100.0_f64) {
            prop_assert!(power.area(t + step) >= power.area(t) - 1e-3);
        }

        #[test]
        fn a_value_stays_between_its_bounds(low in -100.0..100.0_f64, width in 0.0..100.0_f64, t in 0.0..1e6_f64) {
            let high = low + width;
            for expr in [Expr::Ramp(low, high, 7.0), Expr::Sine(low, high, 7.0), Expr::Noise(low, high)] {
                let value = expr.at(t);
                prop_assert!((low - 1e-9..=high + 1e-9).contains(&value), "{expr:?} at {t} is {value}");
            }
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC{0,40}") {
            let _ = Expr::parse(&text);
        }
    }
}
