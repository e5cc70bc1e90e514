//! Removing a finalizer, whatever else happens to the object meanwhile.

use std::fmt::Debug;

use json_patch::jsonptr::PointerBuf;
use json_patch::{PatchOperation, RemoveOperation, TestOperation};
use kube::Api;
use kube::api::{Patch, PatchParams};
use kube::core::ObjectMeta;
use serde::de::DeserializeOwned;

use super::{ApiFailure, Kubernetes};

/// How often the object is read again because its finalizers have changed.
const ATTEMPTS: usize = 5;

impl Kubernetes {
    /// Removes `finalizer` from the object that `meta` was read of. Others' finalizers stay, another object with this
    /// name stays as it is, and an object that is gone or has no such finalizer is fine.
    ///
    /// kube's `finalizer` does not fit: it adds the finalizer too, and removes it from objects that are being deleted only.
    pub async fn remove_finalizer<K>(
        &self,
        api: &Api<K>,
        meta: &ObjectMeta,
        finalizer: &str,
        parameters: &PatchParams,
    ) -> Result<(), ApiFailure>
    where
        K: Clone + DeserializeOwned + Debug,
    {
        let Some(name) = meta.name.as_deref() else { return Ok(()) };
        let mut patch = removal(meta, finalizer);
        let mut attempts = 1..;
        while let Some(operations) = patch.take() {
            match self.write(api.patch_metadata(name, parameters, &Patch::Json::<()>(operations))).await {
                Err(failure) if failure.is_not_found() => {}
                // Something that the patch tests has changed.
                Err(failure) if failure.is_conflict() || failure.is_invalid() => {
                    if attempts.next() == Some(ATTEMPTS) {
                        return Err(failure);
                    }
                    let found = self.read(api.get_metadata_opt(name)).await?;
                    let found = found.filter(|found| found.metadata.uid == meta.uid);
                    patch = found.and_then(|found| removal(&found.metadata, finalizer));
                }
                other => return other.map(|_| ()),
            }
        }
        Ok(())
    }
}

/// `None` if the finalizer is not there.
fn removal(meta: &ObjectMeta, finalizer: &str) -> Option<json_patch::Patch> {
    let index = meta.finalizers.iter().flatten().position(|one| one == finalizer)?;
    let path = PointerBuf::from_tokens(["metadata", "finalizers", &index.to_string()]);
    let test = |path, value: &str| PatchOperation::Test(TestOperation { path, value: value.into() });
    Some(json_patch::Patch(vec![
        test(PointerBuf::from_tokens(["metadata", "uid"]), meta.uid.as_deref().unwrap_or_default()),
        test(path.clone(), finalizer),
        PatchOperation::Remove(RemoveOperation { path }),
    ]))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn meta(finalizers: &[&str]) -> ObjectMeta {
        serde_json::from_value(json!({"name": "a", "uid": "u", "finalizers": finalizers})).unwrap()
    }

    #[test]
    fn only_this_finalizer_of_this_object_is_removed() {
        let patch = removal(&meta(&["other", "ours"]), "ours").unwrap();
        assert_eq!(
            serde_json::to_value(&patch).unwrap(),
            json!([
                {"op": "test", "path": "/metadata/uid", "value": "u"},
                {"op": "test", "path": "/metadata/finalizers/1", "value": "ours"},
                {"op": "remove", "path": "/metadata/finalizers/1"},
            ])
        );
        assert!(removal(&meta(&["other"]), "ours").is_none() && removal(&meta(&[]), "ours").is_none());
    }
}
