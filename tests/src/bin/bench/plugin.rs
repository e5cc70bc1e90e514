//! `spiderpool` (IPAM) as a whole process against an agent that answers at once.

use anyhow::{Context as _, Result};
use serde_json::json;
use spiderpool_tests::tools;

use crate::IpamArguments;
use crate::call::Call;
use crate::instant_agent;
use crate::samples::{Pair, Report, Side};

pub(crate) fn measure(arguments: &IpamArguments, report: &mut Report) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let socket = folder.path().join("agent.sock");
    instant_agent::serve(&socket)?;
    let ours = tools::spiderpool("spiderpool")?;
    let config = json!({
        "cniVersion": "1.0.0", "name": "bench", "type": "macvlan",
        "ipam": {
            "type": "spiderpool", "log_file_path": folder.path().join("spiderpool.log"),
            "ipam_unix_socket_path": socket,
        },
    })
    .to_string();
    let environment = [
        ("CNI_CONTAINERID", "bench"),
        ("CNI_IFNAME", "net1"),
        // The bench's own namespace has no net1: there is nothing to announce on, the plugin must cope.
        ("CNI_NETNS", "/proc/self/ns/net"),
        ("CNI_PATH", "/nonexistent"),
        ("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAME=pod;K8S_POD_NAMESPACE=default;K8S_POD_UID=uid"),
    ];
    for command in ["VERSION", "ADD", "DEL"] {
        let (mut wall, mut peak) = (Pair::default(), Pair::default());
        for _ in 0..arguments.calls {
            for (side, plugin) in [(Side::Ours, Some(&ours)), (Side::Peer, arguments.peer_plugin.as_ref())] {
                let Some(plugin) = plugin else { continue };
                let call = Call { plugin, command, environment: &environment, config: &config };
                let cost = call.run().with_context(|| format!("{side:?}"))?;
                wall.side(side).push(cost.wall_ms);
                peak.side(side).push(cost.peak_mib);
            }
        }
        report.add(format!("spiderpool {command}, whole process"), "ms", &wall);
        report.add(format!("spiderpool {command}, peak memory"), "MiB", &peak);
    }
    Ok(())
}
