//! What an API server was asked for, by its own metrics: unlike times, counts do not depend on what else the machine does.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use spiderpool_tests::control_plane::ControlPlane;

use crate::samples::{Pair, Report, Side};

const METRIC: &str = "apiserver_request_total{";
const GROUP: &str = "spiderpool.spidernet.io";

/// Requests for our kinds by verb, resource and HTTP status, since the API server's start.
#[derive(Debug, Clone, Default)]
pub(crate) struct Requests(BTreeMap<String, f64>);

impl Requests {
    pub(crate) fn read(plane: &ControlPlane) -> Result<Self> {
        Self::parse(&plane.kubectl(&["get", "--raw", "/metrics"])?)
    }

    fn parse(metrics: &str) -> Result<Self> {
        let mut counts = BTreeMap::new();
        for line in metrics.lines().filter_map(|line| line.strip_prefix(METRIC)) {
            let (labels, count) = line.rsplit_once("} ").context("a metric without a value")?;
            let label =
                |name: &str| labels.split(',').find_map(|label| label.strip_prefix(&format!("{name}=\"")));
            let value = |name| label(name).map(|value| value.trim_end_matches('"')).unwrap_or_default();
            if value("group") == GROUP && value("verb") != "WATCH" {
                let key = format!("{} {} {}", value("verb"), value("resource"), value("code"));
                *counts.entry(key).or_insert(0.0) += count.parse::<f64>().context("a count")?;
            }
        }
        Ok(Self(counts))
    }

    /// Those that have come since `earlier`.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        let new = |(key, count): (&String, &f64)| (key.clone(), count - earlier.0.get(key).unwrap_or(&0.0));
        Self(self.0.iter().map(new).filter(|(_, count)| *count > 0.0).collect())
    }
}

/// The rows of all kinds of requests.
#[derive(Debug, Default)]
pub(crate) struct RequestRows(BTreeMap<String, Pair>);

impl RequestRows {
    pub(crate) fn add(&mut self, side: Side, requests: &Requests) {
        for (key, count) in &requests.0 {
            self.0.entry(key.clone()).or_default().side(side).push(*count);
        }
    }

    pub(crate) fn report(&self, report: &mut Report, name: &str) {
        for (key, pair) in &self.0 {
            report.add(format!("{name}: {key}"), "", pair);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_for_our_kinds_are_counted_by_verb_resource_and_status() {
        let line = |group: &str, code, count| {
            format!(
                "apiserver_request_total{{code=\"{code}\",component=\"apiserver\",dry_run=\"\",group=\"{group}\",\
                 resource=\"spideripaddresses\",scope=\"resource\",subresource=\"\",verb=\"POST\",version=\"v\"}} {count}\n"
            )
        };
        let before = Requests::parse(&line(GROUP, 201, 5)).unwrap();
        let after =
            ["# HELP x\n", &line(GROUP, 201, 8), &line(GROUP, 409, 2), &line("apps", 201, 9)].concat();
        let new = Requests::parse(&after).unwrap().since(&before);
        let expected = [("POST spideripaddresses 201", 3.0), ("POST spideripaddresses 409", 2.0)];
        assert_eq!(new.0, expected.map(|(key, count)| (key.to_owned(), count)).into());
    }
}
