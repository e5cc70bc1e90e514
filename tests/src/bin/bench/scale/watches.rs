//! Watches of an API server: how many are open, and how many events they were sent, by its own metrics.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use spiderpool_tests::control_plane::ControlPlane;
use spiderpool_tests::poll;

use crate::cpu;
use crate::metrics::lines;

/// All watches are open within so much time: clients pause for up to half a minute between two attempts.
pub(super) const LIMIT: Duration = Duration::from_mins(5);
/// So often in a row nothing may have changed, some tenths of a second apart.
const LOOKS: usize = 5;
/// The API groups of what agents watch; in the core group the API server has watches of its own.
const GROUPS: [&str; 2] = ["", "spiderpool.spidernet.io"];

/// By resource, whoever watches.
#[derive(Debug, Default)]
pub(super) struct Watches {
    open: BTreeMap<String, f64>,
    /// Since the API server's start.
    events: BTreeMap<String, f64>,
}

impl Watches {
    pub(super) fn read(plane: &ControlPlane) -> Result<Self> {
        Self::parse(&plane.kubectl(&["get", "--raw", "/metrics"])?)
    }

    /// When no more watches are opened; and the API server's CPU time when that was so for the first time.
    pub(super) async fn read_settled(plane: &ControlPlane) -> Result<(Self, Duration)> {
        let (mut open, mut cpu, mut unchanged) = (BTreeMap::new(), Duration::ZERO, 0);
        poll::until_async("watches are opened no more", LIMIT, async || {
            let (watches, cpu_now) = (Self::read(plane)?, cpu::of_api_server(plane)?);
            if watches.open == open {
                unchanged += 1;
            } else {
                (unchanged, cpu) = (0, cpu_now);
                open.clone_from(&watches.open);
            }
            ensure!(unchanged >= LOOKS, "{open:?}");
            Ok((watches, cpu))
        })
        .await
    }

    fn parse(metrics: &str) -> Result<Self> {
        let mut watches = Self::default();
        for line in lines(metrics, "apiserver_longrunning_requests") {
            let line = line?;
            if line.label("verb") == "WATCH" && GROUPS.contains(&line.label("group")) {
                *watches.open.entry(line.label("resource").to_owned()).or_default() += line.value;
            }
        }
        for line in lines(metrics, "apiserver_watch_events_total") {
            let line = line?;
            *watches.events.entry(line.label("resource").to_owned()).or_default() += line.value;
        }
        Ok(watches)
    }

    pub(super) fn all_open(&self) -> f64 {
        self.open.values().sum()
    }

    /// The resources that each of so many agents watches: those of which half as many more watches are open at least than in
    /// `without`, when there was no agent. Some may be about to be opened again.
    pub(super) fn of_agents(&self, without: &Self, agents: usize) -> Vec<&str> {
        let more = |resource: &str, open: f64| open - without.open.get(resource).copied().unwrap_or_default();
        let of_agents =
            self.open.iter().filter(|(resource, open)| more(resource, **open) >= agents as f64 / 2.0);
        of_agents.map(|(resource, _)| resource.as_str()).collect()
    }

    /// Events of a resource.
    pub(super) fn events(&self, resource: &str) -> f64 {
        self.events.get(resource).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics(pods: u32, nodes: u32, events: u32) -> Watches {
        let open = |resource: &str, verb: &str, count: u32| {
            format!(
                "apiserver_longrunning_requests{{group=\"\",resource=\"{resource}\",verb=\"{verb}\"}} {count}\n"
            )
        };
        let text = open("pods", "WATCH", pods)
            + &open("nodes", "WATCH", nodes)
            + &open("pods", "CONNECT", 9)
            + "apiserver_longrunning_requests{group=\"apps\",resource=\"deployments\",verb=\"WATCH\"} 50\n"
            + &format!(
                "apiserver_watch_events_total{{group=\"\",resource=\"pods\",version=\"v1\"}} {events}\n"
            );
        Watches::parse(&text).unwrap()
    }

    #[test]
    fn what_agents_watch_is_what_more_watches_are_open_of_with_them() {
        let (before, after) = (metrics(2, 1, 10), metrics(5, 3, 25));
        assert_eq!(after.of_agents(&before, 5), ["pods"]);
        assert_eq!(after.of_agents(&before, 4), ["nodes", "pods"]);
        assert!((after.all_open() - before.all_open() - 5.0).abs() < 1e-9);
    }

    #[test]
    fn events_are_those_of_a_resource() {
        let watches = metrics(1, 1, 10);
        assert!((watches.events("pods") - 10.0).abs() < 1e-9 && watches.events("nodes").abs() < 1e-9);
    }
}
