//! Whole lives of a pod with two NICs, as a container runtime and a kubelet let them go, against the rule: what the pod
//! uses is never freed, and what nothing will use again is.

use proptest::prelude::*;

use super::super::super::holding::tests::owner;
use super::*;

const NICS: usize = 2;
/// Ticks: an ADD is expected within, and the kubelet's report follows within less.
const SETTLES: u64 = 6;
const REPORT: u64 = 3;

/// What happens next.
#[derive(Debug, Clone, Copy)]
enum Event {
    /// The sandbox dies: its containers stop, DELs come for all NICs.
    SandboxDies,
    /// The runtime makes a sandbox with the NICs that the pod is to have now.
    SandboxStarts,
    /// One NIC is detached from the running pod, for good.
    Unplug(usize),
    /// The phase becomes final, with its containers stopped or, without its kubelet, not.
    Fail { by_kubelet: bool },
    /// Time passes.
    Ticks(u64),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        2 => Just(Event::SandboxDies),
        4 => Just(Event::SandboxStarts),
        2 => (0..NICS).prop_map(Event::Unplug),
        1 => any::<bool>().prop_map(|by_kubelet| Event::Fail { by_kubelet }),
        6 => (1u64..9).prop_map(Event::Ticks),
    ]
}

/// The pod, its node, and what its agent and the API server know of them.
#[derive(Debug, Default)]
struct World {
    now: u64,
    /// The NICs that the pod is to have.
    wanted: [bool; NICS],
    is_up: [bool; NICS],
    runs: bool,
    stage: PodStage,
    /// What the API server says of running containers, and since when the truth is otherwise.
    reported: bool,
    deviates_since: Option<u64>,
    /// By the address object: the sandbox; by the agent: since when it names none.
    detached_since: [Option<u64>; NICS],
    is_held: [bool; NICS],
    finished_at: Option<u64>,
}

impl World {
    fn attach(&mut self, nic: usize) {
        (self.is_up[nic], self.is_held[nic], self.detached_since[nic]) = (true, true, None);
    }

    fn detach(&mut self, nic: usize) -> Result<(), TestCaseError> {
        self.is_up[nic] = false;
        if self.is_held[nic] && self.detached_since[nic].is_none() {
            self.decide(nic, SandboxState::TornDown)?;
            self.detached_since[nic] = Some(self.now);
        }
        Ok(())
    }

    fn apply(&mut self, event: Event) -> Result<(), TestCaseError> {
        match event {
            Event::SandboxDies => {
                self.runs = false;
                for nic in 0..NICS {
                    self.detach(nic)?;
                }
            }
            Event::SandboxStarts if self.stage == PodStage::Alive && !self.runs => {
                for nic in 0..NICS {
                    prop_assert!(self.is_held[nic] || !self.wanted[nic], "a restart keeps the addresses");
                    if self.wanted[nic] {
                        self.attach(nic);
                    }
                }
                self.runs = true;
            }
            Event::Unplug(nic) if self.runs => {
                self.wanted[nic] = false;
                self.detach(nic)?;
            }
            Event::Fail { by_kubelet } if self.stage == PodStage::Alive => {
                self.runs &= !by_kubelet;
                (self.stage, self.finished_at) = (PodStage::Finished, Some(self.now));
            }
            Event::Ticks(ticks) => return (0..ticks).try_for_each(|_| self.tick()),
            _ => {}
        }
        Ok(())
    }

    fn tick(&mut self) -> Result<(), TestCaseError> {
        self.now += 1;
        if self.reported == self.runs {
            self.deviates_since = None;
        } else if self.now >= *self.deviates_since.get_or_insert(self.now) + REPORT {
            self.reported = self.runs;
        }
        // A kubelet that does not answer stops a failed pod within its grace period, without a DEL that succeeds.
        if self.finished_at.is_some_and(|at| self.now >= at + 20) {
            (self.runs, self.is_up) = (false, [false; NICS]);
        }
        for nic in 0..NICS {
            let settled = self.detached_since[nic].map(|since| since + SETTLES);
            let sandbox = |settled| SandboxState::Detached { settled };
            self.decide(nic, settled.map_or(SandboxState::Unknown, |at| sandbox(Some(at))))?;
            self.decide(nic, settled.map_or(SandboxState::Unknown, |_| sandbox(None)))?;
        }
        Ok(())
    }

    fn decide(&mut self, nic: usize, sandbox: SandboxState<u64>) -> Result<(), TestCaseError> {
        let uid = "u".parse().unwrap();
        let pod = PodEvidence {
            uid: &uid,
            stage: self.stage,
            has_stopped: self.stage == PodStage::Finished,
            has_running: self.reported,
            grace_end: self.finished_at.map(|at| at + 20),
        };
        let evidence =
            Evidence { now: self.now, pod: Some(pod), sandbox, node: NodeState::Ready, may_run_until: None };
        let plan = plan_owner_release(&owner("u", "Deployment"), &evidence, ReleasePolicy::default());
        if self.is_held[nic] && matches!(plan, Disposition::Free(_)) {
            prop_assert!(!self.is_up[nic], "NIC {nic} is up: {plan:?} {self:?}");
            self.is_held[nic] = false;
        }
        Ok(())
    }
}

proptest! {
    #[test]
    fn never_what_is_in_use_and_all_that_is_not(
        events in proptest::collection::vec(event(), 0..40),
        fails in any::<bool>(),
    ) {
        let mut world = World { wanted: [true; NICS], runs: true, reported: true, ..World::default() };
        (0..NICS).for_each(|nic| world.attach(nic));
        for event in events {
            world.apply(event)?;
        }
        let end = if fails { Event::Fail { by_kubelet: false } } else { Event::SandboxStarts };
        for event in [end, Event::Ticks(40)] {
            world.apply(event)?;
        }
        if world.stage == PodStage::Finished {
            prop_assert_eq!(world.is_held, [false; NICS], "{:?}", world);
        } else {
            prop_assert_eq!(world.is_held, world.wanted, "{:?}", world);
        }
    }
}
