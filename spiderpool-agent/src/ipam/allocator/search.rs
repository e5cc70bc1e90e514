//! Looking for a free address: by what is known of the pool first, by an exact list before it is called exhausted.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use spiderpool_core::ip::IpSet;
use spiderpool_core::ipam::{Pool, PoolFailure};
use spiderpool_core::names::PoolName;
use spiderpool_runtime::kubernetes::ApiFailure;
use tracing::{debug, warn};

use super::holdings::HoldingIndex;
use super::pool_usage::PoolUsage;
use super::store::{AddressStore, Freshness, Listing, PoolList};
use crate::ipam::keyed_mutex::KeyedMutex;
use crate::watches::Shared;

/// After so many addresses that somebody else had, in one ADD, a list is read where the leader has written nothing.
const LIST_AFTER: u32 = 2;
/// After so many of them an exact list is read.
const EXACT_LIST_AFTER: u32 = 4;

/// Finds addresses that seem free, and records what became of them.
pub(super) struct FreeAddresses {
    store: AddressStore,
    holdings: Shared<HoldingIndex>,
    pools: Mutex<HashMap<PoolName, PoolUsage>>,
    lists: KeyedMutex<PoolName>,
}

impl FreeAddresses {
    /// Nothing is known of any pool.
    pub(super) fn new(store: AddressStore, holdings: Shared<HoldingIndex>) -> Self {
        Self { store, holdings, pools: Mutex::default(), lists: KeyedMutex::default() }
    }

    /// An address that seems free; `None` only after an exact list, now or a moment ago. The caller says what becomes
    /// of it: taken, collided or not taken. After a few collisions in a row, `attempt`, a list decides also what seems
    /// free, and in the end an exact one: what the leader has written may be long out of date.
    pub(super) async fn find(
        &self,
        pool: &Pool,
        usable: &IpSet,
        seed: u64,
        attempt: u32,
    ) -> Result<Option<IpAddr>, PoolFailure> {
        if self.with(pool, |usage| usage.is_exhausted(usable, Instant::now())) {
            // But for what has been freed here since: no list is needed to find that.
            return Ok(self.pick(pool, usable, seed));
        }
        let asked = Instant::now();
        if self.with(pool, |usage| wants_exact_list(usage, attempt, asked)) {
            // Callers that wait together share one.
            self.list_since(asked, pool, usable).await?;
        } else {
            self.renew(pool, attempt).await;
        }
        if let Some(ip) = self.pick(pool, usable, seed) {
            return Ok(Some(ip));
        }
        self.list_since(asked, pool, usable).await?;
        let found = self.pick(pool, usable, seed);
        if found.is_none() {
            self.with(pool, |usage| usage.mark_exhausted(usable, seed, Instant::now()));
        }
        Ok(found)
    }

    /// Reads the exact list, unless one has been read that began after `asked`: all who wait share it, its failure too.
    async fn list_since(&self, asked: Instant, pool: &Pool, usable: &IpSet) -> Result<(), PoolFailure> {
        let _lock = self.lists.lock(pool.name.clone()).await;
        if self.with(pool, |usage| usage.is_exhausted(usable, Instant::now())) {
            return Ok(());
        }
        if let Some(outcome) = self.with(pool, |usage| usage.listed_since(asked)) {
            return outcome;
        }
        let begun = Instant::now();
        let outcome =
            self.list(pool, Freshness::Exact).await.map_err(|error| api_server_failed(&pool.name, &error));
        if let Err(failure) = &outcome {
            self.with(pool, |usage| usage.record_failed_list(begun, failure.clone()));
        }
        outcome
    }

    fn pick(&self, pool: &Pool, usable: &IpSet, seed: u64) -> Option<IpAddr> {
        let own = self.holdings.read(|index| index.of_pool(&pool.name));
        self.with(pool, |usage| usage.pick(usable, &own, seed, Instant::now()))
    }

    /// Reads what the leader has written, or lists if it has written nothing and picks collide. Failing is no reason not
    /// to pick.
    async fn renew(&self, pool: &Pool, attempt: u32) {
        if !self.with(pool, |usage| wants_renewal(usage, attempt)) {
            return;
        }
        let _lock = self.lists.lock(pool.name.clone()).await;
        let read = if self.with(pool, |usage| wants_list(usage, attempt)) {
            self.list(pool, Freshness::Cached).await
        } else if self.with(pool, |usage| usage.is_stale(Instant::now())) {
            self.read_written(pool).await
        } else {
            return;
        };
        if let Err(error) = read {
            warn!(pool = %pool.name, %error, "usage of the pool cannot be read, picking without");
        }
    }

    async fn read_written(&self, pool: &Pool) -> Result<(), ApiFailure> {
        let begun = Instant::now();
        let written = self.store.usage(&pool.name, pool.family()).await?;
        debug!(pool = %pool.name, in_use = ?written.as_ref().map(IpSet::len), "usage of the pool read");
        self.with(pool, |usage| usage.update(written, begun));
        Ok(())
    }

    async fn list(&self, pool: &Pool, freshness: Freshness) -> Result<(), ApiFailure> {
        let begun = Instant::now();
        let PoolList { in_use, quarantined } =
            self.store.of_pool(&pool.name, pool.family(), freshness).await?;
        debug!(pool = %pool.name, in_use = in_use.len(), quarantined, ?freshness, "addresses of the pool listed");
        self.with(pool, |usage| match freshness {
            Freshness::Exact => {
                usage.update_exactly(in_use, begun);
                usage.set_quarantined(quarantined);
            }
            Freshness::Cached => usage.update_from_cache(in_use, begun),
        });
        Ok(())
    }

    fn with<T>(&self, pool: &Pool, f: impl FnOnce(&mut PoolUsage) -> T) -> T {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        f(pools.entry(pool.name.clone()).or_insert_with(|| PoolUsage::new(pool.family())))
    }

    /// The address is ours.
    pub(super) fn taken(&self, pool: &PoolName, ip: IpAddr) {
        self.if_known(pool, |usage| usage.take(ip));
    }

    /// The address is somebody else's.
    pub(super) fn collided(&self, pool: &PoolName, ip: IpAddr, listing: Listing) {
        self.if_known(pool, |usage| usage.mark_collision(ip, listing, Instant::now()));
    }

    /// How old that is what is known of the pool; `None` if nothing is.
    pub(super) fn view_age(&self, pool: &PoolName) -> Option<Duration> {
        self.if_known(pool, |usage| usage.age(Instant::now())).flatten()
    }

    /// How many addresses of the pool were quarantined by the last exact list.
    pub(super) fn quarantined(&self, pool: &PoolName) -> u128 {
        self.if_known(pool, |usage| usage.quarantined()).unwrap_or_default()
    }

    /// Whether the address was somebody else's a short while ago, and a list since has not shown it.
    pub(super) fn is_unlisted(&self, pool: &PoolName, ip: IpAddr) -> bool {
        self.if_known(pool, |usage| usage.is_unlisted(ip, Instant::now())).unwrap_or_default()
    }

    /// The address was not taken after all.
    pub(super) fn not_taken(&self, pool: &PoolName, ip: IpAddr) {
        self.if_known(pool, |usage| usage.unpick(ip));
    }

    /// An address of ours is free again.
    pub(super) fn released(&self, pool: &PoolName, ip: IpAddr) {
        self.if_known(pool, |usage| usage.release(ip, Instant::now()));
    }

    /// Forgets pools that do not exist any more.
    pub(super) fn forget_pools(&self, exists: impl Fn(&PoolName) -> bool) {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner).retain(|name, _| exists(name));
    }

    fn if_known<T>(&self, pool: &PoolName, f: impl FnOnce(&mut PoolUsage) -> T) -> Option<T> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner).get_mut(pool).map(f)
    }
}

/// Whether only an exact list helps: what the leader has written, or the API server's cache lists, may be long out of
/// date.
fn wants_exact_list(usage: &PoolUsage, attempt: u32, now: Instant) -> bool {
    let is_recent = if attempt == EXACT_LIST_AFTER { usage.is_listed(now) } else { usage.is_exact(now) };
    attempt > 0 && attempt.is_multiple_of(EXACT_LIST_AFTER) && !is_recent
}

/// Whether a list from the API server's cache would help.
fn wants_list(usage: &PoolUsage, attempt: u32) -> bool {
    attempt >= LIST_AFTER && !usage.is_written() && !usage.is_listed(Instant::now())
}

fn wants_renewal(usage: &PoolUsage, attempt: u32) -> bool {
    usage.is_stale(Instant::now()) || wants_list(usage, attempt)
}

/// The pool gave nothing because of the API server.
pub(super) fn api_server_failed(pool: &PoolName, failure: &ApiFailure) -> PoolFailure {
    let (pool, cause) = (pool.clone(), failure.to_string());
    if failure.is_retryable() {
        PoolFailure::Unavailable { pool, cause }
    } else {
        PoolFailure::Refused { pool, cause }
    }
}

#[cfg(test)]
mod tests;
