//! `spiderpool` (IPAM) as a whole process against an agent that answers at once.

use anyhow::{Context as _, Result};
use serde_json::json;
use spiderpool_tests::tools;

use super::arguments::IpamArguments;
use super::instant_agent;
use crate::call::Call;
use crate::samples::{Pair, Report, Side};

/// Calls whose memory is read: it does not vary.
const MEMORY_CALLS: usize = 5;

pub(crate) fn measure(arguments: &IpamArguments, report: &mut Report) -> Result<()> {
    // The plugins log nowhere else.
    let folder = tempfile::Builder::new().prefix("spiderpool-bench").tempdir_in("/var/log")?;
    let socket = folder.path().join("agent.sock");
    instant_agent::serve(&socket)?;
    let ours = tools::spiderpool("spiderpool")?;
    let config = serde_json::to_vec(&json!({
        "cniVersion": "1.0.0", "name": "bench", "type": "macvlan",
        "ipam": {
            "type": "spiderpool", "log_file_path": folder.path().join("spiderpool.log"),
            "ipam_unix_socket_path": socket,
        },
    }))?;
    let environment = [
        ("CNI_CONTAINERID", "bench"),
        ("CNI_IFNAME", "lo"),
        ("CNI_NETNS", "/proc/self/ns/net"),
        ("CNI_PATH", "/nonexistent"),
        ("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAME=pod;K8S_POD_NAMESPACE=default;K8S_POD_UID=uid"),
    ];
    let sides = [(Side::Ours, Some(&ours)), (Side::Peer, arguments.peer_plugin.as_ref())];
    for command in ["VERSION", "ADD", "DEL"] {
        let (mut wall, mut peak) = (Pair::default(), Pair::default());
        for index in 0..arguments.calls {
            for (side, plugin) in sides {
                let Some(plugin) = plugin else { continue };
                let call = Call { plugin, command, environment: &environment, config: &config };
                wall.side(side).push(call.wall_ms().with_context(|| format!("{side:?}"))?);
                if command != "VERSION" && index < MEMORY_CALLS {
                    peak.side(side).push(call.peak_mib().with_context(|| format!("{side:?}"))?);
                }
            }
        }
        report.add(format!("spiderpool {command}, whole process"), "ms", &wall);
        report.add(format!("spiderpool {command}, peak memory"), "MiB", &peak);
    }
    Ok(())
}
