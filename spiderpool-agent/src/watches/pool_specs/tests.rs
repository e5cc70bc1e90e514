use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::http::{Request, Response, StatusCode};
use kube::Client;
use kube::client::Body;
use kube::core::{ObjectMeta, PartialObjectMeta, PartialObjectMetaExt as _};
use serde_json::{Value, json};
use spiderpool_api::crd::SpiderIPPool;
use spiderpool_runtime::health::{Health, Scope};
use spiderpool_runtime::watch::Index as _;

use super::*;

/// An API server that has pools, and counts what it is asked.
#[derive(Default)]
struct Server {
    pools: Mutex<BTreeMap<String, Value>>,
    requests: Mutex<Vec<String>>,
    refuses: AtomicBool,
}

impl Server {
    fn answer(&self, path: &str) -> (StatusCode, Value) {
        let name = path.rsplit('/').next().unwrap_or_default();
        self.requests.lock().unwrap().push(name.to_owned());
        let failure = |code: StatusCode, reason: &str| {
            let number = code.as_u16();
            (code, json!({"kind": "Status", "status": "Failure", "code": number, "reason": reason}))
        };
        if self.refuses.load(Ordering::SeqCst) {
            return failure(StatusCode::FORBIDDEN, "Forbidden");
        }
        let pools = self.pools.lock().unwrap();
        if name == "spiderippools" {
            let items: Vec<_> = pools.values().collect();
            return (StatusCode::OK, json!({"metadata": {"resourceVersion": "1"}, "items": items}));
        }
        pools
            .get(name)
            .map_or_else(|| failure(StatusCode::NOT_FOUND, "NotFound"), |pool| (StatusCode::OK, pool.clone()))
    }

    /// What has been asked since the last call.
    fn take_requests(&self) -> Vec<String> {
        std::mem::take(&mut self.requests.lock().unwrap())
    }
}

struct Bench {
    health: Health,
    server: Arc<Server>,
    index: Shared<PoolIndex>,
    specs: PoolSpecs,
}

impl Bench {
    fn new() -> Self {
        let server = Arc::new(Server::default());
        let service = tower::service_fn({
            let server = Arc::clone(&server);
            move |request: Request<Body>| {
                let (status, body) = server.answer(request.uri().path());
                async move {
                    // A request is on its way for a while: others may join it.
                    tokio::task::yield_now().await;
                    let body = Body::from(body.to_string().into_bytes());
                    Ok::<_, Infallible>(Response::builder().status(status).body(body).unwrap())
                }
            }
        });
        let index = Shared::<PoolIndex>::default();
        let kube = Kubernetes::new(Client::new(service, "default"));
        Self { health: Health::default(), server, specs: PoolSpecs::new(kube, index.clone()), index }
    }

    fn put(&self, name: &str, generation: i64, spec: &Value) {
        let pool = json!({
            "apiVersion": "spiderpool.spidernet.io/v2beta1", "kind": "SpiderIPPool",
            "metadata": {"name": name, "uid": "u", "generation": generation}, "spec": spec,
        });
        self.server.pools.lock().unwrap().insert(name.to_owned(), pool);
    }

    /// The watch lists what there is.
    fn list(&self) {
        let pools = self.server.pools.lock().unwrap();
        let metas = pools.values().map(|pool| -> PartialObjectMeta<SpiderIPPool> {
            let meta: ObjectMeta = serde_json::from_value(pool["metadata"].clone()).unwrap();
            meta.into_response_partial()
        });
        self.index.write(|index| index.reset(metas.collect()));
        self.specs.changed();
    }

    /// Runs the reader until `done`.
    async fn run_until(&self, done: impl Fn(&PoolIndex) -> bool) {
        let listed = self.health.condition("specs of pools", Scope::Readiness);
        let reading = self.specs.clone().run(listed, CancellationToken::new());
        let seen = async {
            while !self.index.read(&done) || self.specs.0.listed.borrow().is_err() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let seen = tokio::time::timeout(Duration::from_secs(20), seen);
        tokio::select! {
            () = reading => panic!("the reader has ended"),
            seen = seen => seen.unwrap(),
        }
    }

    async fn usable(&self, pool: &str) -> u128 {
        self.specs.get(&name(pool)).await.unwrap().unwrap().spec.unwrap().usable.len()
    }
}

fn name(name: &str) -> PoolName {
    name.parse().unwrap()
}

fn spec(octet: u8) -> Value {
    json!({"subnet": "10.6.0.0/16", "ips": [format!("10.6.{octet}.1-10.6.{octet}.9")], "default": true})
}

fn all_read(index: &PoolIndex) -> bool {
    index.unread().is_empty()
}

#[tokio::test]
async fn all_specs_come_by_one_list_and_unchanged_ones_are_not_read_again() {
    let bench = Bench::new();
    for octet in 0..4 {
        bench.put(&format!("p{octet}"), 1, &spec(octet));
    }
    bench.list();
    bench.run_until(all_read).await;
    assert_eq!(bench.server.take_requests(), ["spiderippools"]);
    assert_eq!(bench.specs.wait().await, Ok(()));
    bench.list();
    bench.run_until(all_read).await;
    assert_eq!((bench.usable("p1").await, bench.server.take_requests().len()), (9, 0));
    bench.put("p2", 2, &json!({"subnet": "10.6.0.0/16", "ips": ["10.6.2.1"]}));
    bench.list();
    bench.run_until(all_read).await;
    assert_eq!((bench.usable("p2").await, bench.server.take_requests()), (1, vec!["p2".to_owned()]));
}

#[tokio::test]
async fn requests_for_one_pool_share_one_read() {
    let bench = Bench::new();
    bench.put("p", 1, &spec(0));
    bench.list();
    let usable = futures::future::join_all((0..10).map(|_| bench.usable("p"))).await;
    assert_eq!((usable, bench.server.take_requests().len()), (vec![9; 10], 1));
    assert_eq!((bench.usable("p").await, bench.server.take_requests().len()), (9, 0));
}

/// Its name may be in a request before the watch has seen it. The index is left to the watch.
#[tokio::test]
async fn a_pool_that_the_watch_has_not_seen_is_read() {
    let bench = Bench::new();
    bench.put("a", 1, &spec(0));
    bench.list();
    bench.run_until(all_read).await;
    bench.put("b", 1, &spec(0));
    let entry = bench.specs.get(&name("b")).await.unwrap().unwrap();
    let text = "IPPool b overlaps the older IPPool a in 10.6.0.1-10.6.0.9";
    assert_eq!(entry.conflict.unwrap().to_string(), text);
    assert!(bench.index.read(|index| index.get("b").is_none()));
    assert!(bench.specs.get(&name("c")).await.unwrap().is_none());
}

#[tokio::test]
async fn an_undecodable_pool_does_not_affect_others() {
    let bench = Bench::new();
    bench.put("good", 1, &spec(0));
    bench.put("bad", 1, &json!({"subnet": "10.6.0.0/16", "ips": 5}));
    bench.list();
    bench.run_until(all_read).await;
    assert_eq!(bench.specs.wait().await, Ok(()));
    assert_eq!(bench.usable("good").await, 9);
    let bad = bench.specs.get(&name("bad")).await.unwrap().unwrap().spec.unwrap_err().to_string();
    assert!(bad.starts_with("IPPool bad is invalid: spec: does not fit the CRD of SpiderIPPool"), "{bad}");
    assert_eq!(bench.server.take_requests(), ["spiderippools"]);
}

#[tokio::test]
async fn pools_that_cannot_be_read_are_read_later_and_cost_no_others() {
    let bench = Bench::new();
    bench.put("a", 1, &spec(0));
    bench.list();
    bench.run_until(all_read).await;
    bench.put("b", 1, &spec(1));
    bench.server.refuses.store(true, Ordering::SeqCst);
    bench.list();
    let failure = bench.specs.get(&name("b")).await.unwrap_err();
    assert!(!failure.is_retryable(), "{failure}");
    assert_eq!(bench.specs.get_unread().await.unwrap_err().pool, name("b"));
    assert_eq!((bench.specs.wait().await, bench.usable("a").await), (Ok(()), 9));
    // The reader tries, waits, and tries again.
    let healing = async {
        bench.server.take_requests();
        while bench.server.requests.lock().unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        bench.server.refuses.store(false, Ordering::SeqCst);
    };
    tokio::join!(bench.run_until(all_read), healing);
    assert_eq!(bench.usable("b").await, 9);
}

#[tokio::test]
async fn without_a_list_requests_say_why() {
    let bench = Bench::new();
    bench.put("p", 1, &spec(0));
    bench.server.refuses.store(true, Ordering::SeqCst);
    bench.list();
    let refused = async {
        while bench.server.requests.lock().unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // More of the watch does not make the list complete.
        bench.specs.changed();
        tokio::time::sleep(Duration::from_millis(50)).await;
        let error = bench.specs.wait_for(Duration::ZERO).await.unwrap_err().to_string();
        assert!(error.contains("Still missing: specs of pools: API server: "), "{error}");
        let missing = bench.health.ready().unwrap_err().join(", ");
        assert!(missing.contains("specs of pools"), "{missing}");
        bench.server.refuses.store(false, Ordering::SeqCst);
    };
    tokio::join!(bench.run_until(all_read), refused);
    assert_eq!(bench.specs.wait().await, Ok(()));
}
