//! The pauses between attempts, everywhere the same.

use std::time::{Duration, Instant};

use backon::{Backoff, BackoffBuilder as _, ExponentialBuilder};

/// Pause after the first failure; doubled after each further one.
pub const MIN_PAUSE: Duration = Duration::from_millis(500);
/// The longest pause.
pub const MAX_PAUSE: Duration = Duration::from_secs(30);

/// The same where somebody waits for the outcome.
const MIN_SHORT_PAUSE: Duration = Duration::from_millis(50);
const MAX_SHORT_PAUSE: Duration = Duration::from_secs(2);
const SHORT_FACTOR: f32 = 3.0;

/// From [`MIN_PAUSE`] to [`MAX_PAUSE`], without end: for `backon::Retryable::retry`, or by hand with
/// `backon::BackoffBuilder::build`.
pub fn exponential() -> ExponentialBuilder {
    ExponentialBuilder::new().with_min_delay(MIN_PAUSE).with_max_delay(MAX_PAUSE).without_max_times()
}

/// Pauses where somebody waits for the outcome: 50, 150, 450 and 1350 ms, then 2 s each, `attempts` - 1 of them.
pub fn short(attempts: usize) -> ExponentialBuilder {
    let pauses = ExponentialBuilder::new().with_min_delay(MIN_SHORT_PAUSE).with_max_delay(MAX_SHORT_PAUSE);
    pauses.with_factor(SHORT_FACTOR).with_max_times(attempts.saturating_sub(1))
}

/// The pauses of [`short`] until `deadline`: the last attempt begins then.
pub fn until(deadline: Instant) -> impl Backoff {
    let pauses = short(1).without_max_times().build();
    pauses.map_while(move |pause| {
        let remaining = deadline.saturating_duration_since(Instant::now());
        (!remaining.is_zero()).then(|| pause.min(remaining))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_limit_and_never_end() {
        let pauses: Vec<_> = exponential().build().take(100).collect();
        assert_eq!(pauses[..3], [MIN_PAUSE, MIN_PAUSE * 2, MIN_PAUSE * 4]);
        assert!(pauses.len() == 100 && pauses[10..].iter().all(|pause| *pause == MAX_PAUSE));
    }

    #[test]
    fn short_pauses_end_with_the_attempts() {
        let pauses: Vec<_> = short(6).build().map(|pause| pause.as_millis()).collect();
        assert_eq!(pauses, [50, 150, 450, 1350, 2000]);
        assert_eq!(short(1).build().count(), 0);
    }

    #[test]
    fn the_last_attempt_begins_at_the_deadline() {
        let deadline = Instant::now() + Duration::from_hours(1);
        assert!(until(deadline).take(100).all(|pause| pause <= MAX_SHORT_PAUSE));
        assert_eq!(until(deadline).take(100).count(), 100);
        let soon = Duration::from_millis(60);
        assert!(until(Instant::now() + soon).take(3).all(|pause| pause <= soon));
        assert_eq!(until(Instant::now()).next(), None);
    }
}
