//! The agent's answer, which covers all of the pod's NICs, as the result for one of them.

use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use spiderpool_api::agent::ipam::{AddressConflict, IpConfig, IpamAddResponse, Route};
use spiderpool_core::Unsupported;
use spiderpool_core::names::IfName;

use super::nic::{DuplicateDetection, NeighborNotice};
use crate::error::{AllocationError, DetectionError, PluginError};
use crate::spec::{AddResult, IpEntry, RouteEntry};

/// What is `nic`'s of the answer. Addresses of other NICs are neither returned nor announced.
pub(super) fn of_answer(answer: &IpamAddResponse, nic: &IfName) -> Result<AddResult, PluginError> {
    let own: Vec<_> = answer.ips.iter().filter(|ip| ip.nic == nic.as_str()).collect();
    if own.is_empty() {
        return Err(AllocationError::NoAddress(nic.clone()).into());
    }
    for ip in &own {
        refuse_unsupported(ip)?;
    }
    Ok(AddResult {
        ips: own.iter().map(|ip| ip_entry(ip)).collect::<Result<_, _>>()?,
        routes: answer
            .routes
            .iter()
            .filter(|route| route.if_name == nic.as_str())
            .map(route_entry)
            .collect::<Result<_, _>>()?,
    })
}

/// An agent that does not know of conflicts gives the same address again.
pub(super) fn check_exchanged(
    result: &AddResult,
    nic: &IfName,
    conflicts: &[AddressConflict],
) -> Result<(), PluginError> {
    let is_given =
        |conflict: &&AddressConflict| result.ips.iter().any(|ip| ip.address.addr() == conflict.address);
    match conflicts.iter().find(is_given) {
        None => Ok(()),
        Some(AddressConflict { address, mac }) => {
            Err(DetectionError::SameAgain { nic: nic.clone(), address: *address, mac: *mac }.into())
        }
    }
}

/// An agent that does not speak of it, as upstream's, leaves it to the node.
pub(super) fn duplicate_detection(answer: &IpamAddResponse) -> DuplicateDetection {
    match answer.enable_duplicate_address_detection {
        Some(false) => DuplicateDetection::Off,
        Some(true) | None => DuplicateDetection::AsConfigured,
    }
}

/// Whether the kernel tells neighbors of the addresses, which is the usual case.
pub(super) fn notice(answer: &IpamAddResponse) -> NeighborNotice {
    if answer.announce == Some(false) { NeighborNotice::Never } else { NeighborNotice::WhenUp }
}

/// What was asked for and is not done must not look as if it were.
fn refuse_unsupported(ip: &IpConfig) -> Result<(), PluginError> {
    if !ip.mac.is_empty() {
        return Err(Unsupported::ProviderMac.into());
    }
    Ok(())
}

fn ip_entry(ip: &IpConfig) -> Result<IpEntry, PluginError> {
    Ok(IpEntry { address: address(ip)?, gateway: gateway(ip)? })
}

/// The address with its prefix length.
pub(super) fn address(ip: &IpConfig) -> Result<IpNet, PluginError> {
    parse("address", &ip.address)
}

/// The gateway of its pool, if that has one.
pub(super) fn gateway(ip: &IpConfig) -> Result<Option<IpAddr>, PluginError> {
    (!ip.gateway.is_empty()).then(|| parse("gateway", &ip.gateway)).transpose()
}

fn route_entry(route: &Route) -> Result<RouteEntry, PluginError> {
    Ok(RouteEntry {
        dst: parse("route destination", &route.dst)?,
        gw: (!route.gw.is_empty()).then(|| parse("route gateway", &route.gw)).transpose()?,
    })
}

fn parse<T: FromStr>(what: &'static str, text: &str) -> Result<T, PluginError> {
    Ok(text.parse().map_err(|_| AllocationError::Answer { what, text: text.to_owned() })?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Version;

    fn answer(json: &str) -> IpamAddResponse {
        serde_json::from_str(json).unwrap()
    }

    const TWO_NICS: &str = r#"{"ips":[
        {"version":4,"address":"10.6.212.145/16","gateway":"10.6.0.1","nic":"net1","ipPool":"p4","vlan":0},
        {"version":6,"address":"fd00:10:6::145/64","nic":"net1","ipPool":"p6"},
        {"version":4,"address":"10.7.0.5/16","gateway":"10.7.0.1","nic":"net2","ipPool":"q","enableGatewayDetection":true}],
        "routes":[{"ifName":"net1","dst":"0.0.0.0/0","gw":"10.6.0.1"},{"ifName":"net2","dst":"0.0.0.0/0","gw":"10.7.0.1"}]}"#;

    #[test]
    fn only_this_nics_addresses_are_returned() {
        let result = of_answer(&answer(TWO_NICS), &"net1".parse().unwrap()).unwrap();
        insta::assert_json_snapshot!("net1_of_two", result.to_json(Version::V1_0_0));
    }

    #[test]
    fn only_an_agent_that_says_so_has_detection_turned_off() {
        let said = |json: &str| duplicate_detection(&answer(json));
        assert_eq!(said(TWO_NICS), DuplicateDetection::AsConfigured);
        assert_eq!(said(r#"{"enableDuplicateAddressDetection":true}"#), DuplicateDetection::AsConfigured);
        assert_eq!(said(r#"{"enableDuplicateAddressDetection":false}"#), DuplicateDetection::Off);
    }

    #[test]
    fn neighbors_are_told_unless_the_agent_says_that_another_pod_uses_the_addresses() {
        let said = |json: &str| notice(&answer(json));
        assert_eq!(said(TWO_NICS), NeighborNotice::WhenUp);
        assert_eq!(said(r#"{"announce":true}"#), NeighborNotice::WhenUp);
        assert_eq!(said(r#"{"announce":false}"#), NeighborNotice::Never);
    }

    #[test]
    fn an_agent_that_gives_the_same_address_again_is_named() {
        let nic = "net1".parse().unwrap();
        let result = of_answer(&answer(TWO_NICS), &nic).unwrap();
        let check = |address: &str| {
            let mac = "02:00:00:00:00:07".parse().unwrap();
            let conflict = AddressConflict { address: address.parse().unwrap(), mac };
            check_exchanged(&result, &nic, &[conflict])
        };
        assert!(check("10.6.212.144").is_ok());
        let error = check("10.6.212.145").unwrap_err().to_object("1.0.0");
        assert_eq!(error.code, 108);
        assert!(
            error.details.contains("10.6.212.145 to NIC net1 again, which 02:00:00:00:00:07 uses"),
            "{error:?}"
        );
    }

    #[track_caller]
    fn check_error(nic: &str, json: &str, part: &str) {
        let error = of_answer(&answer(json), &nic.parse().unwrap()).unwrap_err();
        let details = error.to_object("1.0.0").details;
        assert!(details.contains(part), "{details}");
    }

    #[test]
    fn answers_that_cannot_be_used() {
        check_error("net3", TWO_NICS, "no Interface net3 IP allocation found");
        check_error("net1", r#"{"ips":null,"routes":null}"#, "no Interface net1");
        let mac = r#"{"ips":[{"version":4,"address":"10.6.0.5/16","nic":"net1","mac":"02:00:00:00:00:07"}]}"#;
        check_error("net1", mac, "is not supported yet");
        check_error(
            "net1",
            r#"{"ips":[{"version":4,"address":"10.6.0.5","nic":"net1"}]}"#,
            "address \"10.6.0.5\"",
        );
    }
}
