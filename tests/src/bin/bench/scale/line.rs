//! A straight line through what was measured.

/// `intercept + slope * x`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Line {
    pub(super) slope: f64,
    intercept: f64,
}

impl Line {
    /// By least squares; `None` unless there are two values of x.
    pub(super) fn through(points: &[(f64, f64)]) -> Option<Self> {
        let count = points.len() as f64;
        let mean = |value: fn(&(f64, f64)) -> f64| points.iter().map(value).sum::<f64>() / count;
        let (mean_x, mean_y) = (mean(|(x, _)| *x), mean(|(_, y)| *y));
        let spread: f64 = points.iter().map(|(x, _)| (x - mean_x).powi(2)).sum();
        let common: f64 = points.iter().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum();
        (spread > 0.0).then(|| {
            let slope = common / spread;
            Self { slope, intercept: mean_y - slope * mean_x }
        })
    }

    pub(super) fn at(self, x: f64) -> f64 {
        self.intercept + self.slope * x
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand: the means are 2 and 3, the sums that are divided 8 and 10.
    #[test]
    fn the_line_is_that_of_least_squares() {
        let line = Line::through(&[(0.0, 1.0), (1.0, 3.0), (3.0, 3.0), (4.0, 5.0)]).unwrap();
        assert!((line.slope - 0.8).abs() < 1e-9 && (line.at(10.0) - 9.4).abs() < 1e-9, "{line:?}");
    }

    #[test]
    fn there_is_no_line_through_one_value_of_x() {
        assert_eq!(Line::through(&[]), None);
        assert_eq!(Line::through(&[(1.0, 2.0)]), None);
        assert_eq!(Line::through(&[(1.0, 2.0), (1.0, 3.0)]), None);
    }
}
