//! Deletes our objects, except addresses that running pods use.

use std::collections::HashMap;

use anyhow::{Context as _, bail};
use kube::Api;
use kube::api::PatchParams;
use kube::core::{ApiResource, DynamicObject, GroupVersionKind, ObjectMeta};
use spiderpool_api::crd::{FINALIZER, GROUP, SpiderIPAddress, VERSION, crds};
use spiderpool_api::pod::PodObject;
use spiderpool_core::ipam::Holding;
use spiderpool_runtime::kubernetes::{ApiFailure, Deletion, Preconditions};
use tracing::{debug, info, warn};

use super::Cleaner;
use super::plan::{ListedPod, may_be_in_use};

/// The kind of which only unused objects are deleted.
pub(super) const ADDRESSES: &str = "spideripaddresses";
/// How many examples a message has.
const EXAMPLES: usize = 5;

impl Cleaner {
    /// Deletes all objects of all kinds but addresses.
    pub(super) async fn remove_objects(&self) -> anyhow::Result<()> {
        let mut problems = Vec::new();
        for crd in crds()?.into_iter().filter(|one| one.spec.names.plural != ADDRESSES) {
            let names = crd.spec.names;
            let kind = GroupVersionKind::gvk(GROUP, VERSION, &names.kind);
            let resource = ApiResource::from_gvk_with_plural(&kind, &names.plural);
            if let Err(error) = self.remove_kind(&resource, &mut problems).await {
                problems.push(format!("{}: {error}", names.plural));
            }
        }
        if problems.is_empty() {
            return Ok(());
        }
        let more = problems.len().saturating_sub(EXAMPLES);
        problems.truncate(EXAMPLES);
        bail!("{}{}", problems.join(", "), if more > 0 { format!(" and {more} more") } else { String::new() })
    }

    async fn remove_kind(
        &self,
        resource: &ApiResource,
        problems: &mut Vec<String>,
    ) -> Result<(), ApiFailure> {
        let all = Api::<DynamicObject>::all_with(self.kube.client(), resource);
        let found = match self.kube.pages(&all, |object| object.metadata).await {
            // There is no such CRD.
            Err(failure) if failure.is_not_found() => return Ok(()),
            found => found?,
        };
        for meta in &found {
            if let Err(error) = self.remove(resource, meta).await {
                let name = meta.name.as_deref().unwrap_or_default();
                problems.push(format!("{} {name}: {error}", resource.kind));
            }
        }
        debug!(kind = resource.kind, objects = found.len(), "objects deleted");
        Ok(())
    }

    async fn remove(&self, resource: &ApiResource, meta: &ObjectMeta) -> Result<(), ApiFailure> {
        let client = self.kube.client();
        let api: Api<DynamicObject> = match &meta.namespace {
            Some(namespace) => Api::namespaced_with(client, namespace, resource),
            None => Api::all_with(client, resource),
        };
        self.kube.remove_finalizer(&api, meta, FINALIZER, &PatchParams::default()).await?;
        self.kube.delete(&api, &Preconditions::from_meta(meta).at_any_version()).await.map(|_| ())
    }

    /// Deletes the addresses that nothing uses; how many stay.
    pub(super) async fn remove_addresses(&self) -> anyhow::Result<usize> {
        let api = Api::<SpiderIPAddress>::all(self.kube.client());
        let held = match self
            .kube
            .pages(&api, |address| (address.metadata.clone(), Holding::try_from(&address)))
            .await
        {
            Err(failure) if failure.is_not_found() => return Ok(0),
            held => held.context("they cannot be listed")?,
        };
        if held.is_empty() {
            return Ok(0);
        }
        let pods = Api::<PodObject>::all(self.kube.client());
        let pods = self.kube.pages(&pods, ListedPod::try_from).await;
        let pods = pods.context("pods cannot be listed, so it is unknown which addresses are in use")?;
        let pods: Vec<ListedPod> = pods
            .into_iter()
            .collect::<Result<_, _>>()
            .context("a pod is unreadable, so it is unknown which addresses are in use")?;
        let pods: HashMap<_, _> = pods.iter().map(|pod| (&pod.identity.name, pod)).collect();
        let (mut kept, mut failed) = (Vec::new(), Ok(()));
        for (meta, holding) in &held {
            let is_in_use = match holding {
                Ok(holding) => may_be_in_use(holding, pods.get(&holding.owner.pod.name).copied()),
                Err(_) => true,
            };
            // An address that has changed since it was listed is in use too.
            let outcome = if is_in_use {
                Ok(Deletion::Changed)
            } else {
                self.kube.delete(&api, &Preconditions::from_meta(meta)).await
            };
            match outcome {
                Ok(Deletion::Done) => {}
                Ok(Deletion::Changed) => {
                    let pod =
                        holding.as_ref().map_or("unreadable".to_owned(), |held| held.owner.pod.to_string());
                    kept.push(format!("{} ({pod})", meta.name.as_deref().unwrap_or_default()));
                }
                Err(failure) => failed = Err(failure),
            }
        }
        if !kept.is_empty() {
            let examples: Vec<&str> = kept.iter().take(EXAMPLES).map(String::as_str).collect();
            warn!(
                addresses = kept.len(),
                examples = examples.join(", "),
                "running pods still use these addresses: they stay, so that a new installation does not give them to others. Delete them with the CRD when the pods are gone: kubectl delete crd spideripaddresses.spiderpool.spidernet.io"
            );
        }
        failed?;
        info!(deleted = held.len() - kept.len(), kept = kept.len(), "addresses deleted");
        Ok(kept.len())
    }
}
