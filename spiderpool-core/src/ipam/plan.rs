//! What an ADD has to do, given what the pod holds already. Running it twice changes nothing the second time.

use std::net::IpAddr;

use super::candidates::Candidate;
use crate::ip::Family;
use crate::names::{IfName, PoolName};

/// An address that the pod holds. It is the pod's by its UID; NIC and family say what it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The NIC it was given to.
    pub nic: IfName,
    /// The address.
    pub address: IpAddr,
    /// The pool it came from.
    pub pool: PoolName,
}

/// What happens for one NIC and family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// The pod holds this address; it stays.
    Keep {
        /// What is wanted.
        candidate: Candidate,
        /// What the pod holds.
        held: Held,
    },
    /// An address must be found.
    Allocate(Candidate),
}

/// What an ADD has to do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllocationPlan {
    /// One step per NIC and family, in the order of the candidates.
    pub steps: Vec<Step>,
    /// Addresses of the NIC that is being added which nothing wants; to be freed once all steps have succeeded,
    /// never before. Those of another NIC wait for its own ADD: it may be up with any of them.
    pub surplus: Vec<Held>,
}

/// Compares what is wanted with what the pod holds, while the NIC `adding` is being added.
///
/// An address is kept although its pool is disabled or not named any more: the pod may be using it. Of two for the
/// same NIC and family (left by an attempt that broke off) the one from the pool that is named first is kept.
/// Addresses of NICs that no candidate speaks of are left alone.
pub fn plan_allocation(candidates: &[Candidate], held: &[Held], adding: &str) -> AllocationPlan {
    let mut plan = AllocationPlan::default();
    let mut kept: Vec<IpAddr> = Vec::new();
    for candidate in candidates {
        let place = |h: &&Held| candidate.pools.iter().position(|pool| *pool == h.pool).unwrap_or(usize::MAX);
        let best = held
            .iter()
            .filter(|h| h.nic == candidate.nic && Family::of(h.address) == candidate.family)
            .min_by_key(|h| (place(h), h.address));
        plan.steps.push(match best {
            Some(held) => {
                kept.push(held.address);
                Step::Keep { candidate: candidate.clone(), held: held.clone() }
            }
            None => Step::Allocate(candidate.clone()),
        });
    }
    let spoken_of = candidates.iter().any(|candidate| candidate.nic.as_str() == adding);
    let is_surplus = |h: &&Held| spoken_of && h.nic.as_str() == adding && !kept.contains(&h.address);
    plan.surplus = held.iter().filter(is_surplus).cloned().collect();
    plan
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ip::IpSet;
    use crate::ipam::candidates::DefaultRoute;
    use crate::ipam::pick::{Asker, pick};
    use crate::ipam::pool::{Pool, PoolFields};

    fn candidate(nic: &str, family: Family, pools: &[&str]) -> Candidate {
        Candidate {
            nic: nic.parse().unwrap(),
            family,
            pools: pools.iter().map(|p| p.parse().unwrap()).collect(),
            default_route: DefaultRoute::Keep,
        }
    }

    fn held(nic: &str, address: &str, pool: &str) -> Held {
        Held { nic: nic.parse().unwrap(), address: address.parse().unwrap(), pool: pool.parse().unwrap() }
    }

    fn texts(plan: &AllocationPlan) -> (Vec<String>, Vec<String>) {
        let step = |step: &Step| match step {
            Step::Keep { candidate, held } => {
                format!("{} {} keep {}", candidate.nic, candidate.family, held.address)
            }
            Step::Allocate(c) => format!("{} {} from {}", c.nic, c.family, c.pools[0]),
        };
        (plan.steps.iter().map(step).collect(), plan.surplus.iter().map(|h| h.address.to_string()).collect())
    }

    #[track_caller]
    fn check(candidates: &[Candidate], held: &[Held], steps: &[&str], surplus: &[&str]) {
        let (got_steps, got_surplus) = texts(&plan_allocation(candidates, held, "eth0"));
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
        let surplus = plan_allocation(&wanted, &holds, "net1").surplus;
        assert_eq!(surplus, [held("net1", "10.6.0.11", "a")]);
    }

    #[test]
    fn an_address_of_a_pool_that_is_not_named_any_more_is_kept() {
        let wanted = [candidate("eth0", Family::V4, &["new"])];
        check(&wanted, &[held("eth0", "10.6.0.9", "old")], &["eth0 IPv4 keep 10.6.0.9"], &[]);
    }

    /// Upstream's records have no NIC, so there the second NIC is given the address of the first.
    #[test]
    fn two_nics_drawing_from_one_pool_get_different_addresses() {
        let ips = ["10.6.0.1-10.6.0.2".to_owned()];
        let fields = PoolFields { name: "a", subnet: "10.6.0.0/16", ips: &ips, ..PoolFields::default() };
        let pool = Pool::parse(&fields).unwrap();
        let wanted = [candidate("eth0", Family::V4, &["a"]), candidate("net1", Family::V4, &["a"])];
        let mut in_use = IpSet::empty(Family::V4);
        let mut holds: Vec<Held> = Vec::new();
        for round in 0..2 {
            for step in plan_allocation(&wanted, &holds, "eth0").steps {
                let Step::Allocate(candidate) = step else { continue };
                assert_eq!(round, 0, "the second ADD must keep both");
                let asker =
                    Asker { node: "n", pod_uid: "u", nic: candidate.nic.as_str(), pool: "a", attempt: 0 };
                let none = IpSet::empty(Family::V4);
                let address = pick(&pool.free(&none, &in_use), &none, asker.seed()).unwrap();
                in_use.insert(address);
                holds.push(Held { nic: candidate.nic, address, pool: pool.name.clone() });
            }
        }
        assert_eq!(holds.len(), 2);
        assert_ne!(holds[0].address, holds[1].address);
        assert_eq!(in_use.len(), 2);
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
                .map(|((v6, number), (nic, pool))| Held {
                    nic: format!("net{nic}").parse().unwrap(),
                    address: family(*v6).addr(0x0a00_0000 + u128::from(*number)),
                    pool: format!("p{pool}").parse().unwrap(),
                })
                .collect();
            let plan = plan_allocation(&candidates, &holds, "net0");
            prop_assert_eq!(plan.steps.len(), candidates.len());
            let kept: Vec<_> = plan.steps.iter().filter_map(|step| match step {
                Step::Keep { held, .. } => Some(held.clone()),
                Step::Allocate(c) => {
                    assert!(!holds.iter().any(|h| h.nic == c.nic && Family::of(h.address) == c.family));
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
