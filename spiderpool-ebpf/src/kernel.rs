//! The state trait over maps and helpers, and how a verdict becomes a return code.
//!
//! Test runs (`TEST_RUN` set by the loader, otherwise compiled away by the verifier): the kernel accepts no
//! classid there, and clock, random numbers and addressee differ, so these come from `skb->cb`: `[id | wildcard << 16 |
//! for others << 17 | forwarded << 18 | spoofed << 19 | from pods << 20 | not linear << 21 | time, from bit 48, << 22;
//! time low; time, bits 32 to 47, << 16; seed << 16]`, and the verdict goes to `cb[4]`. Two lower halves stay zero: before Linux 6.5, look-ups of sockets take them for the IP layer's flags, one of
//! which stands for a VRF (net/core/filter.c, `__bpf_skc_lookup`; `inet_sdif`, `inet6_sdif`).

use core::ptr;

use aya_ebpf::Global;
use aya_ebpf::bindings::{__sk_buff, BPF_ANY, BPF_F_INGRESS, BPF_NOEXIST, TC_ACT_SHOT, TC_ACT_UNSPEC};
use aya_ebpf::btf_maps::lpm_trie::Key;
use aya_ebpf::helpers::generated::{bpf_get_prandom_u32, bpf_ktime_get_ns, bpf_redirect, bpf_redirect_neigh};
use aya_ebpf::programs::TcContext;
use aya_log_ebpf::info;
use spiderpool_ebpf_common::flow_state::{FRAGMENTS_FOR, SECOND};
use spiderpool_ebpf_common::maps::{
    AddressKey, ArrivalEntry, CIDR_KEY_BITS, CidrEntry, CidrKey, FlowKey, FragmentEntry, FragmentKey,
    LinkFlow, NatEntry, NicEntry, PodFlag, PodFlags, PodUsage,
};
use spiderpool_ebpf_common::protocol;
use spiderpool_ebpf_common::reason::{Counter, REASONS, Reason};
use spiderpool_ebpf_common::state::{LogEvent, Put, PutError, State};
use spiderpool_ebpf_common::verdict::Verdict;

use crate::maps::{
    ADDED, ADDRESSES, ARRIVALS, CLUSTER_CIDRS, Ending, FRAGMENTS, LINK_FLOWS, LINK_FRAGMENTS, NAT, NICS,
    POD_FLAGS, REMOVED, REPORTED, STATS,
};
use crate::{reverse_path, sockets};

/// Set by the loader for `BPF_PROG_TEST_RUN`.
#[unsafe(no_mangle)]
static TEST_RUN: Global<u8> = Global::new(0);

/// How many entries of each map a pod may have. Set by the loader.
#[unsafe(no_mangle)]
static SHARE: Global<PodUsage> = Global::new(PodUsage { link_flows: 0, arrivals: 0, nat: 0 });

/// Time between two records about one NIC: each has a limit of its own, so that nobody's flood hides another pod's trouble.
const REPORT_EVERY: u64 = 5 * SECOND;

const EEXIST: i32 = -17;

/// The verdicts as numbers.
const PASS: u32 = 0;
const REDIRECT: u32 = 1;
const REDIRECT_INGRESS: u32 = 2;
const REDIRECT_NEIGH: u32 = 3;
const DROP: u32 = 4;

/// One run's context.
pub(crate) struct Kernel {
    skb: *mut __sk_buff,
    ending: *mut Ending,
}

/// In the first word of `cb`: the packet's socket has no local address.
const TEST_WILDCARD: u32 = 1 << 16;
/// In the first word of `cb`: the packet is for another machine.
pub(crate) const TEST_FOR_OTHER_HOST: u32 = 1 << 17;

/// In the first word of `cb`: the node forwards the packet.
const TEST_FORWARDED: u32 = 1 << 18;
/// In the first word of `cb`: by another device than the one by which it would reach the source.
const TEST_SPOOFED: u32 = 1 << 19;
/// In the first word of `cb`: another pod has sent it.
const TEST_FROM_PODS: u32 = 1 << 20;
/// In the first word of `cb`: the headers are not in the linear part.
pub(crate) const TEST_NOT_LINEAR: u32 = 1 << 21;

#[inline(always)]
pub(crate) fn is_test() -> bool {
    TEST_RUN.load() != 0
}

impl Kernel {
    #[inline(always)]
    pub(crate) fn new(ctx: &TcContext, ending: &mut Ending) -> Self {
        ending.event = 0;
        Self { skb: ctx.skb.skb, ending }
    }

    #[inline(always)]
    fn cb(&self, index: usize) -> u32 {
        // SAFETY: the context of this run; constant indexes below 5.
        unsafe { ptr::read_volatile(&raw const (*self.skb).cb[index]) }
    }

    /// The id that the filter carries as its classid (its low 16 bits arrive).
    #[inline(always)]
    pub(crate) fn nic_id(&self) -> u16 {
        if is_test() {
            return self.cb(0) as u16;
        }
        // SAFETY: the context of this run.
        unsafe { (*self.skb).tc_classid as u16 }
    }

    /// Logs what was reported, and carries the verdict out. Never `TC_ACT_OK`, which would leak the classid into `skb->tc_index`.
    #[inline(always)]
    pub(crate) fn finish(&self, verdict: Verdict) -> i32 {
        let (action, ifindex) = match verdict {
            Verdict::Pass => (PASS, 0),
            Verdict::Drop => (DROP, 0),
            Verdict::Redirect { ifindex } => (REDIRECT, ifindex),
            Verdict::RedirectIngress { ifindex } => (REDIRECT_INGRESS, ifindex),
            Verdict::RedirectNeigh { ifindex } => (REDIRECT_NEIGH, ifindex),
        };
        if is_test() {
            // SAFETY: the context of this run.
            unsafe { ptr::write_volatile(&raw mut (*self.skb).cb[4], action << 28 | ifindex) };
        }
        // SAFETY: memory of this run. Not from registers: the verifier would go through what follows once for each verdict.
        let (action, ifindex, event) = unsafe {
            let ending = self.ending;
            ptr::write_volatile(&raw mut (*ending).action, action);
            ptr::write_volatile(&raw mut (*ending).ifindex, ifindex);
            let action = ptr::read_volatile(&raw const (*ending).action);
            (action, ptr::read_volatile(&raw const (*ending).ifindex), (*ending).event)
        };
        if event != 0 {
            log(self.skb, self.nic_id(), event);
        }
        // SAFETY: helpers that take plain numbers.
        unsafe {
            match action {
                DROP => TC_ACT_SHOT,
                REDIRECT => bpf_redirect(ifindex, 0) as i32,
                REDIRECT_INGRESS => bpf_redirect(ifindex, u64::from(BPF_F_INGRESS)) as i32,
                REDIRECT_NEIGH => bpf_redirect_neigh(ifindex, ptr::null_mut(), 0, 0) as i32,
                _ => TC_ACT_UNSPEC,
            }
        }
    }
}

impl State for Kernel {
    #[inline(always)]
    fn now(&self) -> u64 {
        if is_test() {
            let high = u64::from(self.cb(0) >> 22) << 48 | u64::from(self.cb(2) >> 16) << 32;
            return high | u64::from(self.cb(1));
        }
        // SAFETY: a helper without arguments.
        unsafe { bpf_ktime_get_ns() }
    }

    #[inline(always)]
    fn random(&self, attempt: u32) -> u32 {
        if is_test() {
            return spiderpool_ebpf_common::nat::pseudo_random(self.cb(3) >> 16, attempt);
        }
        // SAFETY: a helper without arguments.
        unsafe { bpf_get_prandom_u32() }
    }

    #[inline(always)]
    fn nic(&self, id: u16) -> Option<&NicEntry> {
        NICS.get(u32::from(id))
    }

    #[inline(always)]
    fn address(&self, key: &AddressKey) -> u16 {
        // SAFETY: map memory, valid during the run; the value is one word.
        match unsafe { ADDRESSES.get(key) } {
            Some(entry) => entry.nic,
            None => 0,
        }
    }

    #[inline(always)]
    fn cidr(&self, key: &CidrKey) -> CidrEntry {
        match CLUSTER_CIDRS.get(&Key::new(CIDR_KEY_BITS, *key)) {
            Some(entry) => *entry,
            None => CidrEntry::NONE,
        }
    }

    #[inline(always)]
    fn arrival<R>(&self, key: &FlowKey, f: impl FnOnce(&mut ArrivalEntry) -> R) -> Option<R> {
        // SAFETY: map memory, valid during the run; other CPUs write it too, each field by itself.
        ARRIVALS.get_ptr_mut(key).map(|entry| f(unsafe { &mut *entry }))
    }

    #[inline(always)]
    fn arrival_put(&self, key: &FlowKey, entry: &ArrivalEntry) -> Result<(), PutError> {
        put_new(ARRIVALS.insert(key, entry, u64::from(BPF_NOEXIST)), key.pod, |usage| &mut usage.arrivals)
    }

    #[inline(always)]
    fn arrival_remove(&self, key: &FlowKey) {
        if ARRIVALS.remove(key).is_ok() {
            count(key.pod, |usage| &mut usage.arrivals, u32::MAX);
        }
    }

    #[inline(always)]
    fn nat<R>(&self, key: &FlowKey, f: impl FnOnce(&mut NatEntry) -> R) -> Option<R> {
        // SAFETY: map memory, valid during the run; other CPUs write it too, each field by itself.
        NAT.get_ptr_mut(key).map(|entry| f(unsafe { &mut *entry }))
    }

    #[inline(always)]
    fn nat_put(&self, key: &FlowKey, entry: &NatEntry, put: Put) -> Result<(), PutError> {
        let put_result = NAT.insert(key, entry, u64::from(BPF_NOEXIST));
        match put_new(put_result, key.pod, |usage| &mut usage.nat) {
            Err(PutError::Exists) if matches!(put, Put::Any) => {
                // Gone again since: the caller gives up, as if there were no room.
                self.nat(key, |old| *old = *entry).ok_or(PutError::Full)
            }
            result => result,
        }
    }

    #[inline(always)]
    fn nat_remove(&self, key: &FlowKey) {
        if NAT.remove(key).is_ok() {
            count(key.pod, |usage| &mut usage.nat, u32::MAX);
        }
    }

    #[inline(always)]
    fn link_flow<R>(&self, key: &FlowKey, f: impl FnOnce(&mut LinkFlow) -> R) -> Option<R> {
        // SAFETY: map memory, valid during the run; other CPUs write it too, each field by itself.
        LINK_FLOWS.get_ptr_mut(key).map(|flow| f(unsafe { &mut *flow }))
    }

    #[inline(always)]
    fn link_flow_put(&self, key: &FlowKey, flow: &LinkFlow) -> Result<(), PutError> {
        put_new(LINK_FLOWS.insert(key, flow, u64::from(BPF_NOEXIST)), key.pod, |usage| &mut usage.link_flows)
    }

    #[inline(always)]
    fn link_flow_remove(&self, key: &FlowKey) {
        if LINK_FLOWS.remove(key).is_ok() {
            count(key.pod, |usage| &mut usage.link_flows, u32::MAX);
        }
    }

    #[inline(always)]
    fn usage(&self, pod: u16) -> PodUsage {
        let (Some(added), Some(removed)) = (ADDED.get(u32::from(pod)), REMOVED.get(u32::from(pod))) else {
            return PodUsage::default();
        };
        PodUsage {
            link_flows: difference(added.link_flows, removed.link_flows),
            arrivals: difference(added.arrivals, removed.arrivals),
            nat: difference(added.nat, removed.nat),
        }
    }

    #[inline(always)]
    fn share(&self) -> PodUsage {
        SHARE.load()
    }

    #[inline(always)]
    fn flags(&self, pod: u16) -> PodFlags {
        match POD_FLAGS.get(u32::from(pod)) {
            Some(flags) => *flags,
            None => PodFlags::ALL,
        }
    }

    #[inline(always)]
    fn set_flag(&self, pod: u16, flag: PodFlag) {
        if let Some(flags) = POD_FLAGS.get_ptr_mut(u32::from(pod)) {
            // SAFETY: map memory, valid during the run; a byte of its own.
            unsafe { (*flags).set(flag) };
        }
    }

    #[inline(always)]
    fn link_fragment(&self, key: &FlowKey) -> bool {
        // SAFETY: map memory, valid during the run; the value is one word.
        match unsafe { LINK_FRAGMENTS.get(key) } {
            Some(since) => self.now().saturating_sub(*since) <= FRAGMENTS_FOR,
            None => false,
        }
    }

    #[inline(always)]
    fn link_fragment_put(&self, key: &FlowKey) {
        let _ = LINK_FRAGMENTS.insert(key, self.now(), u64::from(BPF_ANY));
    }

    #[inline(always)]
    fn fragment(&self, key: &FragmentKey) -> Option<FragmentEntry> {
        // SAFETY: map memory, valid during the run; another CPU may write the fragments of another packet there, which is then
        // lost as one is whose identification is used again.
        unsafe { FRAGMENTS.get(key).copied() }
    }

    #[inline(always)]
    fn fragment_put(&self, key: &FragmentKey, entry: &FragmentEntry) {
        let _ = FRAGMENTS.insert(key, entry, u64::from(BPF_ANY));
    }

    #[inline(always)]
    fn fragment_remove(&self, key: &FragmentKey) {
        let _ = FRAGMENTS.remove(key);
    }

    /// Also what has lost the device that it came by, as fragments of IPv6 packets do (net/ipv6/ip6_output.c,
    /// `ip6_copy_metadata`).
    #[inline(always)]
    fn is_forwarded(&self) -> bool {
        if is_test() {
            return self.cb(0) & TEST_FORWARDED != 0;
        }
        // SAFETY: the context of this run; the pointer is compared only.
        unsafe { (*self.skb).ingress_ifindex != 0 || (*self.skb).__bindgen_anon_2.sk.is_null() }
    }

    /// Also what nobody can tell of, because it has lost the device that it came by.
    #[inline(always)]
    fn is_from_pods(&self) -> bool {
        if is_test() {
            return self.cb(0) & TEST_FROM_PODS != 0;
        }
        // SAFETY: the context of this run; the pointer is compared only.
        let (device, has_socket) =
            unsafe { ((*self.skb).ingress_ifindex, !(*self.skb).__bindgen_anon_2.sk.is_null()) };
        if device == 0 { !has_socket } else { reverse_path::is_pods(device) }
    }

    #[inline(always)]
    fn is_spoofed(&self, key: &FlowKey) -> bool {
        if is_test() {
            return self.cb(0) & TEST_SPOOFED != 0;
        }
        reverse_path::is_spoofed(self.skb, key)
    }

    #[inline(always)]
    fn socket_has(&self, key: &FlowKey) -> bool {
        match key.protocol {
            protocol::TCP => sockets::has_tcp(self.skb, key),
            protocol::UDP => sockets::has_udp(self.skb, key),
            _ => false,
        }
    }

    #[inline(always)]
    fn socket_connected(&self, key: &FlowKey) -> bool {
        match key.protocol {
            protocol::TCP => sockets::has_connected_tcp(self.skb, key),
            protocol::UDP => sockets::has_connected_udp(self.skb, key),
            _ => false,
        }
    }

    #[inline(always)]
    fn takes_reset(&self, key: &FlowKey, sequence: u32) -> bool {
        sockets::takes_reset(self.skb, key, sequence)
    }

    #[inline(always)]
    fn wildcard_socket(&self) -> bool {
        if is_test() {
            return self.cb(0) & TEST_WILDCARD != 0;
        }
        // SAFETY: the context of this run; a null pointer is checked for.
        unsafe {
            let sk = (*self.skb).__bindgen_anon_2.sk;
            !sk.is_null() && sockets::is_unbound(sk)
        }
    }

    #[inline(always)]
    fn count(&self, nic: u16, reason: Reason, bytes: u32) {
        let Some(counters) = STATS.get_ptr_mut(u32::from(nic)) else { return };
        let reason = reason as u32;
        // SAFETY: a local variable. Read anew so that the bound below is not optimized away: the verifier does
        // not know how many reasons there are.
        let index = unsafe { ptr::read_volatile(&raw const reason) } as usize;
        if index >= REASONS {
            return;
        }
        // SAFETY: one of the counters of this CPU's element.
        unsafe {
            let counter = counters.cast::<Counter>().add(index);
            (*counter).packets += 1;
            (*counter).bytes += u64::from(bytes);
        }
    }

    #[inline(always)]
    fn report(&self, event: LogEvent) {
        // SAFETY: memory of this run, which nothing else points to.
        unsafe { (*self.ending).event = event as u8 };
    }
}

/// What is left. Both are read at different times, and two CPUs may have counted one: less than nothing is nothing.
#[inline(always)]
const fn difference(added: u32, removed: u32) -> u32 {
    let left = added.wrapping_sub(removed);
    if left > i32::MAX as u32 { 0 } else { left }
}

/// What became of a new entry, which is counted.
#[inline(always)]
fn put_new(
    result: Result<(), i32>,
    pod: u16,
    of: impl FnOnce(&mut PodUsage) -> &mut u32,
) -> Result<(), PutError> {
    match result {
        Ok(()) => {
            count(pod, of, 1);
            Ok(())
        }
        Err(EEXIST) => Err(PutError::Exists),
        Err(_) => Err(PutError::Full),
    }
}

/// Adds to what a pod is counted to have. Two CPUs may count one: see `PodUsage`.
#[inline(always)]
fn count(pod: u16, of: impl FnOnce(&mut PodUsage) -> &mut u32, more: u32) {
    if let Some(added) = ADDED.get_ptr_mut(u32::from(pod)) {
        // SAFETY: map memory, valid during the run.
        let count = of(unsafe { &mut *added });
        *count = count.wrapping_add(more);
    }
}

#[inline(never)]
fn log(skb: *mut __sk_buff, nic: u16, event: u8) {
    let Some(last) = REPORTED.get_ptr_mut(u32::from(nic)) else { return };
    // SAFETY: a helper without arguments; map memory, valid during the run: an aligned word, read and written whole. Two CPUs
    // that report at once do no harm.
    unsafe {
        let now = bpf_ktime_get_ns();
        let before = ptr::read_volatile(last);
        if before != 0 && now.wrapping_sub(before) < REPORT_EVERY {
            return;
        }
        ptr::write_volatile(last, now);
    }
    // Two numbers, of which the agent makes a sentence: each record that is written costs the verifier thousands of instructions.
    info!(&TcContext::new(skb), "{} {}", event, nic);
}
