//! Waiting for something to become true, always with a deadline.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// The shortest and the longest pause between two looks.
const STEPS: [Duration; 2] = [Duration::from_millis(10), Duration::from_millis(200)];

/// The pause after a look that took so long: whoever waits leaves the machine to those that he waits for.
fn pause(took: Duration) -> Duration {
    took.clamp(STEPS[0], STEPS[1])
}

/// Calls `check` until it returns a value; after `limit` fails with `what` and the last reason.
pub fn until<T>(what: &str, limit: Duration, mut check: impl FnMut() -> Result<T>) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        let begun = Instant::now();
        let error = match check() {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        if Instant::now() >= deadline {
            bail!("{what}: not within {limit:?}: {error:#}");
        }
        thread::sleep(pause(begun.elapsed()));
    }
}

/// As [`until`], for futures.
pub async fn until_async<T>(
    what: &str,
    limit: Duration,
    mut check: impl AsyncFnMut() -> Result<T>,
) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        let begun = Instant::now();
        let error = match check().await {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        if Instant::now() >= deadline {
            bail!("{what}: not within {limit:?}: {error:#}");
        }
        tokio::time::sleep(pause(begun.elapsed())).await;
    }
}
