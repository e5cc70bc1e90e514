//! When something that was put right is worth an Event: not once, but when it happens again and again.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

/// How often, within [`WINDOW`].
const OFTEN: usize = 3;
const WINDOW: Duration = Duration::from_mins(10);
/// What happens in so short a time has one cause: a sweep meets all pods in it.
const TOGETHER: Duration = Duration::from_secs(5);

/// When what was put right, by its kind.
#[derive(Debug, Default)]
pub(super) struct Repetition {
    times: HashMap<&'static str, Times>,
    address_gone: Option<Instant>,
}

#[derive(Debug, Default)]
struct Times {
    recent: VecDeque<Instant>,
    said: Option<Instant>,
}

impl Repetition {
    /// An address of the node is gone, and with it whatever the kernel had by it: routes, and what the agent removes.
    pub(super) fn address_gone(&mut self, now: Instant) {
        self.address_gone = Some(now);
    }

    /// Whether the kernel itself may have removed something of this kind.
    pub(super) fn is_kernels(&self, kind: &str, now: Instant) -> bool {
        let is_recent = |then: Instant| now.saturating_duration_since(then) < 2 * TOGETHER;
        matches!(kind, "route" | "neighbor") && self.address_gone.is_some_and(is_recent)
    }

    /// Takes in that something of this kind was put right. How often in the last minutes, if that is to be said now: it
    /// is not said again before as many minutes are over.
    pub(super) fn add(&mut self, kind: &'static str, now: Instant) -> Option<usize> {
        let is_recent = |then: &Instant| now.saturating_duration_since(*then) < WINDOW;
        let times = self.times.entry(kind).or_default();
        times.recent.retain(is_recent);
        if times.recent.back().is_some_and(|last| now.saturating_duration_since(*last) < TOGETHER) {
            return None;
        }
        times.recent.push_back(now);
        if times.recent.len() < OFTEN || times.said.as_ref().is_some_and(is_recent) {
            return None;
        }
        times.said = Some(now);
        Some(times.recent.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn once_or_twice_is_no_event_and_many_times_are_one() {
        let (mut repetition, start) = (Repetition::default(), Instant::now());
        let mut add = |kind, seconds| repetition.add(kind, start + Duration::from_secs(seconds));
        assert_eq!([add("route", 0), add("route", 700), add("filter", 700), add("route", 705)], [None; 4]);
        assert_eq!(add("route", 710), Some(3));
        assert_eq!(
            [add("route", 715), add("filter", 720), add("route", 1000), add("route", 1100)],
            [None; 4]
        );
        assert_eq!(add("route", 1311), Some(4));
    }

    #[test]
    fn what_many_pods_lose_at_once_is_lost_once() {
        let (mut repetition, start) = (Repetition::default(), Instant::now());
        let mut add = |milliseconds| repetition.add("route", start + Duration::from_millis(milliseconds));
        assert_eq!([0, 20, 40, 2000, 4999].map(&mut add), [None; 5]);
        assert_eq!([5000, 9000, 10_000].map(&mut add), [None, None, Some(3)]);
    }

    #[test]
    fn what_the_kernel_removes_with_an_address_of_the_node_is_nobodys_doing() {
        let (mut repetition, start) = (Repetition::default(), Instant::now());
        assert!(!repetition.is_kernels("route", start));
        repetition.address_gone(start);
        let after = |kind, seconds| repetition.is_kernels(kind, start + Duration::from_secs(seconds));
        assert_eq!([after("route", 0), after("neighbor", 9), after("route", 10)], [true, true, false]);
        assert!(!after("filter", 0));
    }
}
