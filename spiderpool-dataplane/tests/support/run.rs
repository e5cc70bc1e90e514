//! Runs the programs on single packets in the kernel (`BPF_PROG_TEST_RUN`), with map contents from the model,
//! and reads back what they did.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aya::EbpfLoader;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, Map, MapData, PerCpuArray};
use aya::programs::{SchedClassifier, TestRun, TestRunOptions};
use nix::errno::Errno;
use nix::libc;
use spiderpool_dataplane::{Dataplane, Reason, Sizes};
use spiderpool_ebpf_common::maps::{
    AddressEntry, AddressKey, ArrivalEntry, CidrEntry, CidrKey, FlowKey, FragmentEntry, FragmentKey,
    LinkFlow, NatEntry, NicEntry, PodFlags, PodUsage,
};
use spiderpool_ebpf_common::model::pod::POD;
use spiderpool_ebpf_common::model::traffic::Program;
use spiderpool_ebpf_common::model::{Frame, Tables};
use spiderpool_ebpf_common::reason::{Counter, Counters};
use spiderpool_ebpf_common::verdict::Verdict;

use super::{BpfFs, object};

/// Size of `struct __sk_buff`, and offsets of some of its fields.
const CTX: usize = 192;
const CB: usize = 48;
const GSO_SIZE: usize = 176;
const MARK: usize = 8;
/// The mark of a packet whose way is decided (spiderpool-ebpf/src/skb.rs).
const DECIDED: u32 = 0x5370_4e54;

/// The command `BPF_PROG_TEST_RUN` (include/uapi/linux/bpf.h).
const TEST_RUN: libc::c_int = 10;
/// `BPF_F_TEST_SKB_CHECKSUM_COMPLETE` there.
const WHOLE_SUM: u32 = 1 << 2;

/// `union bpf_attr` of that command.
#[repr(C)]
#[derive(Default)]
struct TestRunAttributes {
    program: u32,
    retval: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    ctx_size_in: u32,
    ctx_size_out: u32,
    ctx_in: u64,
    ctx_out: u64,
    flags: u32,
    cpu: u32,
    batch_size: u32,
    _pad: u32,
}

/// The loaded programs with their maps.
pub(crate) struct Bench {
    egress: SchedClassifier,
    ingress: SchedClassifier,
    host_egress: SchedClassifier,
    host_ingress: SchedClassifier,
    nics: Array<MapData, NicEntry>,
    cidrs: LpmTrie<MapData, CidrKey, CidrEntry>,
    arrivals: aya::maps::HashMap<MapData, FlowKey, ArrivalEntry>,
    nat: aya::maps::HashMap<MapData, FlowKey, NatEntry>,
    link_flows: aya::maps::HashMap<MapData, FlowKey, LinkFlow>,
    link_fragments: aya::maps::HashMap<MapData, FlowKey, u64>,
    fragments: aya::maps::HashMap<MapData, FragmentKey, FragmentEntry>,
    added: Array<MapData, PodUsage>,
    pod_flags: Array<MapData, PodFlags>,
    stats: PerCpuArray<MapData, Counters>,
    pub(crate) dataplane: Dataplane,
    _fs: BpfFs,
}

/// What flows and counters the maps hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Contents {
    pub(crate) arrivals: HashMap<FlowKey, ArrivalEntry>,
    pub(crate) nat: HashMap<FlowKey, NatEntry>,
    pub(crate) link_flows: HashMap<FlowKey, LinkFlow>,
    pub(crate) link_fragments: HashMap<FlowKey, u64>,
    pub(crate) fragments: HashMap<FragmentKey, FragmentEntry>,
    /// How many of them the pod is counted to have.
    pub(crate) usage: PodUsage,
    /// What it has or has had.
    pub(crate) flags: PodFlags,
    pub(crate) stats: BTreeMap<(u16, Reason), Counter>,
}

impl Contents {
    /// Those of the model.
    pub(crate) fn of(tables: &Tables) -> Self {
        Self {
            arrivals: tables.arrivals.borrow().clone(),
            nat: tables.nat.borrow().clone(),
            link_flows: tables.link_flows.borrow().clone(),
            link_fragments: tables.link_fragments.borrow().clone(),
            fragments: tables.fragments.borrow().clone(),
            usage: tables.usage.borrow().get(&POD).copied().unwrap_or_default(),
            flags: tables.pod_flags.borrow().get(&POD).copied().unwrap_or_default(),
            stats: tables.stats.borrow().clone(),
        }
    }
}

fn map(pins: &Path, name: &str) -> Map {
    Map::from_map_data(MapData::from_pin(pins.join(name)).unwrap()).unwrap()
}

impl Bench {
    /// What the programs have logged so far, as the agent's log has it.
    pub(crate) fn logged(&mut self) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let file = Arc::new(File::create(&path).unwrap());
        let log = tracing_subscriber::fmt().with_writer(file).with_ansi(false).finish();
        let mut logs = self.dataplane.take_logs().unwrap();
        tracing::subscriber::with_default(log, || logs.flush());
        fs::read_to_string(path).unwrap()
    }

    /// Replaces an entry of `nics`.
    pub(crate) fn set_nic(&mut self, id: u16, nic: &NicEntry) {
        self.nics.set(u32::from(id), nic, 0).unwrap();
    }

    /// Loads the programs in test mode and fills the maps of configuration.
    pub(crate) fn new(tables: &Tables, sizes: &Sizes) -> Self {
        let fs = BpfFs::mount();
        let pins: PathBuf = fs.pins();
        let mut loader = EbpfLoader::new();
        loader.override_global("TEST_RUN", &1u8, true);
        let dataplane = Dataplane::load_with(&object(), &pins, sizes, &mut loader).unwrap();
        let program = |name| SchedClassifier::from_pin(pins.join(name)).unwrap();
        let mut bench = Self {
            egress: program("egress"),
            ingress: program("ingress"),
            host_egress: program("host_egress"),
            host_ingress: program("host_ingress"),
            nics: map(&pins, "nics").try_into().unwrap(),
            cidrs: map(&pins, "cluster_cidrs").try_into().unwrap(),
            arrivals: map(&pins, "arrivals").try_into().unwrap(),
            nat: map(&pins, "nat").try_into().unwrap(),
            link_flows: map(&pins, "link_flows").try_into().unwrap(),
            link_fragments: map(&pins, "link_fragments").try_into().unwrap(),
            fragments: map(&pins, "fragments").try_into().unwrap(),
            added: map(&pins, "added").try_into().unwrap(),
            pod_flags: map(&pins, "pod_flags").try_into().unwrap(),
            stats: map(&pins, "stats").try_into().unwrap(),
            dataplane,
            _fs: fs,
        };
        for (&id, nic) in &tables.nics {
            bench.nics.set(u32::from(id), nic, 0).unwrap();
        }
        let mut addresses: aya::maps::HashMap<MapData, AddressKey, AddressEntry> =
            map(&pins, "addresses").try_into().unwrap();
        for (key, &nic) in &tables.addresses {
            addresses.insert(key, AddressEntry { nic, _pad: 0 }, 0).unwrap();
        }
        for &(len, key, entry) in &tables.cidrs {
            bench.cidrs.insert(&Key::new(len, key), entry, 0).unwrap();
        }
        bench
    }

    /// Makes the flows those of the model and the counters zero.
    pub(crate) fn reset(&mut self, tables: &Tables) {
        let old: Vec<_> = self.arrivals.keys().map(Result::unwrap).collect();
        for key in &old {
            self.arrivals.remove(key).unwrap();
        }
        let old: Vec<_> = self.nat.keys().map(Result::unwrap).collect();
        for key in &old {
            self.nat.remove(key).unwrap();
        }
        let old: Vec<_> = self.link_flows.keys().map(Result::unwrap).collect();
        for key in &old {
            self.link_flows.remove(key).unwrap();
        }
        let old: Vec<_> = self.link_fragments.keys().map(Result::unwrap).collect();
        for key in &old {
            self.link_fragments.remove(key).unwrap();
        }
        let old: Vec<_> = self.fragments.keys().map(Result::unwrap).collect();
        for key in &old {
            self.fragments.remove(key).unwrap();
        }
        for (key, flow) in tables.link_flows.borrow().iter() {
            self.link_flows.insert(key, flow, 0).unwrap();
        }
        let contents = Contents::of(tables);
        self.added.set(u32::from(POD), contents.usage, 0).unwrap();
        self.pod_flags.set(u32::from(POD), contents.flags, 0).unwrap();
        for (key, entry) in tables.arrivals.borrow().iter() {
            self.arrivals.insert(key, entry, 0).unwrap();
        }
        for (key, entry) in tables.nat.borrow().iter() {
            self.nat.insert(key, entry, 0).unwrap();
        }
        let cpus = self.stats.get(&0, 0).unwrap().len();
        for id in 0..self.stats.len() {
            let zero = vec![Counters::default(); cpus].try_into().unwrap();
            self.stats.set(id, zero, 0).unwrap();
        }
    }

    /// Makes a pod's flows by the node link look as if nothing had been seen of them since the machine started.
    pub(crate) fn forget_time_of_link_flows(&mut self, pod: u16) {
        let flows: Vec<_> = self.link_flows.iter().map(Result::unwrap).collect();
        for (key, flow) in flows.iter().filter(|(key, _)| key.pod == pod) {
            self.link_flows.insert(key, LinkFlow { last_seen: 0, ..*flow }, 0).unwrap();
        }
    }

    /// What the maps hold now.
    pub(crate) fn contents(&self) -> Contents {
        let mut stats = BTreeMap::new();
        for id in 0..16u16 {
            for counters in self.stats.get(&u32::from(id), 0).unwrap().iter() {
                for (&reason, counter) in Reason::ALL.iter().zip(counters.as_array()) {
                    if counter.packets != 0 {
                        let sum: &mut Counter = stats.entry((id, reason)).or_default();
                        sum.packets += counter.packets;
                        sum.bytes += counter.bytes;
                    }
                }
            }
        }
        Contents {
            arrivals: self.arrivals.iter().map(Result::unwrap).collect(),
            nat: self.nat.iter().map(Result::unwrap).collect(),
            link_flows: self.link_flows.iter().map(Result::unwrap).collect(),
            link_fragments: self.link_fragments.iter().map(Result::unwrap).collect(),
            fragments: self.fragments.iter().map(Result::unwrap).collect(),
            usage: self.added.get(&u32::from(POD), 0).unwrap(),
            flags: self.pod_flags.get(&u32::from(POD), 0).unwrap(),
            stats,
        }
    }

    /// Runs a program on a packet with the model's clock, random numbers and socket. `None`: the kernel makes no test
    /// run of a packet that is shorter than its IP header.
    pub(crate) fn run_program(
        &self,
        program: Program,
        nic: u16,
        frame: &Frame,
        tables: &Tables,
    ) -> Option<(Verdict, Frame)> {
        let ctx = context(nic, frame, tables);
        let (mut data, mut after) = (vec![0; frame.bytes.len() + 256], [0u8; CTX]);
        let result = self.program(program).test_run(TestRunOptions {
            data_in: Some(&frame.bytes),
            data_out: Some(&mut data),
            ctx_in: Some(&ctx),
            ctx_out: Some(&mut after),
            ..TestRunOptions::new()
        });
        if result.is_err() && is_cut_short(frame) {
            return None;
        }
        let result = result.unwrap();
        data.truncate(result.data_size_out as usize);
        let code = u32::from_ne_bytes(after[CB + 16..CB + 20].try_into().unwrap());
        let verdict = verdict(code);
        let action = match verdict {
            Verdict::Pass => -1,
            Verdict::Drop => 2,
            _ => 7,
        };
        assert_eq!(result.return_value as i32, action, "TC_ACT_UNSPEC, _SHOT or _REDIRECT for {verdict:?}");
        let mark = u32::from_ne_bytes(after[MARK..MARK + 4].try_into().unwrap());
        Some((verdict, Frame { decided: mark == DECIDED, ..Frame::new(data) }))
    }

    /// Runs a program on a packet whose whole checksum its device has given (`CHECKSUM_COMPLETE`): the kernel compares that
    /// afterwards with the packet's words, and says EBADMSG if they differ. Kernels before 6.16 say EINVAL.
    pub(crate) fn run_with_whole_sum(
        &self,
        program: Program,
        nic: u16,
        frame: &Frame,
        tables: &Tables,
    ) -> Result<(), Errno> {
        let ctx = context(nic, frame, tables);
        let mut data = vec![0u8; frame.bytes.len() + 256];
        let attributes = TestRunAttributes {
            program: self.program(program).fd().unwrap().as_fd().as_raw_fd() as u32,
            data_size_in: frame.bytes.len() as u32,
            data_size_out: data.len() as u32,
            data_in: frame.bytes.as_ptr() as u64,
            data_out: data.as_mut_ptr() as u64,
            repeat: 1,
            ctx_size_in: CTX as u32,
            ctx_in: ctx.as_ptr() as u64,
            flags: WHOLE_SUM,
            ..TestRunAttributes::default()
        };
        // SAFETY: the buffers live as long as the call, and are as long as is said.
        let result = unsafe {
            libc::syscall(libc::SYS_bpf, TEST_RUN, &raw const attributes, size_of::<TestRunAttributes>())
        };
        Errno::result(result).map(drop)
    }

    const fn program(&self, program: Program) -> &SchedClassifier {
        match program {
            Program::Egress => &self.egress,
            Program::Ingress => &self.ingress,
            Program::HostEgress => &self.host_egress,
            Program::HostIngress => &self.host_ingress,
        }
    }
}

/// The `__sk_buff` of a test run.
fn context(nic: u16, frame: &Frame, tables: &Tables) -> [u8; CTX] {
    let mut ctx = [0u8; CTX];
    let cb = [
        u32::from(nic)
            | u32::from(tables.wildcard) << 16
            | u32::from(frame.for_other_host) << 17
            | u32::from(tables.forwarded) << 18
            | u32::from(tables.spoofed) << 19
            | u32::from(tables.from_pods) << 20
            | u32::from(frame.not_linear) << 21
            | ((tables.now >> 48) as u32) << 22,
        tables.now as u32,
        ((tables.now >> 32) as u32) << 16,
        tables.seed << 16,
    ];
    assert!(tables.now >> 58 == 0 && tables.seed >> 16 == 0, "{} and {} do not fit", tables.now, tables.seed);
    for (slot, value) in ctx[CB..].chunks_mut(4).zip(cb) {
        slot.copy_from_slice(&value.to_ne_bytes());
    }
    if frame.decided {
        ctx[MARK..MARK + 4].copy_from_slice(&DECIDED.to_ne_bytes());
    }
    ctx[GSO_SIZE..GSO_SIZE + 4].copy_from_slice(&frame.gso_size.to_ne_bytes());
    ctx
}

fn is_cut_short(frame: &Frame) -> bool {
    match frame.bytes.get(12..14) {
        Some([8, 0]) => frame.bytes.len() < 34,
        Some([0x86, 0xdd]) => frame.bytes.len() < 54,
        _ => false,
    }
}

fn verdict(code: u32) -> Verdict {
    let ifindex = code & 0x0fff_ffff;
    match code >> 28 {
        0 => Verdict::Pass,
        1 => Verdict::Redirect { ifindex },
        2 => Verdict::RedirectIngress { ifindex },
        3 => Verdict::RedirectNeigh { ifindex },
        4 => Verdict::Drop,
        other => panic!("no such verdict: {other}"),
    }
}
