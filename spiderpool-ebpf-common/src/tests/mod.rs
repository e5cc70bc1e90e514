//! The logic against the model: what each kind of packet becomes, and what holds for all packets.

mod arrivals;
mod egress;
mod errors;
mod fragments;
mod headers;
mod ingress;
mod neighbors;
mod node_link;
mod pod_end;
mod properties;
mod replay;
mod translation;
mod underlay;
mod whole;

use crate::model::Frame;
use crate::model::Tables;
use crate::model::traffic::Program;
use crate::reason::Reason;
use crate::verdict::Verdict;

/// The test pod with NICs that carry any segment, so that none is clamped.
pub(crate) fn with_large_mtu() -> Tables {
    let mut tables = crate::model::pod::tables();
    tables.nics.values_mut().for_each(|nic| nic.mtu = 9000);
    tables
}

/// What happened to a packet that left or came in.
pub(crate) struct Processed {
    pub(crate) verdict: Verdict,
    pub(crate) reason: Reason,
    pub(crate) frame: Frame,
}

fn reason(before: &Tables, after: &Tables, nic: u16) -> Reason {
    let besides = [Reason::MssClamped];
    let counted: Vec<_> = Reason::ALL
        .iter()
        .copied()
        .filter(|&r| !besides.contains(&r) && after.packets(nic, r) > before.packets(nic, r))
        .collect();
    assert_eq!(counted.len(), 1, "one reason per packet, not {counted:?}");
    counted[0]
}

/// A packet meets one of the programs.
pub(crate) fn run(tables: &Tables, program: Program, nic: u16, frame: &Frame) -> Processed {
    let (mut frame, before) = (frame.clone(), tables.clone());
    let verdict = program.run(&mut frame, nic, tables);
    let reason = reason(&before, tables, nic);
    // The agent compares what a link has counted with what its filters have seen, by these.
    let at_host_end = matches!(program, Program::HostEgress | Program::HostIngress);
    assert_eq!(reason.is_at_host_end(), at_host_end, "{reason} of {program:?}");
    assert_eq!(reason.is_from_pod(), program == Program::HostIngress, "{reason} of {program:?}");
    Processed { verdict, reason, frame }
}

/// A packet leaves by a NIC.
pub(crate) fn run_egress(tables: &Tables, nic: u16, frame: &Frame) -> Processed {
    run(tables, Program::Egress, nic, frame)
}

/// A packet comes in by a NIC.
pub(crate) fn run_ingress(tables: &Tables, nic: u16, frame: &Frame) -> Processed {
    run(tables, Program::Ingress, nic, frame)
}
