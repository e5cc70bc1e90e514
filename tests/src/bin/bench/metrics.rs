//! An API server's metrics, in the text format of Prometheus.

use anyhow::{Context as _, Result};

/// One line of a metric: its labels and its value.
#[derive(Debug)]
pub(crate) struct Line<'a> {
    labels: &'a str,
    pub(crate) value: f64,
}

impl Line<'_> {
    /// The value of a label; empty if there is none. Not of labels whose values have commas.
    pub(crate) fn label(&self, name: &str) -> &str {
        let mut labels = self.labels.split(',');
        let value = labels.find_map(|label| label.strip_prefix(name)?.strip_prefix("=\""));
        value.and_then(|value| value.strip_suffix('"')).unwrap_or_default()
    }
}

/// The lines of a metric that has labels.
pub(crate) fn lines<'a>(text: &'a str, metric: &'a str) -> impl Iterator<Item = Result<Line<'a>>> {
    let of_metric = text.lines().filter_map(move |line| line.strip_prefix(metric)?.strip_prefix('{'));
    of_metric.map(|line| {
        let (labels, value) = line.rsplit_once("} ").context("a metric without a value")?;
        Ok(Line { labels, value: value.parse().context("the value of a metric")? })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_one_metric_are_found_with_their_labels() {
        let text = "# HELP requests x\nrequests{verb=\"GET\",verbose=\"\"} 2\nrequests_total{verb=\"PUT\"} 3\n\
                    requests{resource=\"pods\"} 1.5e+06\n";
        let found: Vec<_> = lines(text, "requests").map(Result::unwrap).collect();
        let seen: Vec<_> =
            found.iter().map(|line| (line.label("verb"), line.label("resource"), line.value)).collect();
        assert_eq!(seen, [("GET", "", 2.0), ("", "pods", 1_500_000.0)]);
        assert!(lines("requests{} x", "requests").next().unwrap().is_err());
    }
}
