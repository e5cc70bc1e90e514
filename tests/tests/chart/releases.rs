//! Releases on an API server: from value set to value set, from chart to chart, and what is left after a failure. Hooks are left
//! out where a kubelet would have to run them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use spiderpool_tests::control_plane::{ControlPlane, Crds, Options};
use spiderpool_tests::{long_form, process, tools};

use crate::render::{NAMESPACE, plain_helm};
use crate::value_sets::{MONITORS, SETS};

/// As a release of the chart that brought no Multus has them.
const OLDER_VALUES: &str = include_str!("data/values_before_multus.yaml");
const HELD_BY_MULTUS: [&str; 3] = [
    "clusterrole/spiderpool-multus",
    "clusterrolebinding/spiderpool-multus",
    "serviceaccount/spiderpool-multus",
];

/// Those that make other objects, and those of the quick starts. Each upgrade takes seconds.
const CHAIN: [&str; 8] = [
    "beside Calico or Cilium, as quick starts have it",
    "the same with the reference plugins",
    "Calico's IPAM with BGP, as the quick start has it",
    "metrics",
    "a certificate that is given",
    "a Multus of one's own",
    "Multus that stays, and the reference plugins",
    "no coordinator",
];

struct Cluster(ControlPlane);

impl Cluster {
    fn start() -> Self {
        let plane = ControlPlane::start(Options { crds: Crds::None, ..Options::default() }).unwrap();
        plane.apply(MONITORS).unwrap();
        // What other tests give their agents has the name that the chart gives to its own.
        plane.kubectl(&["delete", "clusterrole,clusterrolebinding", "spiderpool-agent"]).unwrap();
        plane.kubectl(&["create", "namespace", NAMESPACE]).unwrap();
        Self(plane)
    }

    fn helm(&self, verb: &[&str], more: &[&str]) -> Result<String, String> {
        let kubeconfig = format!("--kubeconfig={}", self.0.admin().display());
        let outcome = plain_helm(&[verb, &[&kubeconfig, "--namespace", NAMESPACE], more].concat());
        outcome.map_err(|error| format!("{error:#}"))
    }

    fn without_hooks(&self, verb: &[&str], values: &[&str]) {
        self.helm(&[verb, &["--no-hooks"]].concat(), values)
            .unwrap_or_else(|error| panic!("{verb:?} {values:?}: {error}"));
    }

    /// Without it no pod starts where the container runtime executes Multus.
    #[track_caller]
    fn multus_has_access(&self) {
        for object in HELD_BY_MULTUS {
            self.0.kubectl(&["get", object, "--namespace", NAMESPACE]).unwrap();
        }
    }
}

/// The chart with a change.
fn changed_chart(change: impl FnOnce(&Path)) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let chart = folder.path().join("spiderpool");
    let mut copy = Command::new("cp");
    copy.arg("-r").arg(tools::chart().unwrap()).arg(&chart);
    process::output(&copy).unwrap();
    change(&chart);
    (folder, chart.display().to_string())
}

fn chart() -> String {
    tools::chart().unwrap().display().to_string()
}

#[test]
fn a_release_goes_from_each_value_set_to_the_next_and_back() {
    if !long_form::asked_for_or_skip("a_release_goes_from_each_value_set_to_the_next_and_back") {
        return;
    }
    let cluster = Cluster::start();
    cluster.without_hooks(&["install", "spiderpool", &chart()], &[]);
    for name in CHAIN {
        let (_, values) = SETS.iter().find(|(what, _)| *what == name).unwrap();
        cluster.without_hooks(&["upgrade", "spiderpool", &chart(), "--reset-values"], values);
        let name =
            if values.iter().any(|v| v.contains("multusCNI.name=m")) { "m" } else { "spiderpool-multus" };
        cluster.0.kubectl(&["get", "serviceaccount", name, "--namespace", NAMESPACE]).unwrap();
    }
    cluster.without_hooks(&["upgrade", "spiderpool", &chart(), "--reset-values"], &[]);
    cluster.without_hooks(
        &["upgrade", "spiderpool", &chart(), "--reset-then-reuse-values"],
        &["--set=coordinator.vethMTU=1400"],
    );
    cluster.without_hooks(&["rollback", "spiderpool"], &[]);
    cluster.multus_has_access();
    cluster.without_hooks(&["uninstall", "spiderpool"], &[]);
    // The Job that was left out deletes it when all nodes are clean.
    cluster.multus_has_access();
    cluster.without_hooks(&["install", "spiderpool", &chart()], &[]);
}

#[test]
fn neither_rollback_nor_upgrade_takes_the_access_of_multus_away() {
    let cluster = Cluster::start();
    let (_folder, older) =
        changed_chart(|chart| fs::remove_file(chart.join("templates/agent/multus.yaml")).unwrap());
    cluster.without_hooks(&["install", "spiderpool", &older], &[]);
    cluster.without_hooks(&["upgrade", "spiderpool", &chart()], &[]);
    cluster.multus_has_access();
    cluster.without_hooks(&["rollback", "spiderpool", "1"], &[]);
    cluster.multus_has_access();
    cluster.without_hooks(&["upgrade", "spiderpool", &chart()], &["--set=multus.multusCNI.install=false"]);
    cluster.multus_has_access();
}

/// No kubelet runs the pod: the time is over.
#[test]
fn a_failed_installation_leaves_no_rights_behind() {
    let cluster = Cluster::start();
    let failed = cluster.helm(&["install", "spiderpool", &chart(), "--timeout=3s"], &[]).unwrap_err();
    assert!(failed.contains("pre-install"), "{failed}");
    let kinds = "serviceaccounts,clusterroles,clusterrolebindings";
    let left = cluster.0.kubectl(&["get", kinds, "--namespace", NAMESPACE, "-o", "name"]).unwrap();
    assert!(!left.contains("spiderpool"), "{left}");
}

#[test]
fn the_values_of_an_older_chart_alone_are_refused_with_the_flag_that_helps() {
    let (_folder, chart) = changed_chart(|chart| fs::write(chart.join("values.yaml"), OLDER_VALUES).unwrap());
    for more in [&[][..], &["--is-upgrade", "--set=multus.multusCNI.install=true"]] {
        let template = ["template", "spiderpool", &chart, "--namespace", NAMESPACE];
        let refused = format!("{:#}", plain_helm(&[&template, more].concat()).unwrap_err());
        assert!(refused.contains("Use --reset-then-reuse-values in its place"), "{refused}");
        for block in ["multus.multusCNI.image", "spiderpoolController.tls.auto", "openshift"] {
            assert!(refused.contains(&format!("* {block}\n")), "{block} in {refused}");
        }
        assert!(!refused.contains("nil pointer"), "{refused}");
    }
}

#[test]
fn no_document_names_the_flag_that_leaves_new_values_out() {
    let mut documents = vec![tools::workspace().join("docs")];
    while let Some(path) = documents.pop() {
        if path.is_dir() {
            documents.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        let text = fs::read_to_string(&path).unwrap_or_default();
        let wrong = text
            .lines()
            .find(|line| line.contains(" --reuse-values \\") || line.ends_with(" --reuse-values"));
        assert_eq!(wrong, None, "{}", PathBuf::from(&path).display());
    }
}
