use std::convert::Infallible;
use std::sync::Arc;

use axum::http::{Request, Response, Uri};
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
    exact_lists: Mutex<usize>,
}

impl Server {
    fn answer(&self, uri: &Uri) -> Value {
        let path = uri.path();
        if path.ends_with(ADDRESSES) && !uri.query().is_some_and(|query| query.contains("resourceVersion=0"))
        {
            *self.exact_lists.lock().unwrap() += 1;
        }
        self.lists.lock().unwrap().push(path.rsplit('/').next().unwrap().to_owned());
        let items = if path.ends_with("/spiderippoolusages") {
            Vec::new()
        } else {
            self.in_use.lock().unwrap().clone()
        };
        let items: Vec<_> = items.iter().map(|name| json!({"metadata": {"name": name}})).collect();
        json!({"metadata": {}, "items": items})
    }

    fn exact_lists(&self) -> usize {
        *self.exact_lists.lock().unwrap()
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
            let answer = server.answer(request.uri());
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
    for attempt in 0..=EXACT_LIST_AFTER {
        let ip = free.find(&pool, &usable, 1000 + u64::from(attempt), attempt).await.unwrap().unwrap();
        assert_eq!(server.lists(ADDRESSES), usize::from(attempt >= LIST_AFTER), "attempt {attempt}");
        free.collided(&pool.name, ip, Listing::Shown);
    }
    assert_eq!((server.lists(USAGES), server.lists(ADDRESSES)), (1, 1));
}

/// A tight pool whose leader was away cost every pick of every agent a few collisions, and then exact lists.
#[tokio::test]
async fn where_the_leader_has_written_nothing_the_api_servers_cache_is_listed() {
    let (server, free) = bench();
    let (pool, usable) = pool("10.0.0.0/24", "10.0.0.1-10.0.0.9");
    *server.in_use.lock().unwrap() = vec!["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"];
    let find = async |attempt| free.find(&pool, &usable, 1, attempt).await.unwrap().unwrap();
    for attempt in 0..LIST_AFTER {
        let ip = find(attempt).await;
        free.collided(&pool.name, ip, Listing::Shown);
    }
    for _ in 0..100 {
        let ip = find(LIST_AFTER).await;
        assert!(ip > IpAddr::from([10, 0, 0, 4]), "{ip}");
        free.not_taken(&pool.name, ip);
    }
    assert_eq!((server.lists(ADDRESSES), server.exact_lists()), (1, 0));
    let _last = find(EXACT_LIST_AFTER).await;
    assert_eq!((server.lists(ADDRESSES), server.exact_lists()), (1, 0), "the list is a moment old");
    let _last = find(EXACT_LIST_AFTER * 2).await;
    assert_eq!((server.lists(ADDRESSES), server.exact_lists()), (2, 1), "the cache may be behind");
}
