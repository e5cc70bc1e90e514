//! Variables: the chart gives those that the programs read, and no others.

use std::collections::BTreeSet;

use serde_json::Value;
use spiderpool_tests::{process, tools};

use crate::render::{containers, objects, pods};

/// What its allocator reads, of which a program knows nothing.
const OF_LIBC: &str = "MALLOC_MMAP_THRESHOLD_";

/// What a program says in its help about its environment.
fn read_by(program: &str, verb: &[&str]) -> BTreeSet<String> {
    let mut words = verb.to_vec();
    words.push("--help");
    let help = process::run(tools::spiderpool(program).unwrap(), &words).unwrap();
    // It is wrapped where the line ends.
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    let names = help.split("[env: ").skip(1).filter_map(|rest| rest.split(['=', ']']).next());
    names.map(ToOwned::to_owned).collect()
}

/// What the containers of this name get, with all that can be asked for.
fn given_to(container: &str) -> BTreeSet<String> {
    let pods = pods(&objects(&[
        "--set=multus.multusCNI.defaultCniCRName=x",
        "--set=clusterDefaultPool.installIPv4IPPool=true,clusterDefaultPool.ipv4Subnet=10.0.0.0/8",
        "--set=clusterDefaultPool.installIPv6IPPool=true,clusterDefaultPool.ipv6Subnet=fd00::/64",
    ]));
    let found = pods.iter().flat_map(|(_, pod)| containers(pod)).filter(|c| c["name"] == container);
    let env = found.flat_map(|c| c["env"].as_array().into_iter().flatten());
    let names = env.map(|variable: &Value| variable["name"].as_str().unwrap().to_owned());
    names.filter(|name| name != OF_LIBC).collect()
}

fn check(container: &str, program: &str, verb: &[&str], left_out: &[&str]) {
    let (given, read) = (given_to(container), read_by(program, verb));
    let unread: Vec<_> = given.difference(&read).collect();
    assert!(unread.is_empty(), "{program} does not know {unread:?}");
    let missing: BTreeSet<&str> = read.difference(&given).map(String::as_str).collect();
    let left_out: BTreeSet<&str> = left_out.iter().copied().collect();
    assert_eq!(missing, left_out, "what {program} reads and the chart does not give");
}

#[test]
fn agent() {
    // No value of the chart: the image decides, or nobody needs to change it.
    let left_out = ["SPIDERPOOL_BPF_OBJECT", "SPIDERPOOL_BPF_DIR", "SPIDERPOOL_ENABLED_RELEASE_CONFLICT_IPS"];
    check("agent", "spiderpool-agent", &["daemon"], &left_out);
}

#[test]
fn agents_cleaner() {
    // By flags.
    check("clean-node", "spiderpool-agent", &["clean-node"], &["SPIDERPOOL_BPF_DIR", "SPIDERPOOL_STATE_DIR"]);
}

#[test]
fn controller() {
    // For tests.
    let left_out = [
        "SPIDERPOOL_LEADER_DURATION",
        "SPIDERPOOL_LEADER_RENEW_DEADLINE",
        "SPIDERPOOL_LEADER_RETRY_PERIOD",
        "SPIDERPOOL_METRIC_RENEW_PERIOD",
        "SPIDERPOOL_SHUTDOWN_DELAY_SECONDS",
    ];
    check("controller", "spiderpool-controller", &["daemon"], &left_out);
}

#[test]
fn controllers_cleaner() {
    check("clean", "spiderpool-controller", &["clean"], &["SPIDERPOOL_CLEAN_STEP_LIMIT"]);
}

#[test]
fn init() {
    check("init", "spiderpool-init", &[], &[]);
}
