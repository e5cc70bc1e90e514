//! Pools that become a SpiderSubnet's: owner and label, and what they inherit.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Resource as _;
use kube::core::ObjectMeta;
use serde::Deserialize as _;
use serde_json::{Value, json};
use spiderpool_api::crd::{GROUP, SpiderSubnet};
use spiderpool_api::labels;
use spiderpool_core::ipam::address_name::label_value;

use super::known::KnownSubnet;
use super::members::members_mut;

/// Makes the pool the subnet's. One that is already is left alone: gateway and routes are inherited once, and what a user
/// takes away later stays away. So is one that something else controls: it can have one controller.
pub(super) fn adopt(pool: &mut Value, subnet: &KnownSubnet) {
    let meta = pool.get("metadata").cloned().unwrap_or_default();
    let Ok(meta) = ObjectMeta::deserialize(meta) else { return };
    let controller = controller(&meta);
    if controller.is_some_and(|owner| !is_subnet(owner)) {
        return;
    }
    let label = label_value(&subnet.name);
    let has_label = meta.labels.as_ref().is_some_and(|all| all.get(labels::OWNER_SUBNET) == Some(&label));
    if has_label && controller.is_some_and(|owner| owner.name == subnet.name && owner.uid == subnet.uid) {
        return;
    }
    let owner = OwnerReference {
        api_version: SpiderSubnet::api_version(&()).into_owned(),
        kind: SpiderSubnet::kind(&()).into_owned(),
        name: subnet.name.clone(),
        uid: subnet.uid.clone(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    };
    // One of the name that is gone would have the pool collected.
    let mut owners = meta.owner_references.unwrap_or_default();
    owners.retain(|owner| !is_subnet(owner));
    owners.push(owner);
    let Some(members) = members_mut(pool, &["metadata"]) else { return };
    members.insert("ownerReferences".to_owned(), json!(owners));
    if let Some(members) = members_mut(pool, &["metadata", "labels"]) {
        members.insert(labels::OWNER_SUBNET.to_owned(), json!(label));
    }
    inherit(pool, subnet);
}

/// As the leader does it for a pool that was there before its subnet. An empty list of routes is an answer: the pool has none.
fn inherit(pool: &mut Value, subnet: &KnownSubnet) {
    let gateway = subnet.spec.gateway.as_ref().filter(|gateway| !gateway.is_empty());
    let routes = Some(&subnet.spec.routes).filter(|routes| !routes.is_empty());
    let inherited =
        [("gateway", gateway.map(|value| json!(value))), ("routes", routes.map(|all| json!(all)))];
    let Some(spec) = members_mut(pool, &["spec"]) else { return };
    for (field, value) in inherited {
        let is_said = spec.get(field).is_some_and(|said| !said.is_null() && said != "");
        if let Some(value) = value
            && !is_said
        {
            spec.insert(field.to_owned(), value);
        }
    }
}

/// The SpiderSubnet that controls the pool.
pub(super) fn owner_of(pool: &ObjectMeta) -> Option<&str> {
    controller(pool).filter(|owner| is_subnet(owner)).map(|owner| owner.name.as_str())
}

fn controller(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
}

fn is_subnet(owner: &OwnerReference) -> bool {
    owner.kind == SpiderSubnet::kind(&()) && owner.api_version.split('/').next() == Some(GROUP)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet() -> KnownSubnet {
        let object = json!({
            "metadata": {"name": "s", "uid": "u"},
            "spec": {
                "subnet": "10.6.0.0/16", "ips": ["10.6.0.2-10.6.0.9"], "gateway": "10.6.0.1",
                "routes": [{"dst": "10.0.0.0/8", "gw": "10.6.0.1"}],
            },
        });
        KnownSubnet::from(serde_json::from_value::<SpiderSubnet>(object).unwrap())
    }

    fn owner(uid: &str) -> Value {
        json!({
            "apiVersion": "spiderpool.spidernet.io/v2beta1", "kind": "SpiderSubnet", "name": "s", "uid": uid,
            "controller": true, "blockOwnerDeletion": true,
        })
    }

    fn adopted(mut pool: Value) -> Value {
        adopt(&mut pool, &subnet());
        pool
    }

    #[test]
    fn a_pool_gets_owner_label_gateway_and_routes() {
        let other = json!({"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "n"});
        let pool = json!({
            "metadata": {"name": "p", "ownerReferences": [other, owner("of an earlier one")]},
            "spec": {"subnet": "10.6.0.0/16"},
        });
        assert_eq!(
            adopted(pool),
            json!({
                "metadata": {
                    "name": "p", "labels": {"ipam.spidernet.io/owner-spider-subnet": "s"},
                    "ownerReferences": [other, owner("u")],
                },
                "spec": {
                    "subnet": "10.6.0.0/16", "gateway": "10.6.0.1",
                    "routes": [{"dst": "10.0.0.0/8", "gw": "10.6.0.1"}],
                },
            })
        );
    }

    #[test]
    fn what_a_pool_says_is_kept_also_that_it_has_no_routes() {
        let spec = |gateway: &str, routes: Value| {
            let pool = json!({"metadata": {}, "spec": {"gateway": gateway, "routes": routes}});
            adopted(pool)["spec"].clone()
        };
        assert_eq!(spec("10.6.0.9", json!([])), json!({"gateway": "10.6.0.9", "routes": []}));
        let filled = spec("", json!(null));
        assert_eq!(
            (&filled["gateway"], &filled["routes"][0]["dst"]),
            (&json!("10.6.0.1"), &json!("10.0.0.0/8"))
        );
    }

    #[test]
    fn a_pool_that_belongs_to_it_or_to_somebody_else_is_left_alone() {
        let label = json!({"ipam.spidernet.io/owner-spider-subnet": "s"});
        let own = json!({"metadata": {"labels": label, "ownerReferences": [owner("u")]}, "spec": {}});
        assert_eq!(adopted(own.clone()), own);
        let other = json!({"apiVersion": "a/v1", "kind": "SpiderSubnet", "name": "s", "uid": "u", "controller": true});
        let of_others = json!({"metadata": {"labels": label, "ownerReferences": [other]}, "spec": {}});
        assert_eq!(adopted(of_others.clone()), of_others);
        let unlabelled = json!({"metadata": {"ownerReferences": [owner("u")]}, "spec": {}});
        assert_eq!(adopted(unlabelled)["metadata"]["labels"], label);
    }
}
