//! The pauses between attempts, everywhere the same.

use std::time::Duration;

use backon::ExponentialBuilder;

/// Pause after the first failure; doubled after each further one.
pub const MIN_PAUSE: Duration = Duration::from_millis(500);
/// The longest pause.
pub const MAX_PAUSE: Duration = Duration::from_secs(30);

/// From [`MIN_PAUSE`] to [`MAX_PAUSE`], without end: for `backon::Retryable::retry`, or by hand with
/// `backon::BackoffBuilder::build`.
pub fn exponential() -> ExponentialBuilder {
    ExponentialBuilder::new().with_min_delay(MIN_PAUSE).with_max_delay(MAX_PAUSE).without_max_times()
}

#[cfg(test)]
mod tests {
    use backon::BackoffBuilder as _;

    use super::*;

    #[test]
    fn pauses_double_up_to_the_limit_and_never_end() {
        let pauses: Vec<_> = exponential().build().take(100).collect();
        assert_eq!(pauses[..3], [MIN_PAUSE, MIN_PAUSE * 2, MIN_PAUSE * 4]);
        assert!(pauses.len() == 100 && pauses[10..].iter().all(|pause| *pause == MAX_PAUSE));
    }
}
