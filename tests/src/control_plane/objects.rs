//! Objects of any kind without kubectl, whose start alone takes a tenth of a second of a processor: for what tests do
//! again and again.

use anyhow::{Context as _, Result};
use kube::api::{Api, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use kube::discovery::{Scope, pinned_kind};
use kube::{Client, ResourceExt as _};
use serde_json::{Value, json};

use super::ControlPlane;

/// A kind of objects: `apiVersion` and `kind`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind(pub &'static str, pub &'static str);

impl Kind {
    /// One of ours.
    pub const fn spiderpool(kind: &'static str) -> Self {
        Self("spiderpool.spidernet.io/v2beta1", kind)
    }
}

impl ControlPlane {
    /// The object, if it exists. The namespace of one that has none is empty.
    pub fn find(&self, kind: Kind, namespace: &str, name: &str) -> Result<Option<Value>> {
        self.with_client(async |client| {
            let found = api(client, kind.0, kind.1, namespace).await?.get_opt(name).await;
            found?.map(serde_json::to_value).transpose().map_err(Into::into)
        })
        .with_context(|| format!("{} {name}", kind.1))
    }

    /// The objects of a kind; of all namespaces if none is named.
    pub fn list(&self, kind: Kind, namespace: &str, parameters: &ListParams) -> Result<Vec<Value>> {
        self.with_client(async |client| {
            let list = api(client, kind.0, kind.1, namespace).await?.list(parameters).await?;
            list.items.into_iter().map(|item| Ok(serde_json::to_value(item)?)).collect()
        })
        .with_context(|| format!("list of {}", kind.1))
    }

    /// The Events that these fields select; of all namespaces if none is named.
    pub fn events(&self, namespace: &str, fields: &str) -> Result<Vec<Value>> {
        self.list(Kind("v1", "Event"), namespace, &ListParams::default().fields(fields))
    }

    /// Server-side apply, as kubectl does it.
    pub fn apply_object(&self, object: &Value) -> Result<()> {
        self.with_client(async |client| {
            let object: DynamicObject = serde_json::from_value(object.clone())?;
            let types = object.types.clone().context("no apiVersion")?;
            let namespace = object.namespace().unwrap_or_else(|| "default".to_owned());
            let api = api(client, &types.api_version, &types.kind, &namespace).await?;
            let mut parameters = PatchParams::apply("kubectl").force();
            parameters.field_validation = Some(kube::api::ValidationDirective::Strict);
            api.patch(&object.name_any(), &parameters, &Patch::Apply(&object)).await?;
            Ok(())
        })
        .with_context(|| format!("apply {object}"))
    }

    /// What the API server would say to its creation.
    pub fn try_create(&self, object: &Value) -> Result<()> {
        self.with_client(async |client| {
            let object: DynamicObject = serde_json::from_value(object.clone())?;
            let types = object.types.clone().context("no apiVersion")?;
            let namespace = object.namespace().unwrap_or_default();
            let api = api(client, &types.api_version, &types.kind, &namespace).await?;
            api.create(&PostParams { dry_run: true, ..PostParams::default() }, &object).await?;
            Ok(())
        })
    }

    /// Merges `status` into the object's.
    pub fn patch_status(&self, kind: Kind, namespace: &str, name: &str, status: &Value) -> Result<()> {
        self.with_client(async |client| {
            let patch = Patch::Merge(json!({"status": status}));
            let api = api(client, kind.0, kind.1, namespace).await?;
            api.patch_status(name, &PatchParams::default(), &patch).await?;
            Ok(())
        })
        .with_context(|| format!("status of {} {name}", kind.1))
    }
}

async fn api(client: Client, api_version: &str, kind: &str, namespace: &str) -> Result<Api<DynamicObject>> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let (resource, capabilities) = pinned_kind(&client, &GroupVersionKind::gvk(group, version, kind)).await?;
    Ok(match capabilities.scope {
        Scope::Namespaced if !namespace.is_empty() => Api::namespaced_with(client, namespace, &resource),
        _ => Api::all_with(client, &resource),
    })
}
