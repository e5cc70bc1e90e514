//! The logic's surroundings on the host: a packet as bytes, the maps as hash tables. What the kernel's helpers
//! do is done here as they do it, to the bit, so that the programs can be compared with this.

pub mod frames;
pub mod pod;
pub mod traffic;

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet};

use crate::addr::Addr;
use crate::flow_state::FRAGMENTS_FOR;
use crate::maps::{
    AddressKey, ArrivalEntry, CIDR_KEY_BITS, CidrAction, CidrEntry, CidrKey, CidrKind, FlowKey,
    FragmentEntry, FragmentKey, LinkFlow, NatEntry, NicEntry, PodFlag, PodFlags, PodUsage, ROLE_NONE,
};
use crate::packet::{Packet, SERVICE_VLAN, Sum, VLAN};
use crate::reason::{Counter, Reason};
use crate::state::{LogEvent, Put, PutError, State};

/// A frame in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// From the Ethernet header on.
    pub bytes: Vec<u8>,
    /// As [`Packet::gso_size`].
    pub gso_size: u32,
    /// As [`Packet::is_for_other_host`].
    pub for_other_host: bool,
    /// The kernel has the headers outside the linear part of the packet.
    pub not_linear: bool,
    /// As [`Packet::take_decided`].
    pub decided: bool,
    /// The kernel has no memory for a copy that could be written to.
    pub unwritable: bool,
}

impl Frame {
    /// A frame that is not GSO.
    pub const fn new(bytes: Vec<u8>) -> Self {
        Self {
            bytes,
            gso_size: 0,
            for_other_host: false,
            not_linear: false,
            decided: false,
            unwritable: false,
        }
    }

    fn slice(&mut self, at: u32, len: usize) -> Option<&mut [u8]> {
        if self.unwritable {
            return None;
        }
        self.bytes.get_mut(at as usize..at as usize + len)
    }

    fn replace(&mut self, at: u32, from: u32, to: u32, keep_zero: bool) -> bool {
        let Some(field) = self.slice(at, 2) else { return false };
        let old = u16::from_ne_bytes([field[0], field[1]]);
        if keep_zero && old == 0 {
            return true;
        }
        let sum = csum_add(csum_add(!u32::from(old), !from), to);
        let new = match fold(sum) {
            0 if keep_zero => 0xffff,
            new => new,
        };
        field.copy_from_slice(&new.to_ne_bytes());
        true
    }
}

/// One's complement addition, as the kernel's `csum_add`.
const fn csum_add(a: u32, b: u32) -> u32 {
    let (sum, carry) = a.overflowing_add(b);
    sum + carry as u32
}

/// As the kernel's `csum_fold`.
const fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    !(sum as u16)
}

impl Packet for Frame {
    fn len(&self) -> u32 {
        self.bytes.len() as u32
    }

    fn gso_size(&self) -> u32 {
        self.gso_size
    }

    fn is_for_other_host(&self) -> bool {
        self.for_other_host
    }

    fn take_decided(&mut self) -> bool {
        core::mem::take(&mut self.decided)
    }

    fn set_decided(&mut self) {
        self.decided = true;
    }

    fn protocol(&self) -> u16 {
        self.load(12).map_or(0, u16::from_be_bytes)
    }

    fn has_hidden_tags(&self) -> bool {
        matches!(self.protocol(), VLAN | SERVICE_VLAN)
    }

    fn load<const N: usize>(&self, at: u32) -> Option<[u8; N]> {
        self.bytes.get(at as usize..at as usize + N)?.try_into().ok()
    }

    fn load_words<const N: usize>(&self, at: u32) -> Option<[u32; N]> {
        let bytes = self.bytes.get(at as usize..at as usize + 4 * N)?;
        let mut words = [0; N];
        for (word, b) in words.iter_mut().zip(bytes.chunks_exact(4)) {
            *word = u32::from_ne_bytes([b[0], b[1], b[2], b[3]]);
        }
        Some(words)
    }

    fn load_into<const N: usize>(&self, at: u32, words: &mut [u32; N]) -> bool {
        self.load_words(at).map(|loaded| *words = loaded).is_some()
    }

    fn sum<const N: usize>(&self, words: &[u32; N]) -> u32 {
        words.iter().fold(0, |sum, word| csum_add(sum, *word))
    }

    fn store_words<const N: usize>(&mut self, at: u32, words: &[u32; N]) -> bool {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        self.slice(at, 4 * N).map(|slice| slice.copy_from_slice(&bytes)).is_some()
    }

    fn make_writable(&mut self, len: u32) -> bool {
        self.slice(0, len as usize).is_some()
    }

    fn store<const N: usize>(&mut self, at: u32, bytes: &[u8; N]) -> bool {
        self.slice(at, N).map(|slice| slice.copy_from_slice(bytes)).is_some()
    }

    fn add_to_whole_sum(&mut self, _difference: u32) {}

    fn truncate(&mut self, len: u32) -> bool {
        let fits = !self.unwritable && len as usize <= self.bytes.len();
        if fits {
            self.bytes.truncate(len as usize);
            self.gso_size = 0;
        }
        fits
    }

    fn l3_csum_replace(&mut self, at: u32, from: u32, to: u32) -> bool {
        self.replace(at, from, to, false)
    }

    fn l4_csum_replace(&mut self, at: u32, from: u32, to: u32, sum: Sum) -> bool {
        self.replace(at, from, to, sum.udp)
    }

    fn l4_csum_replace_u16(&mut self, at: u32, from: u16, to: u16, sum: Sum) -> bool {
        self.replace(at, u32::from(from), u32::from(to), sum.udp)
    }
}

/// Ids below this have an entry, as in the kernel's array.
const SIZE: u16 = 64;
/// The entry of an id that is not in use.
static UNUSED: NicEntry = NicEntry {
    role: ROLE_NONE,
    exit_mode: 0,
    pod: 0,
    exit_nic: 0,
    profile: 0,
    ifindex: 0,
    mtu: 0,
    mac: [0; 6],
    peer_mac: [0; 6],
    addr4: [0; 4],
    addr6: [0; 16],
    node_link: 0,
    default4: 0,
    default6: 0,
    keeps_translations: 0,
    refuses_pods: 0,
    port_low: 0,
    port_high: 0,
    _pad: [0; 6],
};

/// The maps and facts.
#[derive(Clone, Debug, Default)]
pub struct Tables {
    /// Map `nics`.
    pub nics: BTreeMap<u16, NicEntry>,
    /// Map `addresses`.
    pub addresses: HashMap<AddressKey, u16>,
    /// Map `cluster_cidrs`, with prefix lengths as in the trie.
    pub cidrs: Vec<(u32, CidrKey, CidrEntry)>,
    /// Map `arrivals`.
    pub arrivals: RefCell<HashMap<FlowKey, ArrivalEntry>>,
    /// Map `nat`.
    pub nat: RefCell<HashMap<FlowKey, NatEntry>>,
    /// How many entries `nat` takes; 0: any number.
    pub nat_size: usize,
    /// Map `link_flows`.
    pub link_flows: RefCell<HashMap<FlowKey, LinkFlow>>,
    /// Map `link_fragments`.
    pub link_fragments: RefCell<HashMap<FlowKey, u64>>,
    /// Map `fragments`.
    pub fragments: RefCell<HashMap<FragmentKey, FragmentEntry>>,
    /// Map `added`; nothing is removed.
    pub usage: RefCell<BTreeMap<u16, PodUsage>>,
    /// [`State::share`].
    pub share: PodUsage,
    /// Map `pod_flags`.
    pub pod_flags: RefCell<BTreeMap<u16, PodFlags>>,
    /// Flows whose sockets do not take a RST ([`State::takes_reset`]).
    pub refuses_reset: HashSet<FlowKey>,
    /// [`State::is_forwarded`].
    pub forwarded: bool,
    /// [`State::is_from_pods`].
    pub from_pods: bool,
    /// [`State::is_spoofed`].
    pub spoofed: bool,
    /// Map `stats`.
    pub stats: RefCell<BTreeMap<(u16, Reason), Counter>>,
    /// What was reported.
    pub events: RefCell<Vec<LogEvent>>,
    /// Tuples that sockets have ([`State::socket_has`]).
    pub sockets: HashSet<FlowKey>,
    /// Flows that connected sockets have ([`State::socket_connected`]).
    pub connected: HashSet<FlowKey>,
    /// [`State::wildcard_socket`].
    pub wildcard: bool,
    /// [`State::now`].
    pub now: u64,
    /// What [`State::random`] comes from.
    pub seed: u32,
}

impl Tables {
    /// Adds a prefix.
    pub fn cidr(&mut self, profile: u16, net: Addr, len: u8, action: CidrAction, kind: CidrKind) {
        let key = CidrKey::new(profile, net);
        self.cidrs.push((CidrKey::prefix_len(net, len), key, CidrEntry::new(action, kind)));
    }

    fn count_usage(&self, pod: u16, count: impl FnOnce(&mut PodUsage)) {
        count(self.usage.borrow_mut().entry(pod).or_default());
    }

    /// How often a reason was counted on a NIC.
    pub fn packets(&self, nic: u16, reason: Reason) -> u64 {
        self.stats.borrow().get(&(nic, reason)).map_or(0, |c| c.packets)
    }
}

fn bits(key: &CidrKey) -> [u8; 20] {
    let mut out = [0; 20];
    out[..2].copy_from_slice(&key.profile.to_ne_bytes());
    out[4..].copy_from_slice(&key.addr.bytes);
    out
}

fn prefix_matches(a: &[u8; 20], b: &[u8; 20], len: u32) -> bool {
    (0..len.min(CIDR_KEY_BITS)).all(|bit| {
        let (byte, mask) = ((bit / 8) as usize, 0x80 >> (bit % 8));
        a[byte] & mask == b[byte] & mask
    })
}

impl State for Tables {
    fn now(&self) -> u64 {
        self.now
    }

    fn random(&self, attempt: u32) -> u32 {
        crate::nat::pseudo_random(self.seed, attempt)
    }

    fn nic(&self, id: u16) -> Option<&NicEntry> {
        self.nics.get(&id).or_else(|| (id < SIZE).then_some(&UNUSED))
    }

    fn address(&self, key: &AddressKey) -> u16 {
        self.addresses.get(key).copied().unwrap_or(0)
    }

    fn cidr(&self, key: &CidrKey) -> CidrEntry {
        let wanted = bits(key);
        let matching = self.cidrs.iter().filter(|(len, key, _)| prefix_matches(&bits(key), &wanted, *len));
        matching.max_by_key(|(len, ..)| *len).map_or(CidrEntry::NONE, |(.., entry)| *entry)
    }

    fn arrival<R>(&self, key: &FlowKey, f: impl FnOnce(&mut ArrivalEntry) -> R) -> Option<R> {
        self.arrivals.borrow_mut().get_mut(key).map(f)
    }

    fn arrival_put(&self, key: &FlowKey, entry: &ArrivalEntry) -> Result<(), PutError> {
        let mut arrivals = self.arrivals.borrow_mut();
        if arrivals.contains_key(key) {
            return Err(PutError::Exists);
        }
        arrivals.insert(*key, *entry);
        self.count_usage(key.pod, |usage| usage.arrivals += 1);
        Ok(())
    }

    fn arrival_remove(&self, key: &FlowKey) {
        if self.arrivals.borrow_mut().remove(key).is_some() {
            self.count_usage(key.pod, |usage| usage.arrivals -= 1);
        }
    }

    fn nat<R>(&self, key: &FlowKey, f: impl FnOnce(&mut NatEntry) -> R) -> Option<R> {
        self.nat.borrow_mut().get_mut(key).map(f)
    }

    fn nat_put(&self, key: &FlowKey, entry: &NatEntry, put: Put) -> Result<(), PutError> {
        let mut nat = self.nat.borrow_mut();
        let exists = nat.contains_key(key);
        if exists && put == Put::NoExist {
            return Err(PutError::Exists);
        }
        if !exists && self.nat_size != 0 && nat.len() >= self.nat_size {
            return Err(PutError::Full);
        }
        nat.insert(*key, *entry);
        if !exists {
            self.count_usage(key.pod, |usage| usage.nat += 1);
        }
        Ok(())
    }

    fn nat_remove(&self, key: &FlowKey) {
        if self.nat.borrow_mut().remove(key).is_some() {
            self.count_usage(key.pod, |usage| usage.nat -= 1);
        }
    }

    fn link_flow<R>(&self, key: &FlowKey, f: impl FnOnce(&mut LinkFlow) -> R) -> Option<R> {
        self.link_flows.borrow_mut().get_mut(key).map(f)
    }

    fn link_flow_put(&self, key: &FlowKey, flow: &LinkFlow) -> Result<(), PutError> {
        let mut flows = self.link_flows.borrow_mut();
        if flows.contains_key(key) {
            return Err(PutError::Exists);
        }
        flows.insert(*key, *flow);
        self.count_usage(key.pod, |usage| usage.link_flows += 1);
        Ok(())
    }

    fn link_flow_remove(&self, key: &FlowKey) {
        if self.link_flows.borrow_mut().remove(key).is_some() {
            self.count_usage(key.pod, |usage| usage.link_flows -= 1);
        }
    }

    fn usage(&self, pod: u16) -> PodUsage {
        self.usage.borrow().get(&pod).copied().unwrap_or_default()
    }

    fn share(&self) -> PodUsage {
        self.share
    }

    fn flags(&self, pod: u16) -> PodFlags {
        self.pod_flags.borrow().get(&pod).copied().unwrap_or_default()
    }

    fn set_flag(&self, pod: u16, flag: PodFlag) {
        self.pod_flags.borrow_mut().entry(pod).or_default().set(flag);
    }

    fn takes_reset(&self, key: &FlowKey, _sequence: u32) -> bool {
        !self.refuses_reset.contains(key)
    }

    fn link_fragment(&self, key: &FlowKey) -> bool {
        let since = self.link_fragments.borrow().get(key).copied();
        since.is_some_and(|since| self.now.saturating_sub(since) <= FRAGMENTS_FOR)
    }

    fn link_fragment_put(&self, key: &FlowKey) {
        self.link_fragments.borrow_mut().insert(*key, self.now);
    }

    fn fragment(&self, key: &FragmentKey) -> Option<FragmentEntry> {
        self.fragments.borrow().get(key).copied()
    }

    fn fragment_put(&self, key: &FragmentKey, entry: &FragmentEntry) {
        self.fragments.borrow_mut().insert(*key, *entry);
    }

    fn fragment_remove(&self, key: &FragmentKey) {
        self.fragments.borrow_mut().remove(key);
    }

    fn is_forwarded(&self) -> bool {
        self.forwarded
    }

    fn is_from_pods(&self) -> bool {
        self.from_pods
    }

    fn is_spoofed(&self, _key: &FlowKey) -> bool {
        self.spoofed
    }

    fn socket_has(&self, key: &FlowKey) -> bool {
        self.sockets.contains(key)
    }

    fn socket_connected(&self, key: &FlowKey) -> bool {
        self.connected.contains(key)
    }

    fn wildcard_socket(&self) -> bool {
        self.wildcard
    }

    fn count(&self, nic: u16, reason: Reason, bytes: u32) {
        let mut stats = self.stats.borrow_mut();
        let counter = stats.entry((nic, reason)).or_default();
        counter.packets += 1;
        counter.bytes += u64::from(bytes);
    }

    fn report(&self, event: LogEvent) {
        self.events.borrow_mut().push(event);
    }
}
