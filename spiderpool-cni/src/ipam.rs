//! The plugin `spiderpool`: asks the agent for a NIC's addresses and hands them to the main plugin.

pub mod config;
mod detection;
mod nic;
mod result;

use std::net::IpAddr;
use std::time::{Duration, Instant};

use serde_json::Value;
use spiderpool_api::agent::ipam::{IpamAddArgs, IpamDelArgs};
use spiderpool_client::Client;
use spiderpool_core::gc::ValidAttachments;
use spiderpool_net::block_on;
use spiderpool_net::netns::NetNs;
use tracing::{debug, info, warn};

pub use config::NetConf;
use detection::Detector;

use crate::env::{Command, Request};
use crate::error::{AllocationError, CheckError, DetectionError, PluginError};
use crate::log::LogOptions;
use crate::netns::open_netns;
use crate::run::Plugin;
use crate::spec::{Version, result_addresses};

/// So many addresses of a family are tried in one ADD: where somebody answers for all of them, no pod takes one after the
/// other. The last one stays with the pod, and the next ADD finds what is wrong with it.
const ROUNDS: u32 = 4;
/// No other addresses are asked for after this time.
const EXCHANGE_LIMIT: Duration = Duration::from_mins(1);
/// An ADD has ended after this time, whatever it waits for: its error says why, which runtimes' own limits do not. These are 2 minutes as a
/// rule, and 4 for all NICs of a pod (twice the kubelet's `runtimeRequestTimeout`).
const ADD_LIMIT: Duration = Duration::from_secs(100);

/// The plugin.
pub struct Ipam;

impl Plugin for Ipam {
    type Config = NetConf;
    const NAME: &'static str = "spiderpool";

    fn parse(bytes: &[u8], command: Command) -> Result<NetConf, PluginError> {
        NetConf::parse(bytes, command)
    }

    fn log_options(config: &NetConf) -> LogOptions {
        config.log_options()
    }

    fn network(config: &NetConf) -> &str {
        &config.name
    }

    fn status(config: &NetConf) -> Result<(), PluginError> {
        Client::new(&config.ipam.ipam_unix_socket_path).healthy().map_err(PluginError::NotAvailable)
    }

    fn add(request: &Request, config: NetConf, version: Version) -> Result<Value, PluginError> {
        // Before the agent allocates for a sandbox that is gone.
        let netns = NetNs::open(&request.netns)?;
        let (container_id, nic) = (request.container_id.clone(), request.nic.clone());
        let requested_ips = [config.requested_ips()?, request.ips.clone()].concat();
        let mut args = IpamAddArgs {
            requested_ips,
            net_namespace: request.netns.clone(),
            open_netns: open_netns(&netns),
            network: Some(config.name),
            default_ipv4_ip_pool: config.ipam.default_ipv4_ippool,
            default_ipv6_ip_pool: config.ipam.default_ipv6_ippool,
            clean_gateway: config.ipam.clean_gateway,
            match_master_subnet: config.ipam.match_master_subnet,
            ..IpamAddArgs::new(container_id, nic, request.pod()?.clone(), request.pod_uid.clone())
        };
        let client = Client::new(config.ipam.ipam_unix_socket_path);
        let mut detector = Detector::new(&netns, &request.nic);
        let (begun, mut conflicts) = (Instant::now(), Vec::new());
        let deadline = begun + ADD_LIMIT;
        for round in 1.. {
            let answer = client.allocate(&args, deadline.saturating_duration_since(Instant::now()));
            let answer =
                answer.map_err(|e| PluginError::of_client(e, |e| AllocationError::Agent(e).into()))?;
            debug!(answer = ?answer, "agent answered");
            let result = result::of_answer(&answer, &request.nic)?;
            info!(addresses = ?result.ips.iter().map(|ip| ip.address.to_string()).collect::<Vec<_>>(), "addresses allocated");
            result::check_exchanged(&result, &request.nic, &conflicts)?;
            let families = result.families();
            let notice = result::notice(&answer);
            nic::prepare(&netns, &request.nic, &families, result::duplicate_detection(&answer), notice);
            args.conflicts = detector.detect(&answer, deadline)?;
            if args.conflicts.is_empty() {
                return Ok(result.to_json(version));
            }
            warn!(conflicts = ?args.conflicts, "others use addresses of the pod, asking for other ones");
            conflicts.extend_from_slice(&args.conflicts);
            if round >= ROUNDS || begun.elapsed() > EXCHANGE_LIMIT {
                break;
            }
        }
        Err(DetectionError::Conflicts { nic: request.nic.clone(), conflicts }.into())
    }

    fn del(request: &Request, config: NetConf) -> Result<(), PluginError> {
        let Some(pod) = request.pod.clone() else {
            // The agent has allocated nothing for such a request.
            warn!("the request names no pod, nothing is released");
            return Ok(());
        };
        let (container_id, nic) = (request.container_id.clone(), request.nic.clone());
        let args = IpamDelArgs {
            net_namespace: request.netns.clone(),
            ..IpamDelArgs::new(container_id, nic, pod, request.pod_uid.clone())
        };
        // Garbage collection frees what is not released here; the end of a pod waits for nobody.
        if let Err(error) = Client::new(config.ipam.ipam_unix_socket_path).release(&args) {
            warn!(%error, "addresses not released, the agent's sweep frees them later");
        }
        Ok(())
    }

    /// The agent knows the addresses, and frees none of a pod that is alive.
    fn gc(config: &NetConf, valid: ValidAttachments) -> Result<(), PluginError> {
        let collected = Client::new(&config.ipam.ipam_unix_socket_path).collect_addresses(&valid.into());
        collected.map_err(|error| PluginError::of_client(error, PluginError::Gc))
    }

    /// The addresses of the result are on the NIC.
    fn check(request: &Request, config: NetConf) -> Result<(), PluginError> {
        let netns = NetNs::open(&request.netns)?;
        let addresses: Result<_, PluginError> = block_on(async {
            let mut netlink = netns.netlink()?;
            let link = netlink.link_by_name(&request.nic).await?;
            let link = link.ok_or_else(|| PluginError::NoDevice(request.nic.clone()))?;
            Ok(netlink.addresses(Some(link.index)).await?)
        });
        let present: Vec<IpAddr> = addresses?.iter().map(|address| address.net.addr()).collect();
        let expected = result_addresses(&config.prev_result, request.nic.as_str());
        let missing: Vec<_> =
            expected.iter().map(ipnet::IpNet::addr).filter(|a| !present.contains(a)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        Err(PluginError::Check(CheckError::Addresses { nic: request.nic.clone(), missing }))
    }
}
