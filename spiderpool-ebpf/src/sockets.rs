//! What only the kernel knows: which sockets of the namespace have a port.

use core::ptr;

use aya_ebpf::bindings::{
    __sk_buff, bpf_sock, bpf_sock_tuple, bpf_sock_tuple__bindgen_ty_1,
    bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1, bpf_sock_tuple__bindgen_ty_1__bindgen_ty_2,
};
use aya_ebpf::helpers::generated::{bpf_sk_lookup_udp, bpf_sk_release, bpf_skc_lookup_tcp, bpf_tcp_sock};
use spiderpool_ebpf_common::addr::Addr;
use spiderpool_ebpf_common::maps::FlowKey;

/// Look sockets up in the namespace of the NIC (`BPF_F_CURRENT_NETNS`).
const OWN_NETNS: u64 = u64::MAX;
/// States of TCP sockets (include/net/tcp_states.h).
const TCP_SYN_SENT: u32 = 2;
const TCP_SYN_RECV: u32 = 3;
const TCP_TIME_WAIT: u32 = 6;
const TCP_LISTEN: u32 = 10;
const TCP_NEW_SYN_RECV: u32 = 12;
const AF_INET6: u32 = 10;

/// Whether a socket has no local address.
///
/// # Safety
///
/// `sk` is a socket that the verifier knows.
#[inline(always)]
pub(crate) unsafe fn is_unbound(sk: *mut bpf_sock) -> bool {
    // SAFETY: see above; the kernel offers these fields word by word.
    unsafe {
        if (*sk).family != AF_INET6 {
            return (*sk).src_ip4 == 0;
        }
        let words = [
            ptr::read_volatile(&raw const (*sk).src_ip6[0]),
            ptr::read_volatile(&raw const (*sk).src_ip6[1]),
            ptr::read_volatile(&raw const (*sk).src_ip6[2]),
            ptr::read_volatile(&raw const (*sk).src_ip6[3]),
        ];
        Addr::from_words(words).is_unspecified()
    }
}

/// The socket that would get a packet from the key's remote to its local address.
#[inline(always)]
fn tuple(key: &FlowKey) -> (bpf_sock_tuple, u32) {
    let (local, remote) = (key.local, key.remote);
    let (sport, dport) = (key.remote_port.to_be(), key.local_port.to_be());
    let ipv6 = bpf_sock_tuple__bindgen_ty_1__bindgen_ty_2 {
        saddr: remote.words(),
        daddr: local.words(),
        sport,
        dport,
    };
    if !local.is_v4() {
        return (bpf_sock_tuple { __bindgen_anon_1: bpf_sock_tuple__bindgen_ty_1 { ipv6 } }, 36);
    }
    let ipv4 = bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1 {
        saddr: remote.words()[3],
        daddr: local.words()[3],
        sport,
        dport,
    };
    let mut tuple = bpf_sock_tuple { __bindgen_anon_1: bpf_sock_tuple__bindgen_ty_1 { ipv6 } };
    tuple.__bindgen_anon_1.ipv4 = ipv4;
    (tuple, 12)
}

/// What holds for the TCP socket that has the key's tuple, or that listens for it; 0 if there is none.
#[inline(always)]
fn tcp_socket(skb: *mut __sk_buff, key: &FlowKey, of: impl FnOnce(*mut bpf_sock) -> u32) -> u32 {
    let (mut tuple, len) = tuple(key);
    // SAFETY: the context of this run and a local tuple; the socket is released before it is forgotten.
    unsafe {
        let sk = if len == 12 {
            bpf_skc_lookup_tcp(skb.cast(), &raw mut tuple, 12, OWN_NETNS, 0)
        } else {
            bpf_skc_lookup_tcp(skb.cast(), &raw mut tuple, 36, OWN_NETNS, 0)
        };
        if sk.is_null() {
            return 0;
        }
        let found = of(sk.cast());
        bpf_sk_release(sk.cast());
        found
    }
}

/// Its state.
#[inline(never)]
fn tcp_state(skb: *mut __sk_buff, key: &FlowKey) -> u32 {
    // SAFETY: a socket that the kernel has just found.
    tcp_socket(skb, key, |sk| unsafe { (*sk).state })
}

/// Whether a RST with this sequence number ends the connection, as far as can be told before TCP sees it: the kernel takes
/// it if it is the next one expected (RFC 5961, 3.2; net/ipv4/tcp_input.c, `tcp_validate_incoming`). Of a socket that is
/// just opening, or is gone, any.
#[inline(never)]
pub(crate) fn takes_reset(skb: *mut __sk_buff, key: &FlowKey, sequence: u32) -> bool {
    // SAFETY: a socket that the kernel has just found; a null pointer is checked for.
    let refuses = tcp_socket(skb, key, |sk| unsafe {
        let tcp = bpf_tcp_sock(sk);
        u32::from(!tcp.is_null() && has_peer((*sk).state) && (*tcp).rcv_nxt != sequence)
    });
    refuses == 0
}

/// Whether a TCP socket in this state knows which sequence number comes next.
#[inline(always)]
const fn has_peer(state: u32) -> bool {
    !matches!(state, TCP_SYN_SENT | TCP_LISTEN)
}

/// Whether a TCP socket, other than a listening one, has the key's tuple.
#[inline(always)]
pub(crate) fn has_tcp(skb: *mut __sk_buff, key: &FlowKey) -> bool {
    !matches!(tcp_state(skb, key), 0 | TCP_LISTEN)
}

/// Whether a TCP connection has the key's tuple: not one that others begin just now, or that is over, so that they may begin it
/// anew.
#[inline(always)]
pub(crate) fn has_connected_tcp(skb: *mut __sk_buff, key: &FlowKey) -> bool {
    !matches!(tcp_state(skb, key), 0 | TCP_SYN_RECV | TCP_TIME_WAIT | TCP_LISTEN | TCP_NEW_SYN_RECV)
}

/// What holds for the UDP socket that has the key's tuple; `false` if there is none.
#[inline(always)]
fn udp_socket(skb: *mut __sk_buff, key: &FlowKey, holds: impl FnOnce(*mut bpf_sock) -> bool) -> bool {
    let (mut tuple, len) = tuple(key);
    // SAFETY: the context of this run and a local tuple; the socket is released before it is forgotten.
    unsafe {
        let sk = if len == 12 {
            bpf_sk_lookup_udp(skb.cast(), &raw mut tuple, 12, OWN_NETNS, 0)
        } else {
            bpf_sk_lookup_udp(skb.cast(), &raw mut tuple, 36, OWN_NETNS, 0)
        };
        if sk.is_null() {
            return false;
        }
        let held = holds(sk);
        bpf_sk_release(sk.cast());
        held
    }
}

/// Whether a UDP socket that is bound to the key's local address has its tuple. One without local address is most likely
/// the one that sends: the kernel chose the source.
#[inline(never)]
pub(crate) fn has_udp(skb: *mut __sk_buff, key: &FlowKey) -> bool {
    // SAFETY: a socket that the kernel has just found.
    udp_socket(skb, key, |sk| unsafe { !is_unbound(sk) })
}

/// Whether a UDP socket that is connected to the key's remote side has its local side. (One that is connected to
/// somebody else the kernel does not find.)
#[inline(never)]
pub(crate) fn has_connected_udp(skb: *mut __sk_buff, key: &FlowKey) -> bool {
    // SAFETY: a socket that the kernel has just found.
    udp_socket(skb, key, |sk| unsafe { (*sk).dst_port != 0 })
}

/// Whether a UDP socket of the namespace has the key's remote side as its own: the namespace is the node's then.
#[inline(never)]
pub(crate) fn has_remote_udp(skb: *mut __sk_buff, key: &FlowKey) -> bool {
    let mut reversed = *key;
    (reversed.local, reversed.local_port) = (key.remote, key.remote_port);
    (reversed.remote, reversed.remote_port) = (key.local, key.local_port);
    udp_socket(skb, &reversed, |_| true)
}
