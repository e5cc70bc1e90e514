//! Waiting for something to become true, always with a deadline.

use std::env;
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// The shortest and the longest pause between two looks.
const STEPS: [Duration; 2] = [Duration::from_millis(10), Duration::from_millis(400)];

/// Set where everything takes so many times longer: on emulated processors.
const FACTOR: &str = "SPIDERPOOL_TIME_FACTOR";

/// How many times longer everything takes here than on the machines that limits are chosen for.
pub fn factor() -> u32 {
    static FOUND: OnceLock<u32> = OnceLock::new();
    *FOUND.get_or_init(|| {
        let set = env::var(FACTOR).ok().filter(|text| !text.is_empty());
        set.map_or(1, |text| text.parse().unwrap_or_else(|_| panic!("{FACTOR}={text} is no number")))
    })
}

/// What `limit` is here. Every deadline of this module is scaled so.
pub fn scaled(limit: Duration) -> Duration {
    limit.saturating_mul(factor())
}

/// The pause after a look that took so long: whoever waits leaves the machine to those that he waits for.
fn pause(took: Duration) -> Duration {
    took.saturating_mul(3).clamp(STEPS[0], STEPS[1])
}

/// Calls `check` until it returns a value; after `limit` fails with `what` and the last reason.
pub fn until<T>(what: &str, limit: Duration, mut check: impl FnMut() -> Result<T>) -> Result<T> {
    let limit = scaled(limit);
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
    let limit = scaled(limit);
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

/// Calls `check` again and again for so long; fails with `what` at its first failure.
pub async fn holds_async(
    what: &str,
    duration: Duration,
    mut check: impl AsyncFnMut() -> Result<()>,
) -> Result<()> {
    let start = Instant::now();
    while start.elapsed() < duration {
        let begun = Instant::now();
        check().await.with_context(|| format!("{what}: not after {:?}", start.elapsed()))?;
        tokio::time::sleep(pause(begun.elapsed())).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use anyhow::ensure;

    use super::*;

    #[tokio::test]
    async fn what_holds_is_asked_for_all_the_time_and_ends_with_its_first_failure() {
        let mut looks = 0;
        let three = async || {
            looks += 1;
            ensure!(looks < 3, "the third look");
            Ok(())
        };
        let error = holds_async("it", Duration::from_mins(1), three).await.unwrap_err();
        assert!(
            format!("{error:#}").starts_with("it: not after")
                && format!("{error:#}").ends_with("the third look")
        );
        assert_eq!(looks, 3);
        holds_async("it", Duration::from_millis(50), async || Ok(())).await.unwrap();
    }
}
