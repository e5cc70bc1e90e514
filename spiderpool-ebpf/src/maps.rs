//! The maps, typed by BTF so that bpftool prints their fields. Sizes here are defaults; the agent sets them.

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::btf_maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray};
use aya_ebpf::macros::btf_map;
use spiderpool_ebpf_common::maps::{
    AddressEntry, AddressKey, ArrivalEntry, CidrEntry, CidrKey, FlowKey, FragmentEntry, FragmentKey,
    LinkFlow, NatEntry, NicEntry, NodeDevice, PodFlags, PodUsage,
};
use spiderpool_ebpf_common::reason::Counters;
use spiderpool_ebpf_common::scratch::Scratch;

#[btf_map(name = "nics")]
pub(crate) static NICS: Array<NicEntry, 1024> = Array::new();

#[btf_map(name = "addresses")]
pub(crate) static ADDRESSES: HashMap<AddressKey, AddressEntry, 4096, { BPF_F_NO_PREALLOC as usize }> =
    HashMap::new();

#[btf_map(name = "cluster_cidrs")]
pub(crate) static CLUSTER_CIDRS: LpmTrie<CidrKey, CidrEntry, 16384> = LpmTrie::new();

/// This and the next two are not preallocated: most pods need few entries, and the slot of a removed one is not reused under
/// a program that still reads it. They have no least recently used entry to evict: the entries that a pod gets are its
/// share, and a full share is its own loss.
#[btf_map(name = "arrivals")]
pub(crate) static ARRIVALS: HashMap<FlowKey, ArrivalEntry, 65536, { BPF_F_NO_PREALLOC as usize }> =
    HashMap::new();

#[btf_map(name = "nat")]
pub(crate) static NAT: HashMap<FlowKey, NatEntry, 262_144, { BPF_F_NO_PREALLOC as usize }> = HashMap::new();

#[btf_map(name = "link_flows")]
pub(crate) static LINK_FLOWS: HashMap<FlowKey, LinkFlow, 262_144, { BPF_F_NO_PREALLOC as usize }> =
    HashMap::new();

#[btf_map(name = "link_fragments")]
pub(crate) static LINK_FRAGMENTS: LruHashMap<FlowKey, u64, 4096> = LruHashMap::new();

#[btf_map(name = "fragments")]
pub(crate) static FRAGMENTS: LruHashMap<FragmentKey, FragmentEntry, 4096> = LruHashMap::new();

#[btf_map(name = "added")]
pub(crate) static ADDED: Array<PodUsage, 1024> = Array::new();

#[btf_map(name = "removed")]
pub(crate) static REMOVED: Array<PodUsage, 1024> = Array::new();

#[btf_map(name = "pod_flags")]
pub(crate) static POD_FLAGS: Array<PodFlags, 1024> = Array::new();

/// When something was logged last about a NIC, by its id: CLOCK_MONOTONIC in ns. It is not pinned.
#[btf_map(name = "reported")]
pub(crate) static REPORTED: Array<u64, 1024> = Array::new();

#[btf_map(name = "node_devices")]
pub(crate) static NODE_DEVICES: HashMap<u32, NodeDevice, 4096, { BPF_F_NO_PREALLOC as usize }> =
    HashMap::new();

#[btf_map(name = "stats")]
pub(crate) static STATS: PerCpuArray<Counters, 1024> = PerCpuArray::new();

/// What is done when a run is over.
#[repr(C)]
pub(crate) struct Ending {
    pub(crate) action: u32,
    pub(crate) ifindex: u32,
    /// A [`LogEvent`](spiderpool_ebpf_common::state::LogEvent) to be logged; 0 if there is none.
    pub(crate) event: u8,
}

/// What a run works in.
#[repr(C, align(8))]
pub(crate) struct RunMemory {
    pub(crate) scratch: Scratch,
    pub(crate) ending: Ending,
}

/// Memory of one run: a tc program is not interrupted by another on its CPU, as long as bottom halves are off while it runs (on
/// PREEMPT_RT kernels: `CONFIG_PREEMPT_RT_NEEDS_BH_LOCK`).
#[btf_map(name = "scratch")]
static SCRATCH: PerCpuArray<[u64; size_of::<RunMemory>() / 8], 1> = PerCpuArray::new();

/// The memory of this run.
#[inline(always)]
pub(crate) fn memory() -> Option<&'static mut RunMemory> {
    // SAFETY: elements are aligned to 8 bytes and live as long as the program; zeros, which they start as, are a
    // valid value.
    SCRATCH.get_ptr_mut(0).map(|memory| unsafe { &mut *memory.cast::<RunMemory>() })
}
