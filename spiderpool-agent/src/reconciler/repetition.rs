//! When something that was put right is worth an Event: not once, but when it happens again and again.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

/// How often, within [`WINDOW`].
const OFTEN: usize = 3;
const WINDOW: Duration = Duration::from_mins(10);

/// When what was put right, by its kind.
#[derive(Debug, Default)]
pub(super) struct Repetition(HashMap<&'static str, Times>);

#[derive(Debug, Default)]
struct Times {
    recent: VecDeque<Instant>,
    said: Option<Instant>,
}

impl Repetition {
    /// Takes in that something of this kind was put right. How often in the last minutes, if that is to be said now: it
    /// is not said again before as many minutes are over.
    pub(super) fn add(&mut self, kind: &'static str, now: Instant) -> Option<usize> {
        let is_recent = |then: &Instant| now.saturating_duration_since(*then) < WINDOW;
        let times = self.0.entry(kind).or_default();
        times.recent.push_back(now);
        times.recent.retain(is_recent);
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
}
