//! Axes: which numbers stand at the ticks, and where a value is between the ends.

/// From values to shares of an axis.
#[derive(Clone, Debug, PartialEq)]
pub struct Scale {
    low: f64,
    high: f64,
    log: bool,
    ticks: Vec<f64>,
}

/// Positive values that span more than this factor get a logarithmic axis.
const LOG_ABOVE: f64 = 50.0;

impl Scale {
    /// A linear axis from the least to the largest of the values, which are finite, with about `count` ticks.
    pub fn linear(values: impl Iterator<Item = f64>, count: usize) -> Self {
        let (low, high) = ends(values);
        let (low, high) = if low < high { (low, high) } else { (low - 0.5 * apart(low), high + 0.5 * apart(high)) };
        let ticks = linear_ticks(low, high, step(low, high, count));
        Self { low, high, log: false, ticks }
    }

    /// As [`Scale::linear`], for values that count something: ticks are whole numbers.
    pub fn whole(values: impl Iterator<Item = f64>, count: usize) -> Self {
        let mut scale = Self::linear(values, count);
        scale.ticks.retain(|tick| (tick - tick.round()).abs() < 1e-9);
        scale
    }

    /// An axis whose ends are ticks, logarithmic where the values span orders of magnitude.
    pub fn fitting(values: impl Iterator<Item = f64> + Clone, count: usize) -> Self {
        let (low, high) = ends(values.clone());
        if low > 0.0 && high / low > LOG_ABOVE {
            return Self::logarithmic(low, high, count);
        }
        let Self { mut low, mut high, .. } = Self::linear(values, count);
        let step = step(low, high, count);
        (low, high) = ((low / step + 1e-9).floor() * step, (high / step - 1e-9).ceil() * step);
        Self { low, high, log: false, ticks: linear_ticks(low, high, step) }
    }

    fn logarithmic(low: f64, high: f64, count: usize) -> Self {
        let (first, last) = (low.log10().floor() as i32, high.log10().ceil() as i32);
        let every = ((last - first) as usize).div_ceil(count).max(1);
        let ticks = (first..=last).step_by(every).map(|e| 10f64.powi(e)).collect();
        Self { low: 10f64.powi(first), high: 10f64.powi(last), log: true, ticks }
    }

    /// Where labels stand.
    pub fn ticks(&self) -> &[f64] {
        &self.ticks
    }

    /// 0 at the low end, 1 at the high one.
    pub fn share(&self, v: f64) -> f64 {
        let f = |v: f64| if self.log { v.max(self.low).ln() } else { v };
        (f(v) - f(self.low)) / (f(self.high) - f(self.low))
    }
}

fn ends(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)))
}

/// What an axis spans around a single value.
fn apart(v: f64) -> f64 {
    if v == 0.0 { 1.0 } else { v.abs() * 0.2 }
}

/// 1, 2 or 5 times a power of ten, `count` of which span the axis at most.
fn step(low: f64, high: f64, count: usize) -> f64 {
    let least = (high - low) / count as f64;
    let power = 10f64.powf(least.log10().floor());
    [1.0, 2.0, 5.0].into_iter().map(|m| m * power).find(|s| *s >= least * (1.0 - 1e-9)).unwrap_or(10.0 * power)
}

fn linear_ticks(low: f64, high: f64, step: f64) -> Vec<f64> {
    let (first, last) = ((low / step - 1e-9).ceil() as i64, (high / step + 1e-9).floor() as i64);
    (first..=last).map(|k| k as f64 * step).collect()
}

/// A number for people: four digits, without zeros at the end; very small and very large ones with a power of ten.
pub fn number(v: f64) -> String {
    let size = v.abs();
    if !v.is_finite() {
        return if v.is_nan() { "not a number".to_owned() } else { format!("{v}") };
    }
    if v == 0.0 {
        return "0".to_owned();
    }
    if !(1e-3..1e6).contains(&size) {
        let text = format!("{v:.3e}");
        let (digits, power) = text.split_once('e').unwrap_or((&text, "0"));
        return format!("{}e{power}", trimmed(digits));
    }
    let decimals = (3 - size.log10().floor() as i32).max(0) as usize;
    trimmed(&format!("{v:.decimals$}")).to_owned()
}

fn trimmed(digits: &str) -> &str {
    if digits.contains('.') { digits.trim_end_matches('0').trim_end_matches('.') } else { digits }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        for (v, expected) in [
            (0.0, "0"),
            (1.0, "1"),
            (-2.5, "-2.5"),
            (0.05, "0.05"),
            (0.1 + 0.2, "0.3"),
            (22.5431, "22.54"),
            (4096.0, "4096"),
            (123_456.7, "123457"),
            (1e6, "1e6"),
            (2e-4, "2e-4"),
            (1.25e-7, "1.25e-7"),
            (f64::NAN, "not a number"),
        ] {
            assert_eq!(number(v), expected);
        }
    }

    #[test]
    fn ticks_are_round_and_inside() {
        let scale = Scale::linear([0.0, 8.0].into_iter(), 6);
        assert_eq!(scale.ticks(), [0.0, 2.0, 4.0, 6.0, 8.0]);
        let scale = Scale::fitting([0.13, 0.92].into_iter(), 5);
        assert!(scale.share(0.13) > 0.0 && scale.share(0.92) < 1.0);
        for values in [[0.13, 0.92], [13.84, 16.22]] {
            let scale = Scale::fitting(values.into_iter(), 5);
            let ends = [scale.ticks().first(), scale.ticks().last()].map(|t| scale.share(*t.unwrap()));
            assert!((ends[0] - 0.0).abs() < 1e-12 && (ends[1] - 1.0).abs() < 1e-12, "{ends:?}");
        }
    }

    #[test]
    fn laps_are_whole() {
        assert_eq!(Scale::whole([1.0, 3.0].into_iter(), 6).ticks(), [1.0, 2.0, 3.0]);
        assert_eq!(Scale::whole([0.0, 1.0].into_iter(), 6).ticks(), [0.0, 1.0]);
    }

    #[test]
    fn one_value_still_has_an_axis() {
        for v in [0.0, -3.0, 1e-9, 1e9] {
            let scale = Scale::fitting([v].into_iter(), 5);
            let share = scale.share(v);
            assert!((0.0..=1.0).contains(&share) && scale.ticks().len() > 1, "{v} {scale:?}");
        }
    }

    #[test]
    fn orders_of_magnitude_are_logarithmic() {
        let scale = Scale::fitting([2e-4, 1.0].into_iter(), 5);
        assert_eq!(scale.ticks().len(), 5);
        assert!((scale.share(1e-2) - 0.5).abs() < 1e-12);
    }
}
