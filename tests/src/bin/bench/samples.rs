//! What was measured: samples, their median and spread, and the table or JSON that shows them.

use anyhow::Result;
use serde::{Deserialize, Serialize};

/// Values of one quantity, in the unit that the row names.
#[derive(Debug, Clone, Default)]
pub(crate) struct Samples(Vec<f64>);

impl Samples {
    pub(crate) fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    pub(crate) fn extend(&mut self, values: impl IntoIterator<Item = f64>) {
        self.0.extend(values);
    }

    /// The value below which `share` of the samples lie; nearest rank.
    pub(crate) fn quantile(&self, share: f64) -> Option<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let rank = (share * sorted.len() as f64).ceil() as usize;
        sorted.get(rank.saturating_sub(1)).copied()
    }

    fn median(&self) -> Option<f64> {
        self.quantile(0.5)
    }
}

/// Two-sided 95 % quantiles of Student's t distribution for 1 to 30 degrees of freedom.
const STUDENT: [f64; 30] = [
    12.71, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
];

impl FromIterator<f64> for Samples {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Self {
        Self(values.into_iter().collect())
    }
}

/// Ours, and the peer's where there is one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pair {
    pub(crate) ours: Samples,
    pub(crate) peer: Samples,
}

impl Pair {
    /// Between which ratios (peer by ours) the mean lies with 95 % confidence: by the logarithms of the rounds' own ratios,
    /// because what slows the machine slows both sides of a round. `None` unless each round has both.
    fn ratio_interval(&self) -> Option<(f64, f64)> {
        let (ours, peer) = (&self.ours.0, &self.peer.0);
        if ours.len() != peer.len() || ours.iter().chain(peer).any(|value| *value <= 0.0) {
            return None;
        }
        let quantile = STUDENT.get(ours.len().checked_sub(2)?).copied().unwrap_or(1.96);
        let logs: Vec<f64> = ours.iter().zip(peer).map(|(ours, peer)| (peer / ours).ln()).collect();
        let count = logs.len() as f64;
        let mean = logs.iter().sum::<f64>() / count;
        let variance = logs.iter().map(|log| (log - mean).powi(2)).sum::<f64>() / (count - 1.0);
        let half = quantile * (variance / count).sqrt();
        Some(((mean - half).exp(), (mean + half).exp()))
    }

    pub(crate) fn side(&mut self, side: Side) -> &mut Samples {
        match side {
            Side::Ours => &mut self.ours,
            Side::Peer => &mut self.peer,
        }
    }
}

/// Whose turn it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Ours,
    Peer,
}

/// One line of the report.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) unit: String,
    n: usize,
    min: f64,
    pub(crate) median: f64,
    max: f64,
    peer_median: Option<f64>,
    /// The peer's median divided by ours: above 1, the peer needs more.
    ratio: Option<f64>,
    /// Where the ratio's mean lies with 95 % confidence.
    #[serde(default)]
    ratio_interval: Option<(f64, f64)>,
}

/// All rows of one run.
#[derive(Debug, Default)]
pub(crate) struct Report {
    rows: Vec<Row>,
}

impl Report {
    /// Adds a row; a quantity without samples has none.
    pub(crate) fn add(&mut self, name: impl Into<String>, unit: &str, pair: &Pair) {
        let (Some(min), Some(median), Some(max)) =
            (pair.ours.quantile(0.0), pair.ours.median(), pair.ours.quantile(1.0))
        else {
            return;
        };
        let peer_median = pair.peer.median();
        let ratio = peer_median.filter(|_| median > 0.0).map(|peer| peer / median);
        self.rows.push(Row {
            name: name.into(),
            unit: unit.to_owned(),
            n: pair.ours.0.len(),
            min,
            median,
            max,
            peer_median,
            ratio,
            ratio_interval: pair.ratio_interval(),
        });
    }

    /// Prints the rows as JSON, or as a table for people.
    pub(crate) fn print(&self, json: bool) -> Result<()> {
        if json {
            println!("{}", serde_json::to_string_pretty(&self.rows)?);
            return Ok(());
        }
        println!(
            "{:<44} {:>5} {:>5} {:>10} {:>10} {:>10} {:>10} {:>7} {:>12}",
            "", "unit", "n", "min", "median", "max", "peer", "ratio", "95 %"
        );
        for row in &self.rows {
            let optional = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |v| format!("{v:.2}"));
            println!(
                "{:<44} {:>5} {:>5} {:>10.2} {:>10.2} {:>10.2} {:>10} {:>7} {:>12}",
                row.name,
                row.unit,
                row.n,
                row.min,
                row.median,
                row.max,
                optional(row.peer_median),
                optional(row.ratio),
                row.ratio_interval
                    .map_or_else(|| "-".to_owned(), |(low, high)| format!("{low:.3}-{high:.3}"))
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand: the ratios 2 and 8 have the logarithms' mean ln 4 and deviation ln 2.
    #[test]
    fn the_interval_of_a_ratio_is_that_of_paired_rounds() {
        let pair = |peer: &[f64]| Pair {
            ours: [1.0, 10.0].into_iter().collect(),
            peer: peer.iter().copied().collect(),
        };
        let (low, high) = pair(&[2.0, 80.0]).ratio_interval().unwrap();
        let half = 12.71 * std::f64::consts::LN_2;
        assert!((low.ln() - (4_f64.ln() - half)).abs() < 1e-9, "{low}");
        assert!((high.ln() - (4_f64.ln() + half)).abs() < 1e-9, "{high}");
        assert_eq!(pair(&[3.0, 30.0]).ratio_interval().map(|(low, high)| high - low), Some(0.0));
        assert_eq!(pair(&[3.0]).ratio_interval(), None);
        assert_eq!(Pair::default().ratio_interval(), None);
    }

    #[test]
    fn quantiles_are_nearest_rank() {
        let samples: Samples = [4.0, 1.0, 3.0, 2.0].into_iter().collect();
        assert_eq!(samples.quantile(0.0), Some(1.0));
        assert_eq!(samples.quantile(0.5), Some(2.0));
        assert_eq!(samples.quantile(0.99), Some(4.0));
        assert_eq!(Samples::default().quantile(0.5), None);
    }
}
