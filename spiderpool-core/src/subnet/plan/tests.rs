use proptest::prelude::*;

use super::*;
use crate::ip::{Family, IpRange};
use crate::ipam::pool::PoolFields;
use crate::subnet::labels::{IPPOOL_RECLAIM, OWNER_APPLICATION_UID, OWNER_SUBNET};

fn set(ranges: &[&str]) -> IpSet {
    IpSet::from_ranges(Family::V4, ranges.iter().map(|range| range.parse().unwrap()))
}

fn texts(set: &IpSet) -> String {
    set.ranges().map(|range| range.to_string()).collect::<Vec<_>>().join(",")
}

fn subnet(ips: &str) -> Subnet {
    let ips = [ips.to_owned()];
    let fields = PoolFields { name: "s1", subnet: "10.6.0.0/24", ips: &ips, ..PoolFields::default() };
    Subnet::parse(&fields).unwrap()
}

fn wanted(name: &str, size: PoolSize, pods: u32) -> WantedPool {
    let application = Application::new("apps/v1", "Deployment", "ns1", name);
    let (uid, nic) = ("a-b-11111".to_owned(), "eth0".parse().unwrap());
    let purpose = PoolPurpose { application, uid, nic, family: Family::V4 };
    WantedPool { purpose, size, pods: Some(pods), reclaim: true }
}

/// The pool as it is when it was made as planned.
fn made(pool: &AutoPool) -> Member {
    Member {
        name: pool.name.clone(),
        usable: pool.ips.clone(),
        used: IpSet::empty(Family::V4),
        labels: pool.labels.clone(),
        size: Some(pool.size.clone()),
        controller: Controller::Subnet,
        terminating: false,
    }
}

fn made_by_hand(name: &str, ips: &[&str], controller: Controller) -> Member {
    let (name, labels) = (name.parse().unwrap(), BTreeMap::new());
    let pool = AutoPool { name, ips: set(ips), labels, size: String::new() };
    Member { controller, ..made(&pool) }
}

/// As the API server would have it after the steps; applications of third parties are alive.
fn apply(members: &mut Vec<Member>, plan: &SubnetPlan) {
    for step in &plan.steps {
        match step {
            Step::Create { pool, .. } => members.push(made(pool)),
            Step::Update(pool) => {
                let member = members.iter_mut().find(|member| member.name == pool.name).unwrap();
                let used = member.used.clone();
                let labels = member.labels.clone().into_iter().chain(pool.labels.clone()).collect();
                *member = Member { used, labels, ..made(pool) };
            }
            Step::Adopt(pool) => {
                let member = members.iter_mut().find(|member| member.name == *pool).unwrap();
                member.controller = Controller::Subnet;
                member.labels.insert(OWNER_SUBNET.to_owned(), "s1".to_owned());
            }
            Step::DeleteUnlessWanted { pool, application, .. } => {
                if application.group == "apps" {
                    members.retain(|member| member.name != *pool);
                }
            }
        }
    }
}

/// A subnet of 10.6.0.1-10.6.0.9, of which .4 is reserved.
struct Cluster {
    subnet: Subnet,
    records: ControlledPools,
    members: Vec<Member>,
    elsewhere: IpSet,
    undecided: BTreeSet<String>,
    terminating: bool,
}

impl Cluster {
    fn new() -> Self {
        let (records, members) = (ControlledPools::default(), Vec::new());
        let (subnet, elsewhere) = (subnet("10.6.0.1-10.6.0.9"), IpSet::empty(Family::V4));
        Self { subnet, records, members, elsewhere, undecided: BTreeSet::new(), terminating: false }
    }

    fn plan(&self, wanted: &[WantedPool]) -> SubnetPlan {
        let in_use = self.members.iter().fold(self.elsewhere.clone(), |all, member| all.union(&member.used));
        let state = SubnetState {
            subnet: &self.subnet,
            records: &self.records,
            terminating: self.terminating,
            members: &self.members,
            wanted,
            undecided: &self.undecided,
            reserved: &set(&["10.6.0.4"]),
            in_use: &in_use,
        };
        plan_subnet(&state, |name| self.members.iter().any(|member| member.name.as_str() == name))
    }

    /// Carries it out; then nothing more is to be done.
    #[track_caller]
    fn reconcile(&mut self, wanted: &[WantedPool]) -> SubnetPlan {
        let plan = self.plan(wanted);
        self.records = plan.records.clone();
        apply(&mut self.members, &plan);
        let again = self.plan(wanted);
        let is_question = |step: &Step| matches!(step, Step::DeleteUnlessWanted { .. });
        assert!(again.steps.iter().all(is_question), "{:?}", again.steps);
        plan
    }

    fn has(&self) -> Vec<String> {
        self.members.iter().map(|member| format!("{} {}", member.name, texts(&member.usable))).collect()
    }

    fn uses(&mut self, index: usize, addresses: &[&str]) {
        self.members[index].used = set(addresses);
    }
}

fn causes(plan: &SubnetPlan) -> Vec<String> {
    plan.problems.iter().map(|problem| problem.cause.to_string()).collect()
}

#[test]
fn a_pool_is_made_grows_shrinks_and_goes_with_its_application() {
    let mut cluster = Cluster::new();
    let of = |pods| [wanted("web", PoolSize::Flexible(1), pods)];
    cluster.reconcile(&of(1));
    assert_eq!(cluster.has(), ["auto4-web-eth0-11111 10.6.0.1-10.6.0.2"]);
    assert_eq!(cluster.members[0].size.as_deref(), Some("+1"));
    let record = &cluster.records.0["auto4-web-eth0-11111"];
    assert_eq!(record.application.as_ref().unwrap().to_string(), "apps_v1_Deployment_ns1_web");
    cluster.reconcile(&of(4));
    assert_eq!(cluster.has(), ["auto4-web-eth0-11111 10.6.0.1-10.6.0.3,10.6.0.5-10.6.0.6"]);
    cluster.uses(0, &["10.6.0.2", "10.6.0.6"]);
    cluster.reconcile(&of(1));
    assert_eq!(cluster.has(), ["auto4-web-eth0-11111 10.6.0.2,10.6.0.6"]);
    let plan = cluster.reconcile(&[]);
    assert!(plan.steps.is_empty() && plan.waiting.len() == 1, "its pods are still there: {plan:?}");
    cluster.uses(0, &[]);
    cluster.undecided.insert("a-b-11111".to_owned());
    assert!(cluster.reconcile(&[]).steps.is_empty(), "nobody knows what it wants");
    cluster.undecided.clear();
    cluster.reconcile(&[]);
    assert_eq!((cluster.has(), cluster.plan(&[]).records.text()), (Vec::new(), None));
}

#[test]
fn a_pool_that_is_in_use_shrinks_when_its_pods_are_gone() {
    let mut cluster = Cluster::new();
    cluster.reconcile(&[wanted("web", PoolSize::Flexible(0), 2)]);
    cluster.uses(0, &["10.6.0.1", "10.6.0.2"]);
    let less = [wanted("web", PoolSize::Flexible(0), 1)];
    let plan = cluster.reconcile(&less);
    assert_eq!((plan.steps.len(), plan.waiting.len()), (0, 1));
    assert!(causes(&plan)[0].contains("2 of its addresses are in use"), "{:?}", causes(&plan));
    cluster.uses(0, &["10.6.0.2"]);
    cluster.reconcile(&less);
    assert_eq!(cluster.has(), ["auto4-web-eth0-11111 10.6.0.2"]);
}

/// I00020, and what the addresses of one application may not be: another's, reserved, or in use out of its pool.
#[test]
fn pools_share_no_address_and_say_when_none_are_left() {
    let mut cluster = Cluster::new();
    cluster.elsewhere = set(&["10.6.0.1"]);
    let [a, b, c] = [("a", 3), ("b", 3), ("c", 2)].map(|(name, n)| wanted(name, PoolSize::Fixed(n), 9));
    let plan = cluster.reconcile(&[a.clone(), b.clone(), c.clone()]);
    assert_eq!(
        cluster.has(),
        ["auto4-a-eth0-11111 10.6.0.2-10.6.0.3,10.6.0.5", "auto4-b-eth0-11111 10.6.0.6-10.6.0.8"]
    );
    assert!(causes(&plan)[0].contains("required '2' but only left '1'"), "{:?}", causes(&plan));
    // The addresses of a pool that goes are there when it is gone.
    let wanted = [b, c];
    assert_eq!(cluster.plan(&wanted).problems.len(), 1);
    cluster.members.remove(0);
    cluster.reconcile(&wanted);
    assert_eq!(
        cluster.has(),
        ["auto4-b-eth0-11111 10.6.0.6-10.6.0.8", "auto4-c-eth0-11111 10.6.0.2-10.6.0.3"]
    );
}

/// I00015, I00016 and I00019.
#[test]
fn a_pool_that_stays_is_taken_again_by_an_application_of_the_same_name_and_kind() {
    let mut cluster = Cluster::new();
    let kept = WantedPool { reclaim: false, ..wanted("web", PoolSize::Fixed(2), 1) };
    cluster.reconcile(std::slice::from_ref(&kept));
    assert!(cluster.reconcile(&[]).steps.is_empty());
    let mut other = kept.clone();
    other.purpose.application.kind = "StatefulSet".to_owned();
    other.purpose.uid = "a-b-22222".to_owned();
    cluster.reconcile(std::slice::from_ref(&other));
    assert_eq!(cluster.has()[1], "auto4-web-eth0-22222 10.6.0.3,10.6.0.5", "not the other kind's");
    let mut again = WantedPool { reclaim: true, ..kept };
    again.purpose.uid = "a-b-33333".to_owned();
    cluster.reconcile(&[again, other.clone()]);
    assert_eq!(cluster.has()[0], "auto4-web-eth0-11111 10.6.0.1-10.6.0.2");
    assert_eq!(cluster.members[0].labels[OWNER_APPLICATION_UID], "a-b-33333");
    assert_eq!(cluster.members[0].labels[IPPOOL_RECLAIM], "true");
    cluster.reconcile(&[other]);
    assert_eq!(cluster.has().len(), 1, "it goes with the one that says so");
}

#[test]
fn a_pool_of_an_earlier_application_serves_no_later_one_and_goes() {
    let mut cluster = Cluster::new();
    cluster.reconcile(&[wanted("web", PoolSize::Fixed(1), 1)]);
    cluster.uses(0, &["10.6.0.1"]);
    let mut later = wanted("web", PoolSize::Fixed(1), 1);
    later.purpose.uid = "a-b-22222".to_owned();
    cluster.reconcile(std::slice::from_ref(&later));
    assert_eq!(cluster.has(), ["auto4-web-eth0-11111 10.6.0.1", "auto4-web-eth0-22222 10.6.0.2"]);
    cluster.uses(0, &[]);
    cluster.reconcile(&[later]);
    assert_eq!(cluster.has(), ["auto4-web-eth0-22222 10.6.0.2"]);
}

#[test]
fn a_name_that_is_taken_gets_an_end_and_two_that_are_taken_are_a_problem() {
    let mut cluster = Cluster::new();
    let wanted = wanted("web", PoolSize::Fixed(1), 1);
    cluster.members.push(made_by_hand("auto4-web-eth0-11111", &[], Controller::Subnet));
    cluster.reconcile(std::slice::from_ref(&wanted));
    let name = cluster.members[1].name.to_string();
    assert!(name.starts_with("auto4-web-eth0-11111-") && name.len() == 29, "{name}");
    cluster.members[1] = made_by_hand(&name, &[], Controller::Subnet);
    let plan = cluster.reconcile(&[wanted]);
    assert!(causes(&plan)[0].contains("whose names its own may have, are others'"), "{:?}", causes(&plan));
}

/// T00002: nobody tells of their deletion.
#[test]
fn applications_of_third_parties_have_a_fixed_number_and_are_asked_for() {
    let mut cluster = Cluster::new();
    let mut clones = wanted("web", PoolSize::Flexible(1), 0);
    clones.purpose.application = Application::new("apps.kruise.io/v1alpha1", "CloneSet", "ns1", "web");
    clones.pods = None;
    let plan = cluster.reconcile(std::slice::from_ref(&clones));
    assert!(causes(&plan)[0].contains("only supports fixed auto-created IPPool IP Number"), "{plan:?}");
    clones.size = PoolSize::Fixed(2);
    cluster.reconcile(std::slice::from_ref(&clones));
    assert_eq!(cluster.has(), ["auto4-web-eth0-11111 10.6.0.1-10.6.0.2"]);
    let plan = cluster.reconcile(&[]);
    let PoolPurpose { application, uid, .. } = clones.purpose.clone();
    let pool = cluster.members[0].name.clone();
    assert_eq!(plan.steps, [Step::DeleteUnlessWanted { pool, application, uid }]);
    clones.size = PoolSize::Flexible(1);
    let plan = cluster.reconcile(&[clones]);
    assert_eq!(plan.records.0.len(), 1, "what it has stays recorded");
}

#[test]
fn pools_of_others_are_adopted_and_recorded_as_far_as_the_subnet_has_their_addresses() {
    let mut cluster = Cluster::new();
    cluster.members = vec![
        made_by_hand("a", &["10.6.0.8-10.6.0.12"], Controller::None),
        made_by_hand("b", &["10.6.0.20"], Controller::None),
        made_by_hand("c", &["10.6.0.1"], Controller::Other),
    ];
    cluster.terminating = true;
    assert!(cluster.plan(&[]).steps.is_empty(), "they would go with the subnet");
    cluster.terminating = false;
    let plan = cluster.reconcile(&[wanted("web", PoolSize::Fixed(1), 1)]);
    let adopted = plan.steps.iter().filter(|step| matches!(step, Step::Adopt(_))).count();
    assert_eq!((adopted, cluster.has()[3].as_str()), (2, "auto4-web-eth0-11111 10.6.0.2"));
    let records = cluster.records.0.iter().map(|(name, pool)| format!("{name} {}", texts(&pool.ips)));
    assert_eq!(
        records.collect::<Vec<_>>(),
        ["a 10.6.0.8-10.6.0.9", "auto4-web-eth0-11111 10.6.0.2", "c 10.6.0.1"]
    );
}

/// The controller has ended between the two writes.
#[test]
fn a_pool_that_is_recorded_and_not_made_gets_what_is_recorded() {
    let mut cluster = Cluster::new();
    let [a, b] = ["a", "b"].map(|name| wanted(name, PoolSize::Fixed(2), 1));
    cluster.records = cluster.plan(&[a.clone(), b.clone()]).records;
    // Somebody else has one by now.
    cluster.elsewhere = set(&["10.6.0.3"]);
    cluster.reconcile(&[a, b]);
    assert_eq!(
        cluster.has(),
        ["auto4-a-eth0-11111 10.6.0.1-10.6.0.2", "auto4-b-eth0-11111 10.6.0.5-10.6.0.6"]
    );
}

/// It may be there already, or be made in this moment by a leader that does not know yet that it is none.
#[test]
fn what_is_recorded_for_a_pool_is_given_to_no_other() {
    let mut cluster = Cluster::new();
    let [a, b] = ["a", "b"].map(|name| wanted(name, PoolSize::Fixed(2), 1));
    cluster.records = cluster.plan(std::slice::from_ref(&b)).records;
    let records = |plan: &SubnetPlan| {
        plan.records.0.iter().map(|(name, pool)| format!("{name} {}", texts(&pool.ips))).collect::<Vec<_>>()
    };
    let both = cluster.plan(&[a.clone(), b.clone()]);
    let [pool_a, pool_b] = ["auto4-a-eth0-11111", "auto4-b-eth0-11111"];
    assert_eq!(
        records(&both),
        [format!("{pool_a} 10.6.0.3,10.6.0.5"), format!("{pool_b} 10.6.0.1-10.6.0.2")]
    );
    // It was to grow.
    cluster.reconcile(std::slice::from_ref(&b));
    cluster.records = cluster.plan(&[WantedPool { size: PoolSize::Fixed(3), ..b.clone() }]).records;
    assert_eq!(records(&cluster.plan(&[a.clone(), b.clone()]))[0], format!("{pool_a} 10.6.0.5-10.6.0.6"));
    // Then it is not, and what was for it is free.
    cluster.reconcile(std::slice::from_ref(&b));
    assert_eq!(records(&cluster.plan(&[a, b]))[0], format!("{pool_a} 10.6.0.3,10.6.0.5"));
}

/// A leader sees its own writes late: pools as its watch has them, and as they are those that have less than the status says.
struct Lagging {
    cluster: Cluster,
    seen: Vec<Member>,
}

impl Lagging {
    /// Plans, and carries out the first `steps` of what is planned as the API server does.
    fn reconcile(&mut self, wanted: &[WantedPool], steps: usize) {
        let actual = std::mem::take(&mut self.cluster.members);
        let find = |members: &[Member], name: &str| {
            members.iter().find(|member| member.name.as_str() == name).cloned()
        };
        let mut known = self.seen.clone();
        let usable = |name: &str| {
            self.seen.iter().find(|member| member.name.as_str() == name).map(|member| &member.usable)
        };
        for name in self.cluster.records.behind(usable) {
            if let Some(now) = find(&actual, &name) {
                known.retain(|member| member.name != now.name);
                known.push(now);
            }
        }
        self.cluster.members = known;
        let mut plan = self.cluster.plan(wanted);
        self.cluster.records = plan.records.clone();
        plan.steps.truncate(steps);
        let known = std::mem::replace(&mut self.cluster.members, actual);
        plan.steps.retain(|step| match step {
            Step::Create { pool, .. } => find(&self.cluster.members, pool.name.as_str()).is_none(),
            Step::Update(pool) => {
                let [known, now] =
                    [&known, &self.cluster.members].map(|members| find(members, pool.name.as_str()));
                known.zip(now).is_some_and(|(known, now)| known.usable == now.usable)
            }
            Step::Adopt(_) => false,
            Step::DeleteUnlessWanted { pool, .. } => {
                find(&self.cluster.members, pool.as_str()).is_some()
                    && !wanted.iter().any(|wanted| wanted.purpose.pool_name() == pool.as_str())
            }
        });
        apply(&mut self.cluster.members, &plan);
    }
}

proptest! {
    /// However late pools are seen, and wherever it ends in between: no address is two pools'.
    #[test]
    fn pools_stay_apart_for_a_leader_that_sees_its_own_writes_late(
        rounds in proptest::collection::vec(
            (proptest::collection::btree_map(0usize..4, 0u32..4, 1..5), 0usize..6, any::<bool>()),
            1..10,
        ),
    ) {
        let mut lagging = Lagging { cluster: Cluster::new(), seen: Vec::new() };
        for (apps, steps, sees) in rounds {
            let wanted: Vec<_> = apps
                .iter()
                .map(|(index, size)| wanted(&format!("app{index}"), PoolSize::Fixed(*size), 1))
                .collect();
            if sees {
                lagging.seen = lagging.cluster.members.clone();
            }
            lagging.reconcile(&wanted, steps);
            let mut all = IpSet::empty(Family::V4);
            for member in &lagging.cluster.members {
                prop_assert!(all.intersection(&member.usable).is_empty(), "{:?}", lagging.cluster.has());
                all = all.union(&member.usable);
            }
        }
    }

    /// Whatever is wanted in whatever order, and whatever of it is in use: no address is two pools', what is in use stays its
    /// pool's, and each plan leaves nothing to do.
    #[test]
    fn pools_stay_apart_and_keep_what_is_in_use(
        rounds in proptest::collection::vec(
            (proptest::collection::btree_map(0usize..4, (0u32..5, 0u32..3, any::<bool>()), 0..4), any::<u64>()),
            1..6,
        ),
    ) {
        let mut cluster = Cluster::new();
        for (apps, uses) in rounds {
            let wanted: Vec<_> = apps
                .iter()
                .map(|(index, (pods, more, is_fixed))| {
                    let size = if *is_fixed { PoolSize::Fixed(*more) } else { PoolSize::Flexible(*more) };
                    wanted(&format!("app{index}"), size, *pods)
                })
                .collect();
            let used_before: Vec<_> =
                cluster.members.iter().map(|member| (member.name.clone(), member.used.clone())).collect();
            let plan = cluster.plan(&wanted);
            cluster.records = plan.records.clone();
            apply(&mut cluster.members, &plan);
            for (name, used) in used_before {
                let member = cluster.members.iter().find(|member| member.name == name);
                let usable = member.map_or_else(|| IpSet::empty(Family::V4), |member| member.usable.clone());
                prop_assert!(used.difference(&usable).is_empty());
            }
            let mut all = IpSet::empty(Family::V4);
            for (index, member) in cluster.members.iter_mut().enumerate() {
                prop_assert!(all.intersection(&member.usable).is_empty());
                prop_assert!(!member.usable.contains("10.6.0.4".parse().unwrap()));
                all = all.union(&member.usable);
                let used = (0..member.usable.len())
                    .filter(|n| (uses >> ((index as u128 * 8 + n) % 64)) & 1 == 1)
                    .filter_map(|n| member.usable.nth(n).map(IpRange::single));
                member.used = IpSet::from_ranges(Family::V4, used);
            }
        }
    }
}
