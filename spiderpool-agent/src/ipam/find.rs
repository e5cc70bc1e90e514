//! Looking for a free address: by what is believed of the pool first, by an exact list before it is called exhausted.

use std::net::IpAddr;
use std::sync::PoisonError;
use std::time::Instant;

use spiderpool_core::ip::IpSet;
use spiderpool_core::ipam::{Pool, PoolFailure};
use spiderpool_core::names::PoolName;
use spiderpool_runtime::kubernetes::Failure;
use tracing::{debug, warn};

use super::addresses::Freshness;
use super::stock::Stock;
use super::view::PoolView;

impl Stock {
    /// An address that seems free; `None` only after an exact list, now or a moment ago.
    pub(super) async fn find(
        &self,
        pool: &Pool,
        usable: &IpSet,
        seed: u64,
    ) -> Result<Option<IpAddr>, PoolFailure> {
        if self.view(pool, |view| view.is_exhausted(usable, Instant::now())) {
            return Ok(None);
        }
        if self.view(pool, |view| view.is_stale(Instant::now())) {
            let _turn = self.lists.take(pool.name.to_string()).await;
            if self.view(pool, |view| view.is_stale(Instant::now()))
                && let Err(error) = self.renew(pool, Freshness::Cached).await
            {
                warn!(pool = %pool.name, %error, "usage of the pool cannot be read, picking without");
            }
        }
        if let Some(ip) = self.pick(pool, usable, seed) {
            return Ok(Some(ip));
        }
        let _turn = self.lists.take(pool.name.to_string()).await;
        if self.view(pool, |view| view.is_exhausted(usable, Instant::now())) {
            return Ok(None);
        }
        self.renew(pool, Freshness::Exact).await.map_err(|error| store(&pool.name, &error))?;
        let found = self.pick(pool, usable, seed);
        if found.is_none() {
            self.view(pool, |view| view.exhaust(usable, Instant::now()));
        }
        Ok(found)
    }

    fn pick(&self, pool: &Pool, usable: &IpSet, seed: u64) -> Option<IpAddr> {
        let own = self.held.read(|index| index.of_pool(pool.name.as_str()));
        self.view(pool, |view| view.pick(usable, &own, seed, Instant::now()))
    }

    async fn renew(&self, pool: &Pool, freshness: Freshness) -> Result<(), Failure> {
        let begun = Instant::now();
        let used = self.addresses.of_pool(pool.name.as_str(), pool.family(), freshness).await?;
        debug!(pool = %pool.name, used = used.len(), ?freshness, "usage of the pool read");
        self.view(pool, |view| view.learn(used, begun));
        Ok(())
    }

    fn view<T>(&self, pool: &Pool, look: impl FnOnce(&mut PoolView) -> T) -> T {
        let mut views = self.views.lock().unwrap_or_else(PoisonError::into_inner);
        look(views.entry(pool.name.to_string()).or_insert_with(|| PoolView::new(pool.family())))
    }
}

/// The pool gave nothing because of the API server.
pub(super) fn store(pool: &PoolName, failure: &Failure) -> PoolFailure {
    let (pool, cause) = (pool.clone(), failure.to_string());
    if failure.is_retryable() {
        PoolFailure::NoStore { pool, cause }
    } else {
        PoolFailure::Store { pool, cause }
    }
}
