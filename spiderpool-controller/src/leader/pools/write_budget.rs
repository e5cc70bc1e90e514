//! How often statuses of pools are written: every node's agent sees each write, so the limit is one for all pools. They
//! take turns: a pool that has to wait gets the next free time, and what changes until then joins the same write.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

/// The times at which statuses may be written.
#[derive(Debug)]
pub(super) struct WriteBudget {
    /// The first time that no pool has got.
    free: Instant,
    /// The times of pools that wait.
    reserved: HashMap<String, Instant>,
}

impl WriteBudget {
    pub(super) fn new(now: Instant) -> Self {
        Self { free: now, reserved: HashMap::new() }
    }

    /// Takes the pool's time for a write after which the others wait for `interval`; fails with how long the pool has to
    /// wait for it.
    pub(super) fn take(&mut self, pool: &str, interval: Duration, now: Instant) -> Result<(), Duration> {
        let at = self.reserved.get(pool).copied().unwrap_or_else(|| {
            let at = self.free.max(now);
            self.free = at + interval;
            at
        });
        if at <= now {
            self.reserved.remove(pool);
            return Ok(());
        }
        self.reserved.entry(pool.to_owned()).or_insert(at);
        Err(at - now)
    }

    /// How long the pool has to wait for the time that it has got.
    pub(super) fn remaining(&self, pool: &str, now: Instant) -> Option<Duration> {
        self.reserved.get(pool).filter(|at| **at > now).map(|at| *at - now)
    }

    /// The pool has nothing to write any more.
    pub(super) fn cancel(&mut self, pool: &str) {
        self.reserved.remove(pool);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const INTERVAL: Duration = Duration::from_millis(500);

    /// A hundred pools that change all the time: 200 writes a second went to every node.
    #[test]
    fn status_writes_are_bounded_over_all_pools_and_every_pool_has_its_turn() {
        let begin = Instant::now();
        let mut budget = WriteBudget::new(begin);
        let pools: Vec<_> = (0..100).map(|number| format!("p{number}")).collect();
        let mut writes = BTreeMap::<_, usize>::new();
        for tick in 0..10_000 {
            let now = begin + Duration::from_millis(10) * tick;
            for pool in &pools {
                if budget.take(pool, INTERVAL, now).is_ok() {
                    *writes.entry(pool).or_default() += 1;
                }
            }
        }
        // 100 seconds.
        assert_eq!(writes.values().sum::<usize>(), 200);
        assert!(pools.iter().all(|pool| writes.get(pool) == Some(&2)), "{writes:?}");
    }

    #[test]
    fn a_lonely_write_waits_for_nothing_and_times_of_the_past_are_not_saved_up() {
        let begin = Instant::now();
        let mut budget = WriteBudget::new(begin);
        let later = begin + INTERVAL * 100;
        assert_eq!(budget.take("a", INTERVAL, later), Ok(()));
        assert_eq!(budget.take("a", INTERVAL * 2, later), Err(INTERVAL));
        assert_eq!(budget.take("a", INTERVAL, later), Err(INTERVAL), "it has got a time already");
        assert_eq!(
            budget.take("b", INTERVAL, later),
            Err(INTERVAL * 3),
            "after a large status more time passes"
        );
        assert_eq!(budget.remaining("b", later + INTERVAL), Some(INTERVAL * 2));
        budget.cancel("a");
        assert_eq!(budget.remaining("a", later), None);
        assert_eq!(budget.take("b", INTERVAL, later + INTERVAL * 3), Ok(()));
    }
}
