//! What an API server was asked for, by its own metrics: unlike times, counts do not depend on what else the machine does.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::Result;
use spiderpool_tests::control_plane::ControlPlane;

use crate::metrics::lines;
use crate::samples::{Pair, Report, Side};

const METRIC: &str = "apiserver_request_total";
const GROUP: &str = "spiderpool.spidernet.io";

/// What was asked for, and the HTTP status of the answer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Request {
    verb: String,
    resource: String,
    code: String,
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.verb, self.resource, self.code)
    }
}

/// Requests for our kinds, since the API server's start.
#[derive(Debug, Clone, Default)]
pub(crate) struct Requests(BTreeMap<Request, f64>);

impl Requests {
    pub(crate) fn read(plane: &ControlPlane) -> Result<Self> {
        Self::parse(&plane.kubectl(&["get", "--raw", "/metrics"])?)
    }

    fn parse(metrics: &str) -> Result<Self> {
        let mut counts = BTreeMap::new();
        for line in lines(metrics, METRIC) {
            let line = line?;
            let label = |name| line.label(name).to_owned();
            if line.label("group") == GROUP && line.label("verb") != "WATCH" {
                let request =
                    Request { verb: label("verb"), resource: label("resource"), code: label("code") };
                *counts.entry(request).or_insert(0.0) += line.value;
            }
        }
        Ok(Self(counts))
    }

    /// Those that have come since `earlier`.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        let new = |(key, count): (&Request, &f64)| (key.clone(), count - earlier.0.get(key).unwrap_or(&0.0));
        Self(self.0.iter().map(new).filter(|(_, count)| *count > 0.0).collect())
    }

    /// Writes, successful or not, of who has an address: those of SpiderIPAddresses or, where there is none (upstream's agents), of
    /// pools.
    pub(crate) fn address_writes(&self) -> f64 {
        let addresses = self.writes("spideripaddresses");
        if addresses > 0.0 { addresses } else { self.writes("spiderippools") }
    }

    /// How many objects of a resource were made.
    pub(crate) fn created(&self, resource: &str) -> f64 {
        let is_creation = |request: &Request| {
            (&*request.verb, &*request.resource, &*request.code) == ("POST", resource, "201")
        };
        self.0.iter().filter(|(request, _)| is_creation(request)).map(|(_, count)| count).sum()
    }

    fn writes(&self, resource: &str) -> f64 {
        let is_write = |request: &Request| {
            request.resource == resource && !matches!(request.verb.as_str(), "GET" | "LIST")
        };
        self.0.iter().filter(|(request, _)| is_write(request)).map(|(_, count)| count).sum()
    }
}

/// The rows of all kinds of requests.
#[derive(Debug, Default)]
pub(crate) struct RequestRows(BTreeMap<Request, Pair>);

impl RequestRows {
    pub(crate) fn add(&mut self, side: Side, requests: &Requests) {
        for (request, count) in &requests.0 {
            self.0.entry(request.clone()).or_default().side(side).push(*count);
        }
    }

    pub(crate) fn report(&self, report: &mut Report, name: &str) {
        for (request, pair) in &self.0 {
            report.add(format!("{name}: {request}"), "", pair);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(group: &str, verb: &str, resource: &str, code: u16, count: u32) -> String {
        format!(
            "apiserver_request_total{{code=\"{code}\",component=\"apiserver\",dry_run=\"\",group=\"{group}\",\
             resource=\"{resource}\",scope=\"resource\",subresource=\"\",verb=\"{verb}\",version=\"v\"}} {count}\n"
        )
    }

    #[test]
    fn requests_for_our_kinds_are_counted_by_verb_resource_and_status() {
        let create = |group: &str, code, count| line(group, "POST", "spideripaddresses", code, count);
        let before = Requests::parse(&create(GROUP, 201, 5)).unwrap();
        let after =
            ["# HELP x\n", &create(GROUP, 201, 8), &create(GROUP, 409, 2), &create("apps", 201, 9)].concat();
        let new = Requests::parse(&after).unwrap().since(&before);
        let expected = [("POST spideripaddresses 201", 3.0), ("POST spideripaddresses 409", 2.0)];
        let found: Vec<_> = new.0.iter().map(|(request, count)| (request.to_string(), *count)).collect();
        assert_eq!(found, expected.map(|(request, count)| (request.to_owned(), count)));
        assert!((new.created("spideripaddresses") - 3.0).abs() < 1e-9, "not those that were refused");
    }

    #[test]
    fn collisions_are_writes_of_addresses_and_pools_count_where_no_address_is_written() {
        let pools =
            line(GROUP, "PUT", "spiderippools", 409, 4) + &line(GROUP, "GET", "spiderippools", 200, 9);
        assert!((Requests::parse(&pools).unwrap().address_writes() - 4.0).abs() < 1e-9);
        let addresses = line(GROUP, "POST", "spideripaddresses", 201, 2)
            + &line(GROUP, "POST", "spideripaddresses", 409, 1)
            + &line(GROUP, "LIST", "spideripaddresses", 200, 7);
        assert!((Requests::parse(&(pools + &addresses)).unwrap().address_writes() - 3.0).abs() < 1e-9);
    }
}
