//! The packet trait over the kernel's helpers, which handle non-linear packets and pending checksums.

use core::ptr;

use aya_ebpf::bindings::{__sk_buff, BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR};
use aya_ebpf::helpers::generated::{
    bpf_csum_diff, bpf_csum_update, bpf_l3_csum_replace, bpf_l4_csum_replace, bpf_skb_change_tail,
    bpf_skb_load_bytes, bpf_skb_pull_data, bpf_skb_store_bytes,
};
use aya_ebpf::programs::TcContext;
use spiderpool_ebpf_common::headers;
use spiderpool_ebpf_common::packet::{ETH, Packet, SERVICE_VLAN, Sum, VLAN};

use crate::kernel::{TEST_FOR_OTHER_HOST, TEST_NOT_LINEAR, is_test};

/// `pkt_type` of what is for another machine (include/uapi/linux/if_packet.h).
const PACKET_OTHERHOST: u32 = 3;

/// Which bits of a tag are the VLAN's number (include/uapi/linux/if_vlan.h, `VLAN_VID_MASK`).
const VLAN_NUMBER: u32 = 0xfff;

/// The mark of what another NIC's program has moved to the cluster NIC. (It never leaves the namespace: a veth pair clears it,
/// net/core/skbuff.c, `skb_scrub_packet`; and the program there takes it off.)
const DECIDED: u32 = 0x5370_4e54;

/// Where reading of an IP header starts, and of what follows one without options or extension headers: the verifier takes only
/// places that it knows for reading without a helper.
const IP: u32 = headers::START;
const BEHIND_IPV4: u32 = ETH + 20;
const BEHIND_IPV6: u32 = ETH + 40;

/// A packet in the kernel.
pub(crate) struct Skb {
    skb: *mut __sk_buff,
}

impl Skb {
    #[inline(always)]
    pub(crate) fn new(ctx: &TcContext) -> Self {
        Self { skb: ctx.skb.skb }
    }

    /// Words of the packet, if the kernel has them in the linear part of the packet, as it mostly has headers: a fifth of a run's
    /// time less than by the helper.
    #[inline(always)]
    fn linear<const N: usize>(&self, at: u32) -> Option<[u32; N]> {
        // SAFETY: the context of this run.
        if is_test() && unsafe { (*self.skb).cb[0] } & TEST_NOT_LINEAR != 0 {
            return None;
        }
        // SAFETY: the context of this run. The words lie before the end of the linear part. Words behind two bytes of an Ethernet
        // header are aligned as far as the architecture asks for it (NET_IP_ALIGN, include/linux/skbuff.h).
        unsafe {
            let words = ((*self.skb).data as usize + at as usize) as *const [u32; N];
            if words.add(1) as usize > (*self.skb).data_end as usize {
                return None;
            }
            Some(*words)
        }
    }

    #[inline(always)]
    fn replace(&mut self, at: u32, from: u64, to: u64, size: u32, sum: Sum) -> bool {
        let pseudo = if sum.pseudo { BPF_F_PSEUDO_HDR } else { 0 };
        let udp = if sum.udp { BPF_F_MARK_MANGLED_0 } else { 0 };
        // SAFETY: the context of this run; the helper checks the offset.
        unsafe { bpf_l4_csum_replace(self.skb, at, from, to, u64::from(size | pseudo | udp)) == 0 }
    }
}

impl Packet for Skb {
    #[inline(always)]
    fn len(&self) -> u32 {
        // SAFETY: the context of this run.
        unsafe { (*self.skb).len }
    }

    #[inline(always)]
    fn gso_size(&self) -> u32 {
        // SAFETY: the context of this run.
        unsafe { (*self.skb).gso_size }
    }

    #[inline(always)]
    fn is_for_other_host(&self) -> bool {
        if is_test() {
            // SAFETY: the context of this run.
            return unsafe { (*self.skb).cb[0] } & TEST_FOR_OTHER_HOST != 0;
        }
        // SAFETY: the context of this run.
        unsafe { (*self.skb).pkt_type == PACKET_OTHERHOST }
    }

    #[inline(always)]
    fn take_decided(&mut self) -> bool {
        // SAFETY: the context of this run.
        unsafe {
            if (*self.skb).mark != DECIDED {
                return false;
            }
            (*self.skb).mark = 0;
        }
        true
    }

    #[inline(always)]
    fn set_decided(&mut self) {
        // SAFETY: the context of this run.
        unsafe { (*self.skb).mark = DECIDED };
    }

    #[inline(always)]
    fn protocol(&self) -> u16 {
        // SAFETY: the context of this run.
        unsafe {
            if (*self.skb).vlan_present != 0 && (*self.skb).vlan_tci & VLAN_NUMBER != 0 {
                return VLAN;
            }
            u16::from_be((*self.skb).protocol as u16)
        }
    }

    #[inline(always)]
    fn has_hidden_tags(&self) -> bool {
        // SAFETY: the context of this run.
        let (protocol, number) = unsafe {
            let number = if (*self.skb).vlan_present == 0 { 0 } else { (*self.skb).vlan_tci & VLAN_NUMBER };
            (u16::from_be((*self.skb).protocol as u16), number)
        };
        number == 0 && matches!(protocol, VLAN | SERVICE_VLAN)
    }

    #[inline(always)]
    fn load<const N: usize>(&self, at: u32) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        // SAFETY: the helper writes N bytes into the array or fails.
        let ret = unsafe { bpf_skb_load_bytes(self.skb.cast(), at, bytes.as_mut_ptr().cast(), N as u32) };
        if ret == 0 { Some(bytes) } else { None }
    }

    #[inline(always)]
    fn load_words<const N: usize>(&self, at: u32) -> Option<[u32; N]> {
        let direct = match at {
            IP => self.linear(IP),
            BEHIND_IPV4 => self.linear(BEHIND_IPV4),
            BEHIND_IPV6 => self.linear(BEHIND_IPV6),
            _ => None,
        };
        if direct.is_some() {
            return direct;
        }
        let mut words = [0; N];
        // SAFETY: the helper writes N words into the array or fails.
        let ret = unsafe { bpf_skb_load_bytes(self.skb.cast(), at, words.as_mut_ptr().cast(), 4 * N as u32) };
        if ret == 0 { Some(words) } else { None }
    }

    #[inline(always)]
    fn load_into<const N: usize>(&self, at: u32, words: &mut [u32; N]) -> bool {
        // SAFETY: the helper writes N words into the array or fails.
        unsafe { bpf_skb_load_bytes(self.skb.cast(), at, words.as_mut_ptr().cast(), 4 * N as u32) == 0 }
    }

    #[inline(always)]
    fn sum<const N: usize>(&self, words: &[u32; N]) -> u32 {
        // SAFETY: the helper reads N words from the array, and nothing at the null pointer, which is 0 long.
        unsafe { bpf_csum_diff(ptr::null_mut(), 0, words.as_ptr().cast_mut(), 4 * N as u32, 0) as u32 }
    }

    #[inline(always)]
    fn store_words<const N: usize>(&mut self, at: u32, words: &[u32; N]) -> bool {
        // SAFETY: the helper reads N words from the array.
        unsafe { bpf_skb_store_bytes(self.skb, at, words.as_ptr().cast(), 4 * N as u32, 0) == 0 }
    }

    #[inline(always)]
    fn make_writable(&mut self, len: u32) -> bool {
        // SAFETY: the context of this run. The helper refuses a length beyond the packet.
        unsafe { bpf_skb_pull_data(self.skb, len) == 0 }
    }

    #[inline(always)]
    fn store<const N: usize>(&mut self, at: u32, bytes: &[u8; N]) -> bool {
        // SAFETY: the helper reads N bytes from the array.
        unsafe { bpf_skb_store_bytes(self.skb, at, bytes.as_ptr().cast(), N as u32, 0) == 0 }
    }

    #[inline(always)]
    fn add_to_whole_sum(&mut self, difference: u32) {
        // SAFETY: the context of this run. The helper refuses a packet that has none.
        unsafe { bpf_csum_update(self.skb, difference) };
    }

    #[inline(always)]
    fn truncate(&mut self, len: u32) -> bool {
        // SAFETY: the context of this run. The helper refuses a length within the headers that the kernel knows.
        unsafe { bpf_skb_change_tail(self.skb, len, 0) == 0 }
    }

    #[inline(always)]
    fn l3_csum_replace(&mut self, at: u32, from: u32, to: u32) -> bool {
        // SAFETY: the context of this run; the helper checks the offset.
        unsafe { bpf_l3_csum_replace(self.skb, at, u64::from(from), u64::from(to), 4) == 0 }
    }

    #[inline(always)]
    fn l4_csum_replace(&mut self, at: u32, from: u32, to: u32, sum: Sum) -> bool {
        self.replace(at, u64::from(from), u64::from(to), 4, sum)
    }

    #[inline(always)]
    fn l4_csum_replace_u16(&mut self, at: u32, from: u16, to: u16, sum: Sum) -> bool {
        self.replace(at, u64::from(from), u64::from(to), 2, sum)
    }
}
