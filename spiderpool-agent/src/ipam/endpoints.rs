//! SpiderEndpoints: written from a queue after the plugin has its answer, removed before the addresses are.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1 as k8s;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Api;
use kube::api::{DeleteParams, ObjectMeta, Patch, PatchParams, PostParams, Preconditions};
use serde_json::json;
use spiderpool_api::crd::{
    EndpointAllocation, EndpointIp, FINALIZER, NoSpec, SpiderEndpoint, SpiderEndpointStatus,
};
use spiderpool_core::ipam::owner::OwnerRef;
use spiderpool_runtime::shutdown::Shutdown;
use tokio::sync::Notify;
use tracing::{debug, info, warn};

use super::held::HeldIndex;
use super::record::merge;
use super::turns::Turns;
use crate::kubernetes::{Failure, Kubernetes};
use crate::watches::{Pod, Shared};

/// Endpoints written at the same time; the addresses come first.
pub(super) const WRITERS: usize = 4;
/// Pause before a write that failed is tried again, doubled each time up to the limit.
const PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

type Key = (String, String);

/// What an endpoint should say of some NICs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    namespace: String,
    name: String,
    /// The UID of the pod's object, which is not that of a static pod.
    object_uid: String,
    status: SpiderEndpointStatus,
}

impl Record {
    /// For a pod and its top controller.
    pub fn new(pod: &Pod, top: &OwnerRef, ips: Vec<EndpointIp>) -> Self {
        let current = EndpointAllocation { uid: pod.uid.clone(), node: pod.node.clone(), ips };
        Self {
            namespace: pod.namespace.clone(),
            name: pod.name.clone(),
            object_uid: pod.object_uid.clone(),
            status: SpiderEndpointStatus {
                current,
                owner_controller_type: top.kind.clone(),
                owner_controller_name: top.name.clone(),
            },
        }
    }

    fn key(&self) -> Key {
        (self.namespace.clone(), self.name.clone())
    }

    fn uid(&self) -> &str {
        &self.status.current.uid
    }

    /// With what a newer record says of further NICs. One of another pod replaces it.
    fn joined_by(self, mut newer: Self) -> Self {
        if self.uid() == newer.uid() {
            newer.status.current.ips = merge(self.status.current.ips, &newer.status.current.ips);
        }
        newer
    }
}

/// The queue.
pub struct Endpoints {
    kube: Kubernetes,
    held: Shared<HeldIndex>,
    waiting: Mutex<HashMap<Key, Record>>,
    wake: Notify,
    turns: Turns<Key>,
}

impl Endpoints {
    /// Empty.
    pub(crate) fn new(kube: Kubernetes, held: Shared<HeldIndex>) -> Self {
        Self { kube, held, waiting: Mutex::default(), wake: Notify::new(), turns: Turns::default() }
    }

    /// Has the endpoint written soon. Later NICs of the same pod join what still waits.
    pub fn put(&self, record: Record) {
        self.with(|waiting| {
            let record = match waiting.remove(&record.key()) {
                Some(earlier) => earlier.joined_by(record),
                None => record,
            };
            waiting.insert(record.key(), record);
        });
        self.wake.notify_one();
    }

    /// Writes until shutdown, and then what still waits, within `grace`.
    pub async fn run(&self, shutdown: &Shutdown, grace: Duration) {
        let writers = (0..WRITERS).map(|_| self.write_all(shutdown));
        futures::future::join_all(writers).await;
        let flush = async {
            while let Some(record) = self.take() {
                let _turn = self.turns.take(record.key()).await;
                if let Err(error) = self.write(&record).await {
                    warn!(endpoint = ?record.key(), %error, "endpoint is left to the next start");
                }
            }
        };
        if tokio::time::timeout(grace, flush).await.is_err() {
            warn!(left = self.with(|waiting| waiting.len()), "endpoints are left to the next start");
        }
    }

    async fn write_all(&self, shutdown: &Shutdown) {
        let mut pause = PAUSE;
        while !shutdown.is_requested() {
            let Some(record) = self.take() else {
                tokio::select! {
                    () = shutdown.requested() => return,
                    () = self.wake.notified() => continue,
                }
            };
            // Others may wait too: this one does not serve them all.
            self.wake.notify_one();
            let turn = self.turns.take(record.key()).await;
            match self.write(&record).await {
                Ok(()) => pause = PAUSE,
                Err(error) => {
                    warn!(endpoint = ?record.key(), %error, "endpoint is not written yet, trying again");
                    // Before the next turn: a removal must find it.
                    self.put_back(record);
                    drop(turn);
                    shutdown.sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    fn take(&self) -> Option<Record> {
        self.with(|waiting| {
            let key = waiting.keys().next().cloned()?;
            waiting.remove(&key)
        })
    }

    /// Joined by what has come meanwhile.
    fn put_back(&self, record: Record) {
        self.with(|waiting| {
            let record = match waiting.remove(&record.key()) {
                Some(newer) => record.joined_by(newer),
                None => record,
            };
            waiting.insert(record.key(), record);
        });
    }

    fn with<T>(&self, f: impl FnOnce(&mut HashMap<Key, Record>) -> T) -> T {
        f(&mut self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn api(&self, namespace: &str) -> Api<SpiderEndpoint> {
        Api::namespaced(self.kube.client(), namespace)
    }

    /// Makes the endpoint say what the record says. It must be the endpoint's turn.
    async fn write(&self, record: &Record) -> Result<(), Failure> {
        if self.held.read(|index| index.of_pod(record.uid()).is_empty()) {
            debug!(endpoint = ?record.key(), "the pod holds nothing any more, no endpoint is written");
            return Ok(());
        }
        let api = self.api(&record.namespace);
        let created = self.kube.write(api.create(&PostParams::default(), &object(record))).await;
        match created {
            Err(failure) if failure.is_already_exists() => {}
            other => return other.map(|_| ()),
        }
        let Some(found) = self.kube.read(api.get_opt(&record.name)).await? else {
            return self.create(record).await;
        };
        let known = found.status.as_ref().filter(|status| status.current.uid == record.uid());
        let Some(known) = known else {
            if !self.is_of(record).await? {
                info!(endpoint = ?record.key(), "the pod's name is another pod's now, no endpoint is written");
                return Ok(());
            }
            info!(endpoint = ?record.key(), "endpoint of an older pod of this name is removed");
            self.delete(&found).await?;
            return self.create(record).await;
        };
        let mut wanted = object(record);
        if let Some(status) = &mut wanted.status {
            status.current.ips = merge(known.current.ips.clone(), &status.current.ips);
        }
        if wanted.status.as_ref() == Some(known) {
            return Ok(());
        }
        let merged = SpiderEndpoint { metadata: found.metadata.clone(), ..wanted };
        self.kube.write(api.replace(&record.name, &PostParams::default(), &merged)).await.map(|_| ())
    }

    /// Whether the record's pod still has its name: a newer one may live on another node.
    async fn is_of(&self, record: &Record) -> Result<bool, Failure> {
        let pods = Api::<k8s::Pod>::namespaced(self.kube.client(), &record.namespace);
        let found = self.kube.read(pods.get_opt(&record.name)).await?;
        Ok(found.is_some_and(|found| Pod::from(found).uid == record.uid()))
    }

    async fn create(&self, record: &Record) -> Result<(), Failure> {
        let api = self.api(&record.namespace);
        self.kube.write(api.create(&PostParams::default(), &object(record))).await.map(|_| ())
    }

    /// Removes the endpoint of this pod, and what waits to be written of it. Another pod's stays.
    pub async fn remove(&self, namespace: &str, name: &str, uid: &str) -> Result<(), Failure> {
        let key = (namespace.to_owned(), name.to_owned());
        let _turn = self.turns.take(key.clone()).await;
        self.with(|waiting| waiting.retain(|of, record| *of != key || record.uid() != uid));
        let found = self.kube.read(self.api(namespace).get_opt(name)).await?;
        let is_its =
            |found: &SpiderEndpoint| found.status.as_ref().is_some_and(|status| status.current.uid == uid);
        match found.filter(is_its) {
            Some(found) => self.delete(&found).await,
            None => Ok(()),
        }
    }

    /// The finalizer goes first: a deletion that is broken off behind it leaves nothing that hangs.
    async fn delete(&self, endpoint: &SpiderEndpoint) -> Result<(), Failure> {
        let meta = &endpoint.metadata;
        let (Some(namespace), Some(name)) = (&meta.namespace, &meta.name) else { return Ok(()) };
        let api = self.api(namespace);
        if meta.finalizers.as_ref().is_some_and(|finalizers| finalizers.iter().any(|f| f == FINALIZER)) {
            let left: Vec<&String> = meta.finalizers.iter().flatten().filter(|f| *f != FINALIZER).collect();
            let patch = Patch::Merge(json!({"metadata": {"uid": meta.uid, "finalizers": left}}));
            gone_is_fine(self.kube.write(api.patch(name, &PatchParams::default(), &patch)).await)?;
        }
        let preconditions = Preconditions { uid: meta.uid.clone(), resource_version: None };
        let parameters = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        gone_is_fine(self.kube.write(api.delete(name, &parameters)).await)
    }

    /// The recorded endpoint of a pod.
    pub async fn get(&self, namespace: &str, name: &str) -> Result<Option<SpiderEndpoint>, Failure> {
        self.kube.read(self.api(namespace).get_opt(name)).await
    }
}

/// Gone, or replaced by another one under its name.
fn gone_is_fine<T>(outcome: Result<T, Failure>) -> Result<(), Failure> {
    match outcome {
        Err(failure) if !failure.is_not_found() && !failure.is_conflict() => Err(failure),
        _ => Ok(()),
    }
}

fn object(record: &Record) -> SpiderEndpoint {
    let owner = OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Pod".to_owned(),
        name: record.name.clone(),
        uid: record.object_uid.clone(),
        controller: None,
        block_owner_deletion: None,
    };
    SpiderEndpoint {
        metadata: ObjectMeta {
            name: Some(record.name.clone()),
            namespace: Some(record.namespace.clone()),
            finalizers: Some(vec![FINALIZER.to_owned()]),
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        spec: NoSpec {},
        status: Some(record.status.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(uid: &str, nics: &[&str]) -> Record {
        let ips = nics.iter().map(|nic| EndpointIp { interface: (*nic).to_owned(), ..EndpointIp::default() });
        let pod = Pod { namespace: "n".into(), name: "p".into(), uid: uid.into(), ..Pod::default() };
        let top =
            OwnerRef { api_version: "v1".into(), kind: "Pod".into(), name: "p".into(), uid: uid.into() };
        Record::new(&pod, &top, ips.collect())
    }

    fn nics(record: &Record) -> Vec<&str> {
        record.status.current.ips.iter().map(|ip| ip.interface.as_str()).collect()
    }

    #[test]
    fn a_write_that_failed_joins_what_came_meanwhile() {
        let joined = record("u", &["eth0", "net1"]).joined_by(record("u", &["net2"]));
        assert_eq!(nics(&joined), ["eth0", "net1", "net2"]);
    }

    #[test]
    fn only_another_pod_replaces() {
        let joined = record("old", &["eth0"]).joined_by(record("new", &["net1"]));
        assert_eq!((joined.uid(), nics(&joined)), ("new", vec!["net1"]));
    }
}
