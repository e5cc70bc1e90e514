//! Whether a packet that the node forwards comes by the device by which the node would reach its source.

use core::mem;

use aya_ebpf::bindings::{__sk_buff, bpf_fib_lookup as FibLookup};
use aya_ebpf::helpers::generated::bpf_fib_lookup;
use spiderpool_ebpf_common::maps::FlowKey;
use spiderpool_ebpf_common::protocol::UDP;

use crate::maps::NODE_DEVICES;
use crate::sockets;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// Return codes of `bpf_fib_lookup` (include/uapi/linux/bpf.h) that name a device.
const SUCCESS: i64 = 0;
const NO_NEIGHBOR: i64 = 7;
const TOO_LONG: i64 = 8;
/// Of an address of the node itself, or of one that no route leads to.
const NOT_FORWARDED: i64 = 4;

/// How often a route is looked up. Of several next hops the kernel chooses one by a hash of both addresses, so each look-up
/// is for another destination of the answer. Of two next hops one is missed by all of them for one client in 256.
const ATTEMPTS: u32 = 8;

/// `key` is the flow as the pod sees it.
#[inline(never)]
pub(crate) fn is_spoofed(skb: *mut __sk_buff, key: &FlowKey) -> bool {
    // SAFETY: the context of this run.
    let (device, host_end) = unsafe { ((*skb).ingress_ifindex, (*skb).ifindex) };
    if is_pods(device) {
        return false; // the default network has checked it
    }
    for attempt in 0..ATTEMPTS {
        let (code, found) = look_up(skb, key, host_end, attempt);
        match code {
            SUCCESS | NO_NEIGHBOR | TOO_LONG if found == device => return false,
            SUCCESS | NO_NEIGHBOR | TOO_LONG => {}
            // What the node masquerades has an address of the node, too. The kernel lets nobody else use an IPv4 address
            // of the node; of IPv6 ones those count by which one of the node's own sockets would be answered.
            NOT_FORWARDED => {
                return !key.remote.is_v4() && key.protocol == UDP && sockets::has_remote_udp(skb, key);
            }
            // A route that refuses, or something that this kernel cannot look up.
            _ => return true,
        }
    }
    true
}

/// Whether pods send by a device of the node.
#[inline(always)]
pub(crate) fn is_pods(device: u32) -> bool {
    // SAFETY: map memory, valid during the run.
    unsafe { NODE_DEVICES.get(device) }.is_some()
}

/// By which device the node would answer.
#[inline(always)]
fn look_up(skb: *mut __sk_buff, key: &FlowKey, host_end: u32, attempt: u32) -> (i64, u32) {
    // SAFETY: integers; all zero is valid.
    let mut params: FibLookup = unsafe { mem::zeroed() };
    let (local, remote) = (key.local.words(), key.remote.words());
    params.ifindex = host_end;
    params.l4_protocol = key.protocol;
    params.sport = key.local_port.to_be();
    params.dport = key.remote_port.to_be();
    let last = local[3] ^ (attempt << 24);
    if key.remote.is_v4() {
        params.family = AF_INET;
        params.__bindgen_anon_3.ipv4_src = last;
        params.__bindgen_anon_4.ipv4_dst = remote[3];
    } else {
        params.family = AF_INET6;
        params.__bindgen_anon_3.ipv6_src = [local[0], local[1], local[2], last];
        params.__bindgen_anon_4.ipv6_dst = remote;
    }
    // SAFETY: the context of this run, and a local variable of the size that is given.
    let code = unsafe { bpf_fib_lookup(skb.cast(), &raw mut params, size_of::<FibLookup>() as i32, 0) };
    (code, params.ifindex)
}
