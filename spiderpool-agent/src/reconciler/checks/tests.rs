use super::*;

#[test]
fn what_is_reported_comes_first_and_a_pod_that_was_put_right_waits_for_the_sweep() {
    let (mut checks, start) = (Checks::default(), Instant::now());
    let pod = |name: &str| name.parse::<ContainerId>().unwrap();
    assert_eq!(checks.due(start), None);
    checks.report(pod("b"), start);
    assert_eq!((checks.due(start), checks.next(start)), (Some(start + SETTLE), None));
    let later = start + SETTLE;
    checks.begin_sweep([pod("a"), pod("b")].into_iter(), later);
    checks.begin_sweep([pod("c")].into_iter(), later);
    assert_eq!(checks.due(later), Some(later));
    assert_eq!([(); 4].map(|()| checks.next(later)), [Some(pod("b")), Some(pod("a")), Some(pod("b")), None]);
    checks.report(pod("b"), later);
    assert_eq!(checks.due(later), Some(later + REST));
    checks.registered(pod("b"), later + SETTLE);
    checks.report(pod("b"), later + REST);
    checks.begin_sweep([pod("b")].into_iter(), later + REST);
    assert_eq!(checks.due(later), Some(later + SETTLE + ADD), "its ADD goes on");
    assert_eq!(checks.next(later + REST), None);
    checks.begin_sweep([pod("b")].into_iter(), later + SETTLE + ADD);
    assert_eq!([(); 3].map(|()| checks.next(later + SETTLE + ADD)), [Some(pod("b")), Some(pod("b")), None]);
}

#[test]
fn what_an_add_has_not_done_yet_is_nobodys_doing_until_the_pod_was_whole_once() {
    let (mut checks, start) = (Checks::default(), Instant::now());
    let pod = "a".parse::<ContainerId>().unwrap();
    assert!(checks.found(&pod, false), "of an agent before this one");
    checks.registered(pod.clone(), start);
    checks.begin_sweep([pod.clone()].into_iter(), start + SETTLE);
    assert_eq!(checks.next(start + SETTLE), None);
    checks.begin_sweep([pod.clone()].into_iter(), start + 10 * ADD);
    assert_eq!(checks.next(start + 10 * ADD), Some(pod.clone()));
    assert!(!checks.found(&pod, false), "a slow ADD");
    assert!(checks.found(&pod, true) && checks.found(&pod, false));
    checks.registered(pod.clone(), start);
    checks.begin_sweep(std::iter::empty(), start + LONGEST_ADD);
    assert!(checks.found(&pod, false), "no ADD lasts so long");
}

#[test]
fn a_pod_of_which_a_look_costs_too_much_waits_long_and_is_said_once() {
    let (mut checks, start) = (Checks::default(), Instant::now());
    let (large, other) = ("a".parse::<ContainerId>().unwrap(), "b".parse::<ContainerId>().unwrap());
    let pods = || [large.clone(), other.clone()].into_iter();
    assert!(checks.leave_out(&large, start));
    checks.begin_sweep(pods(), start);
    checks.report(large.clone(), start);
    let later = start + EXPENSIVE / 2;
    assert_eq!([checks.next(later), checks.next(later)], [Some(other.clone()), None]);
    assert_eq!(checks.next(start + EXPENSIVE), Some(large.clone()));
    assert!(!checks.leave_out(&large, start + EXPENSIVE));
    checks.registered(large.clone(), start);
    assert!(checks.leave_out(&large, start));
}

#[test]
fn a_nic_without_addresses_is_a_del_for_a_minute_and_said_once_afterwards() {
    let (mut checks, start) = (Checks::default(), Instant::now());
    let (pod, net1) = ("a".parse::<ContainerId>().unwrap(), "net1".parse::<IfName>().unwrap());
    let mut after =
        |nics: &[IfName], seconds| checks.removal(&pod, nics, start + Duration::from_secs(seconds));
    let without = [net1];
    assert_eq!(after(&[], 0), Removal::None);
    assert_eq!([after(&without, 5), after(&without, 64)], [Removal::GoesOn; 2]);
    assert_eq!([after(&without, 65), after(&without, 70)], [Removal::TooLong, Removal::None]);
    assert_eq!([after(&[], 75), after(&without, 80)], [Removal::None, Removal::GoesOn]);
    assert_eq!(after(&without, 140), Removal::None, "said already");
}

#[test]
fn a_nic_that_comes_and_goes_in_the_pod_is_said_once() {
    let (mut checks, pod) = (Checks::default(), "a".parse::<ContainerId>().unwrap());
    let missing = ["net1".parse::<IfName>().unwrap()];
    assert_eq!(checks.newly_missing(&pod, &missing), missing);
    assert_eq!(checks.newly_missing(&pod, &[]), []);
    assert_eq!(checks.newly_missing(&pod, &missing), []);
    checks.unregistered(&pod);
    assert_eq!(checks.newly_missing(&pod, &missing), missing);
}

#[test]
fn a_pod_of_which_the_kernel_reports_without_end_is_looked_at_every_few_seconds() {
    let (reported, start) = (Reported::default(), Instant::now());
    let (mut checks, pod) = (Checks::new(reported.clone()), "a".parse::<ContainerId>().unwrap());
    let (mut sent, mut looks) = (0, 0);
    for millisecond in 0..10_000 {
        let now = start + Duration::from_millis(millisecond);
        if reported.add(&pod) {
            sent += 1;
            checks.report(pod.clone(), now);
        }
        looks += usize::from(checks.next(now).is_some());
    }
    assert_eq!((sent, looks), (6, 5));
}
