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
    unit: String,
    n: usize,
    min: f64,
    pub(crate) median: f64,
    max: f64,
    peer_median: Option<f64>,
    /// The peer's median divided by ours: above 1, the peer needs more.
    ratio: Option<f64>,
}

/// All rows of one run.
#[derive(Debug, Default)]
pub(crate) struct Report {
    rows: Vec<Row>,
}

impl Report {
    /// Adds a row; a quantity without samples has none.
    pub(crate) fn add(&mut self, name: impl Into<String>, unit: &'static str, pair: &Pair) {
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
        });
    }

    /// Prints the rows as JSON, or as a table for people.
    pub(crate) fn print(&self, json: bool) -> Result<()> {
        if json {
            println!("{}", serde_json::to_string_pretty(&self.rows)?);
            return Ok(());
        }
        println!(
            "{:<44} {:>5} {:>5} {:>10} {:>10} {:>10} {:>10} {:>7}",
            "", "unit", "n", "min", "median", "max", "peer", "ratio"
        );
        for row in &self.rows {
            let optional = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |v| format!("{v:.2}"));
            println!(
                "{:<44} {:>5} {:>5} {:>10.2} {:>10.2} {:>10.2} {:>10} {:>7}",
                row.name,
                row.unit,
                row.n,
                row.min,
                row.median,
                row.max,
                optional(row.peer_median),
                optional(row.ratio)
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_nearest_rank() {
        let samples: Samples = [4.0, 1.0, 3.0, 2.0].into_iter().collect();
        assert_eq!(samples.quantile(0.0), Some(1.0));
        assert_eq!(samples.quantile(0.5), Some(2.0));
        assert_eq!(samples.quantile(0.99), Some(4.0));
        assert_eq!(Samples::default().quantile(0.5), None);
    }
}
