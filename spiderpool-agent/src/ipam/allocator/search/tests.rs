use std::convert::Infallible;
use std::sync::Arc;

use axum::http::{Request, Response};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use spiderpool_core::ipam::PoolFields;
use spiderpool_runtime::kubernetes::Kubernetes;

use super::*;

/// An API server that has some addresses and no usage, and notes the lists.
#[derive(Default)]
struct Server {
    in_use: Mutex<Vec<&'static str>>,
    lists: Mutex<Vec<String>>,
}

impl Server {
    fn answer(&self, path: &str) -> Value {
        self.lists.lock().unwrap().push(path.rsplit('/').next().unwrap().to_owned());
        let items = if path.ends_with("/spiderippoolusages") {
            Vec::new()
        } else {
            self.in_use.lock().unwrap().clone()
        };
        let items: Vec<_> = items.iter().map(|name| json!({"metadata": {"name": name}})).collect();
        json!({"metadata": {}, "items": items})
    }

    fn lists(&self, of: &str) -> usize {
        self.lists.lock().unwrap().iter().filter(|list| *list == of).count()
    }
}

fn pool(subnet: &str, range: &str) -> (Pool, IpSet) {
    let ips = [range.to_owned()];
    let pool = Pool::parse(&PoolFields { name: "p", subnet, ips: &ips, ..PoolFields::default() }).unwrap();
    let usable = pool.usable.clone();
    (pool, usable)
}

fn bench() -> (Arc<Server>, Arc<FreeAddresses>) {
    let server = Arc::new(Server::default());
    let service = tower::service_fn({
        let server = Arc::clone(&server);
        move |request: Request<Body>| {
            let answer = server.answer(request.uri().path());
            async move {
                // A request is on its way for a while: others may wait for it.
                tokio::task::yield_now().await;
                Ok::<_, Infallible>(Response::new(Body::from(answer.to_string().into_bytes())))
            }
        }
    });
    let store = AddressStore::new(Kubernetes::new(Client::new(service, "default")));
    (server, Arc::new(FreeAddresses::new(store, Shared::default())))
}

const ADDRESSES: &str = "spideripaddresses";
const USAGES: &str = "spiderippoolusages";

/// Its addresses may be many, and a random pick hardly ever collides.
#[tokio::test]
async fn a_pool_without_usage_objects_is_not_listed_before_picks_collide() {
    let (server, free) = bench();
    let (pool, usable) = pool("fd00::/64", "fd00::1-fd00::ffff:ffff:ffff:ffff");
    for seed in 0..100 {
        let ip = free.find(&pool, &usable, seed, 0).await.unwrap().unwrap();
        free.taken(&pool.name, ip);
    }
    assert_eq!((server.lists(USAGES), server.lists(ADDRESSES)), (1, 0));
    for attempt in 0..=COLLISIONS_IN_A_ROW {
        let ip = free.find(&pool, &usable, 1000 + u64::from(attempt), attempt).await.unwrap().unwrap();
        free.collided(&pool.name, ip, Listing::Shown);
    }
    assert_eq!((server.lists(USAGES), server.lists(ADDRESSES)), (1, 1));
}
