//! What statuses record: allocations of pools as upstream's agents write them, and the pools of SpiderSubnets.

use spiderpool_api::upstream;
use spiderpool_core::ip::Family;
use spiderpool_core::ipam::{Pool, PoolFields};
use spiderpool_core::subnet::ControlledPools;

pub(crate) fn check(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    for (subnet, family) in [("10.6.0.0/16", Family::V4), ("fd00::/64", Family::V6)] {
        let fields = PoolFields { name: "p", subnet, ..PoolFields::default() };
        let Ok(pool) = Pool::parse(&fields) else { panic!("{subnet} is a pool's subnet") };
        for record in upstream::records(text, &pool).into_iter().flatten().flatten() {
            assert!(pool.subnet.contains(&record.address.addr()), "{record:?}");
            let holding = record.holding(&pool, None, None);
            assert_eq!(holding.owner.pod.uid, record.uid);
        }
        let pools = ControlledPools::parse(Some(text), family);
        let written = ControlledPools::parse(pools.text().as_deref(), family);
        assert_eq!(written, pools);
    }
}
