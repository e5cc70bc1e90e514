//! What one looks at to understand a running system: objects, NICs, rules, maps, counters.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use spiderpool_tests::counters;
use spiderpool_tests::fixture::Fixture;
use spiderpool_tests::matrix::Host;
use spiderpool_tests::namespaces::Namespaces;
use spiderpool_tests::poll;

/// A change of SpiderCoordinator's status must be in the map of a running pod after that.
const LIVE_LIMIT: Duration = Duration::from_secs(1);
/// Another Service CIDR, for the change at run time.
const NEW_CIDR: &str = "10.112.0.0/16";
/// The kernel's own rules.
const KERNEL_RULES: [&str; 2] = [
    "0:\tfrom all lookup local\n32766:\tfrom all lookup main\n32767:\tfrom all lookup default\n",
    "0:\tfrom all lookup local\n32766:\tfrom all lookup main\n",
];

/// Shows everything for the pods; false if the change at run time came too late.
pub(crate) fn all(fixture: &dyn Fixture, pods: &[Host]) -> Result<bool> {
    let node = fixture.node();
    for kind in ["sip", "sp"] {
        title(&format!("kubectl get {kind}"));
        print!("{}", fixture.kubectl(&["get", kind])?);
    }
    for pod in pods {
        check_rules(&pod.namespaces)?;
    }
    let pod = pods.get(1).context("a pod with the default route on net1")?;
    let pod = &pod.namespaces;
    title(&format!("{}: ip -br address; ip route; ip rule", pod.name));
    print!("{}", pod.output("ip", &["-br", "address"])?);
    for arguments in [&["-4", "route"][..], &["-6", "route"], &["-4", "rule"], &["-6", "rule"]] {
        print!("{}", pod.output("ip", arguments)?);
    }
    println!("(every pod's rules are the kernel's, and no table but the kernel's has a route)");
    title("bpftool -j map dump pinned .../cluster_cidrs, on the pods' node; what it means before it");
    for entry in counters::cidrs(node)? {
        let meaning = format!("{}: {}", entry.cidr, entry.meaning);
        println!("{meaning:32} {}", entry.raw);
    }
    title(&format!("{}: packets by NIC and reason", pod.name));
    for (name, packets) in counters::read(node, &counters::nic_ids(pod)?)? {
        println!("{name:32} {packets}");
    }
    change_service_cidr(fixture)
}

pub(crate) fn title(text: &str) {
    println!("\n--- {text}");
}

/// Rules and tables of a pod hold nothing of ours.
fn check_rules(pod: &Namespaces) -> Result<()> {
    for (family, kernel) in ["-4", "-6"].into_iter().zip(KERNEL_RULES) {
        let rules = pod.output("ip", &[family, "rule"])?;
        ensure!(rules == kernel, "{}: ip {family} rule shows\n{rules}", pod.name);
        let routes = pod.output("ip", &[family, "route", "show", "table", "all"])?;
        let foreign = routes.lines().find(|line| {
            let table = line.split(" table ").nth(1).and_then(|rest| rest.split_whitespace().next());
            table.is_some_and(|table| table != "local" && table != "main")
        });
        ensure!(foreign.is_none(), "{}: a route in a table of its own: {foreign:?}", pod.name);
    }
    Ok(())
}

/// Adds a Service CIDR in SpiderCoordinator's status and waits for it in the map that running pods use.
fn change_service_cidr(fixture: &dyn Fixture) -> Result<bool> {
    title(&format!("SpiderCoordinator.status.serviceCIDR gets {NEW_CIDR}"));
    let node = fixture.node();
    fixture.add_service_cidr(NEW_CIDR)?;
    let changed = Instant::now();
    let seen = poll::until("the new CIDR in the map", LIVE_LIMIT, || {
        let cidrs = counters::cidrs(node)?;
        ensure!(cidrs.iter().any(|entry| entry.cidr == NEW_CIDR), "it is not there");
        Ok(())
    });
    match &seen {
        Ok(()) => println!("in the map of the running pods after {:.0?}", changed.elapsed()),
        Err(error) => println!("FAIL {error:#}"),
    }
    fixture.remove_service_cidr(NEW_CIDR)?;
    Ok(seen.is_ok())
}

/// How to enter what is left running.
pub(crate) fn how_to_look_around(fixture: &dyn Fixture, end: &str) -> Result<()> {
    println!("\nStill up; {end}. Put one of these before a command, or run it alone for a shell:");
    for (name, way) in fixture.ways_in()? {
        println!("  {name:24} {way}");
    }
    Ok(())
}
