//! What upstream's webhook fills into a SpiderMultusConfig.
//!
//! Nothing here is needed to make a NetworkAttachmentDefinition: the schema has defaults of its own, and what is absent
//! counts as what is filled in here. The `coordinator` block stays as it is: what it does not say is SpiderCoordinator's.

use kube::ResourceExt as _;
use spiderpool_core::multus::annotations::{NETWORK_RESOURCE_INJECT, RDMA_RESOURCE_INJECT};
use spiderpool_core::multus::{Bond, CniType, VlanMode, VlanNicConfig};

use super::{SpiderMultusConfig, SpiderMultusConfigSpec};

impl SpiderMultusConfig {
    /// Fills in what is absent, and has the labels say which resources bring the network to pods.
    pub fn fill_in_defaults(&mut self) {
        self.spec.fill_in_defaults();
        for key in [RDMA_RESOURCE_INJECT, NETWORK_RESOURCE_INJECT] {
            match self.annotations().get(key).cloned() {
                Some(value) => {
                    self.labels_mut().insert(key.to_owned(), value);
                }
                None => {
                    if let Some(labels) = &mut self.metadata.labels {
                        labels.remove(key);
                    }
                }
            }
        }
    }
}

impl SpiderMultusConfigSpec {
    fn fill_in_defaults(&mut self) {
        if self.cni_type == CniType::Custom {
            // The whole configuration is the user's.
            self.coordinator = None;
            self.enable_coordinator = false;
            self.custom_cni.get_or_insert_default();
        }
        for nic in self.macvlan.iter_mut().chain(&mut self.ipvlan) {
            fill_in_nic(nic);
        }
        if let Some(vlan) = &mut self.vlan {
            if vlan.vlan_mode == VlanMode::Manual {
                vlan.vlan_id.get_or_insert(0);
            }
            vlan.rdma_resource_name.get_or_insert_default();
            fill_in_bond(vlan.bond.as_mut());
        }
        if let Some(sriov) = &mut self.sriov {
            sriov.vlan_id.get_or_insert(0);
            sriov.min_tx_rate_mbps.get_or_insert(0);
            sriov.max_tx_rate_mbps.get_or_insert(0);
        }
        if let Some(ibsriov) = &mut self.ibsriov {
            ibsriov.pkey.get_or_insert_default();
        }
        if let Some(ovs) = &mut self.ovs {
            ovs.vlan.get_or_insert(0);
        }
    }
}

fn fill_in_nic(nic: &mut VlanNicConfig) {
    nic.vlan_id.get_or_insert(0);
    nic.rdma_resource_name.get_or_insert_default();
    fill_in_bond(nic.bond.as_mut());
}

fn fill_in_bond(bond: Option<&mut Bond>) {
    if let Some(bond) = bond {
        bond.options.get_or_insert_default();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use spiderpool_core::multus::{MultusFields, plan_attachment};

    use super::*;

    fn object(spec: &Value, annotations: &Value) -> SpiderMultusConfig {
        let object = json!({ "metadata": { "name": "n", "annotations": annotations }, "spec": spec });
        serde_json::from_value(object).unwrap()
    }

    #[track_caller]
    fn check(spec: &Value, part: &Value) {
        let before = object(spec, &json!({}));
        let mut after = before.clone();
        after.fill_in_defaults();
        let filled = serde_json::to_value(&after.spec).unwrap();
        for (member, value) in part.as_object().unwrap() {
            assert_eq!(filled[member], *value, "{member}");
        }
        let plan = |object: &SpiderMultusConfig| plan_attachment(&MultusFields::from(object));
        assert_eq!(plan(&after), plan(&before), "the same is made of it");
        let once = after.clone();
        after.fill_in_defaults();
        assert_eq!(after, once);
    }

    #[test]
    fn what_is_absent_is_filled_in_and_means_the_same() {
        check(
            &json!({ "cniType": "macvlan", "macvlan": { "master": ["a"], "bond": { "name": "b", "mode": 1 } } }),
            &json!({
                "enableCoordinator": true,
                "macvlan": {
                    "master": ["a"], "mtu": 0, "vlanID": 0, "rdmaResourceName": "",
                    "bond": { "name": "b", "mode": 1, "options": "" },
                },
                "coordinator": null,
            }),
        );
        check(
            &json!({ "cniType": "vlan", "vlan": { "master": ["a"] } }),
            &json!({ "vlan": {
                "master": ["a"], "mtu": 0, "vlanMode": "manual", "vlanID": 0, "rdmaResourceName": "",
            } }),
        );
        check(
            &json!({ "cniType": "sriov", "sriov": { "resourceName": "r" } }),
            &json!({ "sriov": {
                "resourceName": "r", "mtu": 0, "vlanID": 0, "minTxRateMbps": 0, "maxTxRateMbps": 0,
                "rdmaIsolation": false,
            } }),
        );
        let lowest = object(
            &json!({ "cniType": "sriov", "sriov": { "resourceName": "r", "minTxRateMbps": 10 } }),
            &json!({}),
        );
        let mut filled = lowest.clone();
        filled.fill_in_defaults();
        for object in [lowest, filled] {
            plan_attachment(&MultusFields::from(&object)).unwrap();
        }
        check(
            &json!({ "cniType": "ovs", "ovs": { "bridge": "b" } }),
            &json!({ "ovs": { "bridge": "b", "vlan": 0 } }),
        );
        check(
            &json!({ "coordinator": { "mode": "overlay" } }),
            &json!({ "customCNI": "", "enableCoordinator": false, "coordinator": null }),
        );
        check(
            &json!({ "cniType": "ib-sriov", "ibsriov": { "resourceName": "r" }, "coordinator": { "mode": "overlay" } }),
            &json!({ "coordinator": { "mode": "overlay" } }),
        );
    }

    #[test]
    fn labels_follow_the_annotations() {
        let mut with = object(&json!({}), &json!({ RDMA_RESOURCE_INJECT: "a" }));
        with.fill_in_defaults();
        assert_eq!(with.labels()[RDMA_RESOURCE_INJECT], "a");
        with.metadata.annotations = None;
        with.fill_in_defaults();
        assert!(with.labels().is_empty());
    }
}
