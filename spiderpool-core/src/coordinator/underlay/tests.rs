//! Plans for pods whose first NIC is a macvlan NIC, as snapshots.

use super::*;
use crate::coordinator::Step;
use crate::coordinator::fixture::{Pod, nic};

impl Pod {
    fn add_with_programs(&mut self, name: &str) -> EbpfPlan {
        let plan = plan_underlay(&self.inputs(&nic(name))).unwrap();
        self.apply(&[plan.links.as_slice(), &plan.routes].concat());
        let again = plan_underlay(&self.inputs(&nic(name))).unwrap();
        // Writing a kernel parameter again changes nothing.
        let rest: Vec<_> = again.links.iter().filter(|s| !matches!(s, Step::SetSysctl { .. })).collect();
        assert_eq!((rest, &again.routes), (vec![], &vec![]), "{name}");
        plan
    }

    fn pod_routes(&self) -> Vec<String> {
        self.namespace.routes.iter().map(ToString::to_string).collect()
    }
}

#[test]
fn veth0_leads_to_node_and_cluster() {
    let mut pod = Pod::underlay("{}");
    insta::assert_snapshot!("one_nic", pod.add_with_programs("eth0"));
}

#[test]
fn a_second_nic_shares_veth0_and_keeps_its_default_route_behind() {
    let mut pod = Pod::underlay("{}");
    pod.add_with_programs("eth0");
    pod.attach("net1", "10.6.212.145/16", "10.6.0.1");
    insta::assert_snapshot!("second_nic", pod.add_with_programs("net1"));
    pod.add_with_programs("eth0");
}

/// In IPv6 a redirect by neighbor needs a default route with eth0's source, as for any NIC whose default stepped back.
#[test]
fn the_default_route_moves_to_net1() {
    let mut pod = Pod::underlay(r#"{"podDefaultRouteNic":"net1"}"#);
    pod.add_with_programs("eth0");
    pod.attach("net1", "10.6.212.145/16", "10.6.0.1");
    pod.attach("net1", "fd00:10:6::145/64", "fd00:10:6::1");
    pod.add_with_programs("net1");
    let defaults: Vec<String> = pod.pod_routes().into_iter().filter(|r| r.starts_with("default")).collect();
    insta::assert_snapshot!("default_on_net1", defaults.join("\n"));
}

#[test]
fn veth0_has_the_address_and_mtu_that_are_configured() {
    let mut pod = Pod::underlay(r#"{"vethLinkAddress":"169.254.100.1","vethMTU":9000,"podRPFilter":-1}"#);
    let plan = pod.add_with_programs("eth0").to_string();
    assert!(plan.contains("pod: addr add 169.254.100.1/32 dev veth0") && plan.contains("mtu 9000"), "{plan}");
    assert!(!plan.contains("rp_filter"), "{plan}");
}

#[test]
fn without_hints_the_programs_alone_lead_to_the_cluster() {
    let mut pod = Pod::underlay(r#"{"ebpf":{"routeHints":"never"}}"#);
    let before = pod.pod_routes();
    pod.add_with_programs("eth0");
    assert_eq!(pod.pod_routes(), before);
}

#[test]
fn the_nodes_own_address_is_refused() {
    let mut pod = Pod::underlay("{}");
    pod.nodes.push("172.18.55.180".parse().unwrap());
    let address = "172.18.55.180".parse().unwrap();
    assert_eq!(
        plan_underlay(&pod.inputs(&nic("eth0"))),
        Err(PlanError::NodeAddress { nic: nic("eth0"), address })
    );
}
