//! What an ADD has to do, given what the pod holds already. Running it twice changes nothing the second time.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use super::candidates::PoolCandidates;
use super::holding::Holding;
use super::{IpamError, Pool, PoolEntry};
use crate::names::IfName;

/// What happens for one NIC and family. `H` is a holding, with whatever the caller knows beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AllocationStep<H> {
    /// The pod holds this address; it stays.
    Keep {
        /// What is wanted.
        candidate: PoolCandidates,
        /// What the pod holds.
        held: H,
    },
    /// An earlier pod of the name had this address, and it was kept; it becomes the pod's.
    TakeOver {
        /// What is wanted.
        candidate: PoolCandidates,
        /// What was kept.
        kept: H,
    },
    /// The pod that the virtual machine comes from has this address, and goes on using it until the machine has moved:
    /// nothing is written.
    Share {
        /// What is wanted.
        candidate: PoolCandidates,
        /// What the other pod holds.
        shared: H,
    },
    /// An address must be found.
    Allocate {
        /// What is wanted.
        candidate: PoolCandidates,
        /// The pools that may serve it, in the order in which they are tried.
        pools: Vec<Arc<Pool>>,
    },
}

/// What there is for a pod already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodAddresses<H> {
    /// What the pod holds.
    pub held: Vec<H>,
    /// What an earlier pod has left for it.
    pub kept: Vec<H>,
    /// What another pod holds and uses, whose virtual machine is moving to this one.
    pub shared: Vec<H>,
}

/// What an ADD has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllocationPlan<H> {
    /// One step per NIC and family, in the order of the candidates.
    pub steps: Vec<AllocationStep<H>>,
    /// Addresses of the NIC that is being added which nothing wants; to be freed once all steps have succeeded,
    /// never before. Those of another NIC wait for its own ADD: it may be up with any of them.
    pub surplus: Vec<H>,
    /// Addresses that were kept for NICs that are served now and that nothing wants any more, as the pools are others; to
    /// be taken over and freed then, too. Also those of other NICs: the endpoint names them no more when it is written.
    pub outdated: Vec<H>,
}

/// Compares what is wanted with what there is for the pod, while the NIC `adding` is being added.
///
/// An address is kept although its pool is disabled or not named any more: the pod may be using it. Of two for the
/// same NIC and family (left by an attempt that broke off) the one from the pool that is named first is kept.
/// Addresses of NICs that no candidate speaks of are left alone. Of those that were kept, which an earlier pod of the name
/// had, one is taken over for what the pod lacks if `may_keep` says so. Shared ones are not asked about: the machine that
/// is moving has them.
///
/// `find_pools` is asked for the pools of what the pod lacks. If it fails for some, all failures are returned: nothing
/// is to be allocated before it is known that everything may be.
pub fn plan_allocation<H: AsRef<Holding> + Clone, E>(
    candidates: Vec<PoolCandidates>,
    addresses: &PodAddresses<H>,
    adding: &IfName,
    mut may_keep: impl FnMut(&PoolCandidates, &H) -> Result<bool, E>,
    mut find_pools: impl FnMut(&PoolCandidates) -> Result<Vec<Arc<Pool>>, E>,
) -> Result<AllocationPlan<H>, Vec<E>> {
    let PodAddresses { held, kept, shared } = addresses;
    let served: BTreeSet<IfName> = candidates.iter().map(|candidate| candidate.nic.clone()).collect();
    let mut used: Vec<IpAddr> = Vec::new();
    let (mut steps, mut failures) = (Vec::with_capacity(candidates.len()), Vec::new());
    for candidate in candidates {
        let place =
            |h: &Holding| candidate.pools.iter().position(|pool| *pool == h.pool).unwrap_or(usize::MAX);
        let of_candidate = |all: &[H]| {
            let same = all.iter().filter(|h| {
                let holding = h.as_ref();
                holding.nic == candidate.nic && holding.family() == candidate.family
            });
            let mut same: Vec<H> = same.cloned().collect();
            same.sort_by_key(|h| (place(h.as_ref()), h.as_ref().ip()));
            same
        };
        if let Some(held) = of_candidate(held).into_iter().next() {
            used.push(held.as_ref().ip());
            steps.push(AllocationStep::Keep { held, candidate });
            continue;
        }
        if let Some(shared) = of_candidate(shared).into_iter().next() {
            steps.push(AllocationStep::Share { shared, candidate });
            continue;
        }
        let mut again = Ok(None);
        for one in of_candidate(kept) {
            match may_keep(&candidate, &one) {
                Ok(false) => {}
                Ok(true) => again = Ok(Some(one)),
                Err(failure) => again = Err(failure),
            }
            if !matches!(again, Ok(None)) {
                break;
            }
        }
        match again {
            Ok(Some(kept)) => {
                used.push(kept.as_ref().ip());
                steps.push(AllocationStep::TakeOver { kept, candidate });
            }
            Ok(None) => match find_pools(&candidate) {
                Ok(pools) => steps.push(AllocationStep::Allocate { candidate, pools }),
                Err(failure) => failures.push(failure),
            },
            Err(failure) => failures.push(failure),
        }
    }
    if !failures.is_empty() {
        return Err(failures);
    }
    let is_unwanted = |h: &&H| {
        let holding: &Holding = (*h).as_ref();
        served.contains(&holding.nic) && !used.contains(&holding.ip())
    };
    let is_of_nic = |h: &&H| (*h).as_ref().nic == *adding;
    let surplus = held.iter().filter(is_of_nic).filter(is_unwanted).cloned().collect();
    Ok(AllocationPlan { steps, surplus, outdated: kept.iter().filter(is_unwanted).cloned().collect() })
}

/// The pool of an address that a pod holds, from what the API server has of it. Without it the NIC would come up with
/// neither gateway nor routes.
pub fn pool_of_held(held: &Holding, entry: Option<PoolEntry>) -> Result<Arc<Pool>, IpamError> {
    let (nic, address) = (held.nic.clone(), held.address);
    match entry.map(|entry| entry.spec) {
        Some(Ok(pool)) => Ok(pool),
        Some(Err(error)) => Err(IpamError::HeldPoolInvalid { error, nic, address }),
        None => Err(IpamError::HeldPoolMissing { pool: held.pool.clone(), nic, address }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ip::{Family, IpSet};
    use crate::ipam::DefaultRoute;
    use crate::ipam::holding::tests::holding;
    use crate::ipam::pick::{PickContext, pick};
    use crate::ipam::pool::{Pool, PoolFields};

    fn candidate(nic: &str, family: Family, pools: &[&str]) -> PoolCandidates {
        PoolCandidates {
            named_by: crate::ipam::PoolSource::ClusterDefault,
            nic: nic.parse().unwrap(),
            family,
            pools: pools.iter().map(|p| p.parse().unwrap()).collect(),
            wildcards: Vec::new(),
            default_route: DefaultRoute::Keep,
        }
    }

    fn held(nic: &str, address: &str, pool: &str) -> Holding {
        let prefix = if address.contains(':') { 64 } else { 16 };
        holding(nic, &format!("{address}/{prefix}"), pool, "u")
    }

    fn plan(candidates: &[PoolCandidates], held: &[Holding], adding: &str) -> AllocationPlan<Holding> {
        let adding = adding.parse().unwrap();
        let plan = plan_allocation(
            candidates.to_vec(),
            &holds(held),
            &adding,
            |_, _| Ok(true),
            |_| Ok::<_, ()>(Vec::new()),
        );
        plan.unwrap()
    }

    fn holds(held: &[Holding]) -> PodAddresses<Holding> {
        PodAddresses { held: held.to_vec(), kept: Vec::new(), shared: Vec::new() }
    }

    fn texts(plan: &AllocationPlan<Holding>) -> (Vec<String>, Vec<String>) {
        let step = |step: &AllocationStep<Holding>| match step {
            AllocationStep::Keep { candidate, held } => {
                format!("{} {} keep {}", candidate.nic, candidate.family, held.ip())
            }
            AllocationStep::TakeOver { candidate, kept } => {
                format!("{} {} again {}", candidate.nic, candidate.family, kept.ip())
            }
            AllocationStep::Share { candidate, shared } => {
                format!("{} {} share {}", candidate.nic, candidate.family, shared.ip())
            }
            AllocationStep::Allocate { candidate: c, .. } => {
                format!("{} {} from {}", c.nic, c.family, c.pools[0])
            }
        };
        (plan.steps.iter().map(step).collect(), plan.surplus.iter().map(|h| h.ip().to_string()).collect())
    }

    #[track_caller]
    fn check(candidates: &[PoolCandidates], held: &[Holding], steps: &[&str], surplus: &[&str]) {
        let (got_steps, got_surplus) = texts(&plan(candidates, held, "eth0"));
        assert_eq!(
            (got_steps, got_surplus),
            (
                steps.iter().map(ToString::to_string).collect(),
                surplus.iter().map(ToString::to_string).collect(),
            )
        );
    }

    #[test]
    fn a_repeated_add_keeps_what_is_there() {
        let wanted = [candidate("eth0", Family::V4, &["a"]), candidate("eth0", Family::V6, &["b"])];
        check(&wanted, &[], &["eth0 IPv4 from a", "eth0 IPv6 from b"], &[]);
        let half = [held("eth0", "10.6.0.9", "a")];
        check(&wanted, &half, &["eth0 IPv4 keep 10.6.0.9", "eth0 IPv6 from b"], &[]);
        let all = [held("eth0", "fd06::9", "b"), held("eth0", "10.6.0.9", "a")];
        check(&wanted, &all, &["eth0 IPv4 keep 10.6.0.9", "eth0 IPv6 keep fd06::9"], &[]);
    }

    #[test]
    fn other_nics_are_left_alone() {
        let wanted = [candidate("net1", Family::V4, &["a"])];
        check(&wanted, &[held("eth0", "10.6.0.9", "a")], &["net1 IPv4 from a"], &[]);
    }

    #[test]
    fn an_attempt_that_broke_off_leaves_a_surplus() {
        let wanted = [candidate("eth0", Family::V4, &["a", "b"])];
        let both =
            [held("eth0", "10.6.0.9", "b"), held("eth0", "10.6.0.10", "a"), held("eth0", "fd06::9", "c")];
        check(&wanted, &both, &["eth0 IPv4 keep 10.6.0.10"], &["10.6.0.9", "fd06::9"]);
    }

    #[test]
    fn the_surplus_of_a_nic_waits_for_its_own_add() {
        let wanted = [candidate("eth0", Family::V4, &["a"]), candidate("net1", Family::V4, &["a"])];
        let holds =
            [held("eth0", "10.6.0.9", "a"), held("net1", "10.6.0.10", "a"), held("net1", "10.6.0.11", "a")];
        check(&wanted, &holds, &["eth0 IPv4 keep 10.6.0.9", "net1 IPv4 keep 10.6.0.10"], &[]);
        let surplus = plan(&wanted, &holds, "net1").surplus;
        assert_eq!(surplus, [held("net1", "10.6.0.11", "a")]);
    }

    #[test]
    fn an_address_of_a_pool_that_is_not_named_any_more_is_kept() {
        let wanted = [candidate("eth0", Family::V4, &["new"])];
        check(&wanted, &[held("eth0", "10.6.0.9", "old")], &["eth0 IPv4 keep 10.6.0.9"], &[]);
    }

    #[track_caller]
    fn check_kept(
        wanted: &[PoolCandidates],
        held: &[Holding],
        kept: &[Holding],
        steps: &[&str],
        outdated: &[&str],
    ) {
        let adding = "eth0".parse().unwrap();
        let may_keep = |candidate: &PoolCandidates, kept: &Holding| Ok(candidate.pools.contains(&kept.pool));
        let addresses = PodAddresses { kept: kept.to_vec(), ..holds(held) };
        let plan =
            plan_allocation(wanted.to_vec(), &addresses, &adding, may_keep, |_| Ok::<_, ()>(Vec::new()))
                .unwrap();
        assert_eq!(texts(&plan).0, steps);
        assert_eq!(plan.outdated.iter().map(|h| h.ip().to_string()).collect::<Vec<_>>(), outdated);
    }

    /// Upstream's case A00017; where upstream names NICs by numbers, it loses the address at each restart.
    #[test]
    fn what_was_kept_is_taken_over_unless_its_pool_is_not_named_any_more() {
        let wanted = [
            candidate("eth0", Family::V4, &["a", "b"]),
            candidate("eth0", Family::V6, &["c"]),
            candidate("net1", Family::V4, &["a"]),
        ];
        let kept = [
            held("eth0", "10.6.0.9", "b"),
            held("eth0", "fd06::9", "old"),
            held("net1", "10.6.0.10", "old"),
            held("net2", "10.6.0.11", "a"),
        ];
        let steps = ["eth0 IPv4 again 10.6.0.9", "eth0 IPv6 from c", "net1 IPv4 from a"];
        check_kept(&wanted, &[], &kept, &steps, &["fd06::9", "10.6.0.10"]);
        // An ADD that broke off has taken it, or another one, already.
        let first = [held("eth0", "10.6.0.12", "a")];
        let steps = ["eth0 IPv4 keep 10.6.0.12", "eth0 IPv6 from c", "net1 IPv4 from a"];
        check_kept(&wanted, &first, &kept, &steps, &["10.6.0.9", "fd06::9", "10.6.0.10"]);
    }

    #[test]
    fn what_a_machine_that_is_moving_has_is_shared_and_never_freed() {
        let wanted = [candidate("eth0", Family::V4, &["a"]), candidate("eth0", Family::V6, &["c"])];
        let shared = vec![held("eth0", "10.6.0.9", "not-named-any-more"), held("eth0", "10.6.0.10", "a")];
        let addresses = PodAddresses { shared, ..holds(&[]) };
        let never = |_: &PoolCandidates, _: &Holding| -> Result<bool, ()> { panic!("nothing is kept") };
        let plan =
            plan_allocation(wanted.to_vec(), &addresses, &"eth0".parse().unwrap(), never, |_| Ok(Vec::new()));
        let plan = plan.unwrap();
        assert_eq!(texts(&plan).0, ["eth0 IPv4 share 10.6.0.10", "eth0 IPv6 from c"]);
        assert_eq!((plan.surplus, plan.outdated), (vec![], vec![]));
    }

    /// Upstream's records have no NIC, so there the second NIC is given the address of the first.
    #[test]
    fn two_nics_drawing_from_one_pool_get_different_addresses() {
        let ips = ["10.6.0.1-10.6.0.2".to_owned()];
        let fields = PoolFields { name: "a", subnet: "10.6.0.0/16", ips: &ips, ..PoolFields::default() };
        let pool = Pool::parse(&fields).unwrap();
        let wanted = [candidate("eth0", Family::V4, &["a"]), candidate("net1", Family::V4, &["a"])];
        let mut in_use = IpSet::empty(Family::V4);
        let mut holds: Vec<Holding> = Vec::new();
        for round in 0..2 {
            for step in plan(&wanted, &holds, "eth0").steps {
                let AllocationStep::Allocate { candidate, .. } = step else { continue };
                assert_eq!(round, 0, "the second ADD must keep both");
                let context = PickContext {
                    node: "n",
                    pod_uid: "u",
                    nic: candidate.nic.as_str(),
                    pool: "a",
                    attempt: 0,
                };
                let none = IpSet::empty(Family::V4);
                let address = pick(&pool.free(&none, &in_use), &none, context.seed()).unwrap();
                in_use.insert(address);
                holds.push(held(candidate.nic.as_str(), &address.to_string(), pool.name.as_str()));
            }
        }
        assert_eq!(holds.len(), 2);
        assert_ne!(holds[0].address, holds[1].address);
        assert_eq!(in_use.len(), 2);
    }

    #[test]
    fn pools_are_asked_for_what_is_lacking_only_and_all_failures_are_said() {
        let wanted = ["eth0", "net1", "net2"].map(|nic| candidate(nic, Family::V4, &["a"]));
        let holds = [held("eth0", "10.6.0.9", "a")];
        let failures = plan_allocation(
            wanted.to_vec(),
            &tests::holds(&holds),
            &"eth0".parse().unwrap(),
            |_, _| Ok(true),
            |candidate| Err::<Vec<Arc<Pool>>, _>(candidate.nic.to_string()),
        );
        assert_eq!(failures, Err(vec!["net1".to_owned(), "net2".to_owned()]));
    }

    /// The NIC came up without gateway and routes.
    #[test]
    fn a_held_address_whose_pool_is_missing_or_invalid_is_refused_with_its_name() {
        let held = held("net1", "10.6.0.9", "p");
        let entry = |subnet| {
            let spec = Pool::parse(&PoolFields { name: "p", subnet, ..PoolFields::default() });
            PoolEntry { spec: spec.map(Arc::new).map_err(Arc::new), terminating: true, conflict: None }
        };
        assert!(pool_of_held(&held, Some(entry("10.6.0.0/16"))).is_ok());
        let text = |entry| pool_of_held(&held, entry).unwrap_err().to_string();
        assert_eq!(
            text(None),
            "failed to get original IPPool p: it does not exist, but NIC net1 holds its address 10.6.0.9/16: create \
             it again, or delete the Pod"
        );
        assert_eq!(
            text(Some(entry("x"))),
            "IPPool p is invalid: spec.subnet: \"x\" is not a network in CIDR form: NIC net1 holds its address \
             10.6.0.9/16"
        );
    }

    proptest! {
        /// Nothing is both kept and freed, nothing is kept twice, and nothing that is wanted is forgotten.
        #[test]
        fn plans_are_consistent(
            wanted in proptest::collection::btree_set((0u8..3, any::<bool>()), 0..6),
            holds in proptest::collection::btree_map((any::<bool>(), 0u8..20), (0u8..3, 0u8..3), 0..10),
        ) {
            let family = |v6: bool| if v6 { Family::V6 } else { Family::V4 };
            let candidates: Vec<_> =
                wanted.iter().map(|(nic, v6)| candidate(&format!("net{nic}"), family(*v6), &["p0", "p1"])).collect();
            let holds: Vec<_> = holds
                .iter()
                .map(|((v6, number), (nic, pool))| {
                    let address = family(*v6).addr(0x0a00_0000 + u128::from(*number));
                    held(&format!("net{nic}"), &address.to_string(), &format!("p{pool}"))
                })
                .collect();
            let plan = plan(&candidates, &holds, "net0");
            prop_assert_eq!(plan.steps.len(), candidates.len());
            let kept: Vec<_> = plan.steps.iter().filter_map(|step| match step {
                AllocationStep::Keep { held, .. } => Some(held.clone()),
                AllocationStep::TakeOver { .. } | AllocationStep::Share { .. } => panic!("nothing was kept"),
                AllocationStep::Allocate { candidate: c, .. } => {
                    assert!(!holds.iter().any(|h| h.nic == c.nic && h.family() == c.family));
                    None
                }
            }).collect();
            for (index, held) in kept.iter().enumerate() {
                prop_assert!(!plan.surplus.contains(held) && !kept[..index].contains(held));
            }
            for held in &holds {
                let spoken_of = candidates.iter().any(|c| c.nic == held.nic);
                prop_assert!(spoken_of || !kept.contains(held));
                let may_go = spoken_of && held.nic.as_str() == "net0" && !kept.contains(held);
                prop_assert_eq!(may_go, plan.surplus.contains(held));
            }
        }
    }
}
