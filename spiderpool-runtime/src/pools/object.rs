//! Pools as they come from the API server.

use std::sync::Arc;

use kube::ResourceExt as _;
use kube::core::DeserializeGuard;
use spiderpool_api::crd::SpiderIPPool;
use spiderpool_core::ipam::{Pool, PoolError};

/// A pool, or why the object is none. One that cannot be decoded must not spoil a list of all.
pub type PoolObject = DeserializeGuard<SpiderIPPool>;

/// What a pool's spec means, or everything that is wrong with it.
pub type ParsedSpec = Result<Arc<Pool>, Arc<PoolError>>;

/// What the pool's spec means.
pub fn parse(object: &PoolObject) -> ParsedSpec {
    let parsed = match &object.0 {
        Ok(pool) => Pool::try_from(pool),
        Err(invalid) => Err(PoolError::undecodable(&object.name_any(), &invalid.error)),
    };
    parsed.map(Arc::new).map_err(Arc::new)
}
