//! What the kernel says that the programs take: `kernel.bpf_stats_enabled`.

use std::net::IpAddr;

use anyhow::Result;
use serde_json::Value;
use spiderpool_tests::counters::PINS;
use spiderpool_tests::namespaces::Namespaces;

use crate::samples::{Pair, Report, Side};

use super::round_trip::round_trips;

/// An id that no NIC has: its entry in `nics` is empty, so that the program ends after this look-up.
const UNUSED_ID: &str = "3ff";

/// Nanoseconds of a run of each program on packets of the underlay, which need no steering. The peer is the same program where it
/// has nothing to do.
pub(super) fn measure(
    node: &Namespaces,
    pod: &Namespaces,
    idle: &Namespaces,
    to: IpAddr,
    (rounds, trips): (usize, usize),
    report: &mut Report,
) -> Result<()> {
    for direction in ["egress", "ingress"] {
        let pin = format!("{PINS}/{direction}");
        idle.output("tc", &["qdisc", "replace", "dev", "net1", "clsact"])?;
        let class = format!("1:{UNUSED_ID}");
        idle.output("tc", &["filter", "del", "dev", "net1", direction]).ok();
        let (filter, pinned) =
            (["filter", "add", "dev", "net1", direction], ["bpf", "da", "object-pinned", &pin]);
        idle.output("tc", &[filter.as_slice(), &pinned, &["classid", &class]].concat())?;
    }
    let enable = |value: &str| node.output("sysctl", &["-qw", &format!("kernel.bpf_stats_enabled={value}")]);
    enable("1")?;
    let mut pairs = [Pair::default(), Pair::default()];
    for _ in 0..rounds {
        for (side, from) in [(Side::Ours, pod), (Side::Peer, idle)] {
            let before = stats(node)?;
            round_trips(from, to, None, trips)?;
            for ((pair, before), after) in pairs.iter_mut().zip(before).zip(stats(node)?) {
                let runs = (after.1 - before.1).max(1.0);
                pair.side(side).push((after.0 - before.0) / runs);
            }
        }
    }
    enable("0")?;
    for (direction, pair) in ["egress", "ingress"].into_iter().zip(&pairs) {
        let family = if to.is_ipv4() { "IPv4" } else { "IPv6" };
        report.add(format!("{family} underlay: run of {direction}, bpf_stats"), "ns", pair);
    }
    Ok(())
}

/// Time and number of runs of both programs so far.
fn stats(node: &Namespaces) -> Result<[(f64, f64); 2]> {
    let of = |direction: &str| {
        let shown =
            node.output("bpftool", &["-j", "prog", "show", "pinned", &format!("{PINS}/{direction}")])?;
        let shown: Value = serde_json::from_str(&shown)?;
        // A program that has not run yet has none.
        let number = |key: &str| shown[key].as_f64().unwrap_or(0.0);
        Ok::<_, anyhow::Error>((number("run_time_ns"), number("run_cnt")))
    };
    Ok([of("egress")?, of("ingress")?])
}
