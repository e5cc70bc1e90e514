//! Asks the NIC's link, before the pod uses them, whether somebody else has its addresses and whether its gateways are
//! there. Main plugins ask for addresses when the NIC is in the pod's namespace and still down.

use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant};

use spiderpool_api::agent::ipam::{AddressConflict, IpamAddResponse};
use spiderpool_core::Unsupported;
use spiderpool_core::detection::{Query, Timing};
use spiderpool_core::mac::MacAddr;
use spiderpool_core::names::IfName;
use spiderpool_core::net::{Link, Medium};
use spiderpool_net::block_on;
use spiderpool_net::netlink::{Netlink, NetlinkError};
use spiderpool_net::netns::NetNs;
use spiderpool_net::probe::ask;
use tracing::{debug, info, warn};

use super::result::{address, gateway};
use crate::error::{DetectionError, PluginError};

/// A NIC that is set up has a carrier at once if it is macvlan, and after seconds if it has a cable.
const CARRIER_LIMIT: Duration = Duration::from_secs(5);
const CARRIER_PAUSE: Duration = Duration::from_millis(10);

/// Asks about the answers to one ADD.
pub(super) struct Detector<'a> {
    netns: &'a NetNs,
    nic: &'a IfName,
    /// What nobody else has.
    free: Vec<IpAddr>,
}

/// What is to be asked about an answer.
#[derive(Debug, Default, PartialEq, Eq)]
struct Questions {
    owners: Vec<Query>,
    gateways: Vec<Query>,
}

impl<'a> Detector<'a> {
    /// Of this NIC.
    pub(super) fn new(netns: &'a NetNs, nic: &'a IfName) -> Self {
        Self { netns, nic, free: Vec::new() }
    }

    /// The addresses of the answer that others have. If there are none, the gateways answer. What was asked before is not
    /// asked again. Fails at once if `deadline` would be over before all answers.
    pub(super) fn detect(
        &mut self,
        answer: &IpamAddResponse,
        deadline: Instant,
    ) -> Result<Vec<AddressConflict>, PluginError> {
        let mut questions = Questions::of(answer, self.nic)?;
        questions.owners.retain(|query| !self.free.contains(&query.target()));
        if questions == Questions::default() {
            return Ok(Vec::new());
        }
        let timing = answer.detection.map_or_else(Timing::default, Timing::from);
        let nic = self.nic;
        let outcome = self.netns.run(|| {
            let Some((link, mac)) = askable(nic, &mut questions)? else { return Ok(None) };
            let time = questions.time(timing);
            let left = deadline.saturating_duration_since(Instant::now());
            let carrier_limit = left.checked_sub(time).filter(|limit| !limit.is_zero());
            let carrier_limit =
                carrier_limit.ok_or_else(|| DetectionError::NoTime { nic: nic.clone(), time })?;
            while_up(nic, &link, carrier_limit.min(CARRIER_LIMIT), || {
                let owners = ask(link.index, mac, questions.owners.clone(), timing)?;
                let is_free = owners.iter().all(|(_, owner)| owner.is_none());
                let gateways = if is_free { questions.gateways.clone() } else { Vec::new() };
                let gateways = ask(link.index, mac, gateways, timing)?;
                Ok(Some((owners, gateways)))
            })
        });
        let Some((owners, gateways)) = outcome?? else { return Ok(Vec::new()) };
        let mut conflicts = Vec::new();
        for (query, owner) in owners {
            match owner {
                Some(mac) => conflicts.push(AddressConflict { address: query.target(), mac }),
                None => self.free.push(query.target()),
            }
        }
        let dead = gateways.iter().filter(|(_, mac)| mac.is_none()).map(|(query, _)| query.target());
        let dead: Vec<_> = dead.collect();
        if !dead.is_empty() {
            let waited = timing.interval * timing.probes;
            return Err(DetectionError::Gateway { nic: nic.clone(), gateways: dead, waited }.into());
        }
        debug!(?conflicts, ?gateways, "the link was asked");
        Ok(conflicts)
    }
}

impl Questions {
    /// What the agent wants to be asked about this NIC's addresses.
    fn of(answer: &IpamAddResponse, nic: &IfName) -> Result<Self, PluginError> {
        let mut questions = Self::default();
        for ip in answer.ips.iter().filter(|ip| ip.nic == nic.as_str()) {
            let own = address(ip)?.addr();
            if ip.enable_ip_conflict_detection {
                questions.owners.push(Query::Owner(own));
            }
            if let (true, Some(gateway)) = (ip.enable_gateway_detection, gateway(ip)?) {
                questions.gateways.push(Query::Gateway { gateway, own });
            }
        }
        Ok(questions)
    }

    /// How long it takes at most to ask them: gateways come after the addresses.
    fn time(&self, timing: Timing) -> Duration {
        let rounds = [&self.owners, &self.gateways].into_iter().filter(|queries| !queries.is_empty());
        rounds.map(|_| timing.interval * timing.probes).sum()
    }

    /// Nothing about what the NIC has already: it is the pod's by an ADD before, and its own kernel would answer.
    fn without(&mut self, present: &[IpAddr]) {
        self.owners.retain(|query| !present.contains(&query.target()));
        self.gateways.retain(|query| match query {
            Query::Gateway { own, .. } => !present.contains(own),
            Query::Owner(_) => true,
        });
    }
}

/// The NIC and its MAC, if it can be asked and there is something to ask. Called in the pod's namespace.
fn askable(nic: &IfName, questions: &mut Questions) -> Result<Option<(Link, MacAddr)>, PluginError> {
    let read: Result<_, NetlinkError> = block_on(async {
        let mut netlink = Netlink::open()?;
        let Some(link) = netlink.link_by_name(nic).await? else { return Ok(None) };
        let Some(state) = netlink.link_state(link.index).await? else { return Ok(None) };
        let present = netlink.addresses(Some(link.index)).await?;
        Ok(Some((link, state, present)))
    });
    let Some((link, state, present)) = read? else {
        // Some main plugins (ptp) make the NIC after they have the addresses, with nobody on it but the node.
        warn!("the NIC is not there yet, its addresses and gateways are not probed for");
        return Ok(None);
    };
    let present: Vec<IpAddr> = present.iter().map(|address| address.net.addr()).collect();
    questions.without(&present);
    if *questions == Questions::default() {
        info!(?present, "the NIC has its addresses already, nothing is probed for");
        return Ok(None);
    }
    if !state.arp {
        // ipvlan in mode l3: there are no neighbors.
        warn!("nobody is asked for MACs on this NIC (NOARP), its addresses and gateways are not probed for");
        return Ok(None);
    }
    match link.mac.filter(|_| link.medium == Medium::Ethernet) {
        // It has the MAC of its parent, which the kernel gives answers to for addresses that are on no NIC yet
        // (`ipvlan_handle_mode_l2()` in drivers/net/ipvlan/ipvlan_core.c).
        Some(_) if link.kind == "ipvlan" => Err(Unsupported::DetectionOnIpvlan(nic.clone()).into()),
        Some(mac) => Ok(Some((link, mac))),
        None => Err(Unsupported::DetectionLinkLayer(nic.clone()).into()),
    }
}

/// Does the work while the NIC is up and has a carrier, and leaves it as it was: the kernel announces the addresses of a NIC
/// that comes up with them.
fn while_up<T>(
    nic: &IfName,
    link: &Link,
    carrier_limit: Duration,
    work: impl FnOnce() -> Result<T, PluginError>,
) -> Result<T, PluginError> {
    if link.up {
        return wait_for_carrier(nic, link.index, carrier_limit).and_then(|()| work());
    }
    set(link.index, true)?;
    let outcome = wait_for_carrier(nic, link.index, carrier_limit).and_then(|()| work());
    let restored = set(link.index, false);
    let value = outcome?;
    restored?;
    Ok(value)
}

fn set(index: u32, up: bool) -> Result<(), NetlinkError> {
    block_on(async {
        let mut netlink = Netlink::open()?;
        if up { netlink.set_up(index).await } else { netlink.set_down(index).await }
    })
}

fn wait_for_carrier(nic: &IfName, index: u32, limit: Duration) -> Result<(), PluginError> {
    let deadline = Instant::now() + limit;
    loop {
        let state: Result<_, NetlinkError> = block_on(async { Netlink::open()?.link_state(index).await });
        match state? {
            Some(state) if state.carrier => return Ok(()),
            Some(_) if Instant::now() < deadline => thread::sleep(CARRIER_PAUSE),
            Some(_) => return Err(DetectionError::NoCarrier(nic.clone(), limit).into()),
            None => return Err(PluginError::NoDevice(nic.clone())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use spiderpool_net::netlink::NewVeth;

    use super::*;

    const ANSWER: &str = r#"{"ips":[
        {"version":4,"address":"10.6.0.9/16","gateway":"10.6.0.1","nic":"net1","enableIPConflictDetection":true,
         "enableGatewayDetection":true},
        {"version":6,"address":"fd06::9/64","nic":"net1","enableIPConflictDetection":true,"enableGatewayDetection":true},
        {"version":4,"address":"10.7.0.9/16","gateway":"10.7.0.1","nic":"net2"}]}"#;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn questions(nic: &str) -> Questions {
        Questions::of(&serde_json::from_str(ANSWER).unwrap(), &nic.parse().unwrap()).unwrap()
    }

    #[test]
    fn what_the_agent_wants_is_asked_of_this_nic_alone() {
        let asked = questions("net1");
        assert_eq!(asked.owners, [Query::Owner(ip("10.6.0.9")), Query::Owner(ip("fd06::9"))]);
        let gateway = Query::Gateway { gateway: ip("10.6.0.1"), own: ip("10.6.0.9") };
        assert_eq!(asked.gateways, [gateway]);
        assert_eq!(questions("net2"), Questions::default());
    }

    #[test]
    fn addresses_and_gateways_are_asked_about_one_after_the_other() {
        let timing = Timing { probes: 3, interval: Duration::from_millis(200) };
        let mut asked = questions("net1");
        assert_eq!(asked.time(timing), Duration::from_millis(1200));
        asked.gateways.clear();
        assert_eq!(asked.time(timing), Duration::from_millis(600));
        assert_eq!(Questions::default().time(timing), Duration::ZERO);
    }

    #[test]
    fn nothing_is_asked_about_what_the_nic_has() {
        let mut asked = questions("net1");
        asked.without(&[ip("10.6.0.9"), ip("fe80::1")]);
        assert_eq!((asked.owners.len(), asked.gateways.len()), (1, 0));
        asked.without(&[ip("fd06::9")]);
        assert_eq!(asked, Questions::default());
    }

    /// Both ends of a pair, down; this one with more settings of ip(8).
    fn pair(settings: &str) -> (NetNs, NetNs) {
        let (near, far) = (NetNs::create().unwrap(), NetNs::create().unwrap());
        let made: Result<(), NetlinkError> = block_on(async {
            let veth = NewVeth {
                name: &"net1".parse().unwrap(),
                mac: "02:00:00:00:00:01".parse().unwrap(),
                peer_name: &"peer".parse().unwrap(),
                peer_mac: "02:00:00:00:00:02".parse().unwrap(),
                peer_netns: &far,
                mtu: 1500,
            };
            near.netlink().unwrap().add_veth(&veth).await
        });
        made.unwrap();
        let arguments = ["link", "set", "net1"].into_iter().chain(settings.split_whitespace());
        let set = near.run(|| Command::new("ip").args(arguments).status()).unwrap();
        assert!(set.unwrap().success());
        (near, far)
    }

    fn is_up(netns: &NetNs) -> bool {
        let link: Result<_, NetlinkError> =
            block_on(async { netns.netlink().unwrap().link_by_name(&"net1".parse().unwrap()).await });
        link.unwrap().unwrap().up
    }

    #[test]
    fn a_nic_that_nobody_can_be_asked_by_is_told_apart_and_left_as_it_was() {
        if !nix::unistd::geteuid().is_root() {
            assert!(std::env::var_os("CI").is_none(), "this test needs root");
            eprintln!("skipped: needs root");
            return;
        }
        let (answer, nic) = (serde_json::from_str(ANSWER).unwrap(), "net1".parse().unwrap());
        let detect_by = |netns: &NetNs, deadline| Detector::new(netns, &nic).detect(&answer, deadline);
        let detect = |netns: &NetNs| detect_by(netns, Instant::now() + Duration::from_mins(1));
        // The main plugin makes it later.
        assert_eq!(detect(&NetNs::create().unwrap()).unwrap(), []);
        let (without_arp, _far) = pair("arp off");
        assert_eq!(detect(&without_arp).unwrap(), []);
        let (alone, _far) = pair("mtu 1500");
        let late = detect_by(&alone, Instant::now() + Duration::from_secs(1)).unwrap_err().to_object("1.0.0");
        assert!(
            late.details.contains("no time is left to ask the network of NIC net1, which takes 1200 ms"),
            "{late:?}"
        );
        let error = detect(&alone).unwrap_err().to_object("1.0.0");
        assert_eq!(error.code, 108);
        assert!(error.details.contains("NIC net1 has no carrier after 5s"), "{error:?}");
        assert!(!is_up(&alone));
    }
}
