//! Rights: of the service accounts in the API, and of the containers on the node.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::render::{containers, find, objects, parse, pods, title};

/// What agents have in the tests.
const AGENT_RIGHTS: &str = include_str!("../../src/control_plane/agent_rights.yaml");
/// What controllers have in the tests.
const CONTROLLER_RIGHTS: &str = include_str!("../../src/standalone_controller/rights.yaml");
/// Kubernetes 1.30 and later.
const WITH_POLICIES: &str = "--api-versions=admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy";

/// The rights that come with it are in those of the tests.
const WITH_SUBNETS: &str = "--set=ipam.spiderSubnet.enable=true";

fn roles(objects: &[Value]) -> impl Iterator<Item = &Value> {
    objects.iter().filter(|o| o["kind"] == "ClusterRole" || o["kind"] == "Role")
}

#[test]
fn no_role_has_a_wildcard_or_reads_others_secrets() {
    let objects = objects(&[]);
    assert!(roles(&objects).count() > 4);
    for role in roles(&objects) {
        for rule in role["rules"].as_array().unwrap() {
            let text = rule.to_string();
            assert!(!text.contains('*'), "{}: {text}", title(role));
            // The webhooks' certificate alone, and by those who serve it. Who may create Secrets and read one of a name gets
            // the token of any service account.
            if text.contains("secrets") {
                assert_eq!(title(role), "Role spiderpool-controller");
                assert_eq!(rule["resourceNames"], json!(["spiderpool-controller-server-certs"]));
                assert_eq!(rule["verbs"], json!(["get", "list", "watch", "update"]));
            }
            for verb in rule["verbs"].as_array().unwrap() {
                let known =
                    ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"];
                assert!(known.contains(&verb.as_str().unwrap()), "{}: {verb}", title(role));
            }
        }
    }
}

#[test]
fn a_certificate_of_others_is_not_written() {
    let objects = objects(&[
        "--set=spiderpoolController.tls.method=certmanager,spiderpoolController.tls.certmanager.issuerName=ca",
    ]);
    let role = find(&objects, "Role", "spiderpool-controller");
    let rules = role["rules"].as_array().unwrap();
    let secrets = rules.iter().find(|rule| rule.to_string().contains("secrets")).unwrap();
    assert_eq!(secrets["verbs"], json!(["get", "list", "watch"]));
    // Who may write webhooks sees every object that they name.
    let role = find(&objects, "ClusterRole", "spiderpool-controller");
    let rules = role["rules"].as_array().unwrap();
    let webhooks = rules.iter().find(|rule| rule.to_string().contains("webhookconfigurations")).unwrap();
    assert_eq!(webhooks["verbs"], json!(["get", "list", "watch"]));
    assert_eq!(webhooks["resourceNames"], json!(["spiderpool-controller"]));
}

#[test]
fn only_the_uninstallation_may_delete_definitions() {
    for role in roles(&objects(&[])) {
        let deletes = role["rules"].as_array().unwrap().iter().any(|rule| {
            let has = |key: &str, word: &str| rule[key].as_array().unwrap().contains(&json!(word));
            has("resources", "customresourcedefinitions") && has("verbs", "delete")
        });
        assert_eq!(
            deletes,
            title(role) == "ClusterRole spiderpool-controller-hook-pre-delete",
            "{}",
            title(role)
        );
    }
}

/// What roles grant, a line for each verb on each resource.
fn granted(objects: &[Value], roles: &[(&str, &str)]) -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    for (kind, name) in roles {
        for rule in find(objects, kind, name)["rules"].as_array().unwrap() {
            for (resource, verb) in product(&rule["resources"], &rule["verbs"]) {
                lines.insert(format!("{} {resource} {verb}", rule["apiGroups"]));
            }
        }
    }
    lines
}

/// Else the tests would show an agent at work that no user has. What the tests give in one role, the chart gives where it is
/// needed: leases in the release's namespace.
#[test]
fn agents_have_the_rights_that_the_tests_give_them() {
    let role = ("ClusterRole", "spiderpool-agent");
    let tested = granted(&parse(AGENT_RIGHTS), &[role]);
    let rendered = objects(&[WITH_POLICIES, WITH_SUBNETS]);
    assert_eq!(granted(&rendered, &[role, ("Role", "spiderpool-agent")]), tested);
}

/// Without a policy an agent could write the leader's Lease.
#[test]
fn agents_have_rights_on_leases_only_where_a_policy_binds_them_to_their_own() {
    let writes_leases = |objects: &[Value]| {
        roles(objects).any(|role| {
            role["metadata"]["name"] == "spiderpool-agent" && role["rules"].to_string().contains("leases")
        })
    };
    let policies = |objects: &[Value]| {
        let names = objects.iter().filter(|o| o["kind"] == "ValidatingAdmissionPolicy").map(title);
        names.collect::<BTreeSet<_>>()
    };
    let (with, without) = (objects(&[WITH_POLICIES]), objects(&[]));
    assert!(policies(&with).contains("ValidatingAdmissionPolicy spiderpool-agent-leases"));
    assert!(policies(&without).is_empty());
    assert_eq!((writes_leases(&with), writes_leases(&without)), (true, false));
}

/// Leases in the release's namespace, kubeadm's ConfigMap in its own.
#[test]
fn controllers_have_the_rights_that_the_tests_give_them() {
    let cluster_role = ("ClusterRole", "spiderpool-controller");
    let tested = granted(&parse(CONTROLLER_RIGHTS), &[cluster_role]);
    let namespaced = [("Role", "spiderpool-controller"), ("Role", "spiderpool-controller-cidrs")];
    let roles = [&[cluster_role][..], &namespaced].concat();
    let pods = "--set=spiderpoolController.podResourceInject.enabled=true";
    assert_eq!(granted(&objects(&[WITH_SUBNETS, pods]), &roles), tested);
    let without = granted(&objects(&[WITH_SUBNETS]), &roles);
    let only_on_request: Vec<_> = tested.difference(&without).collect();
    assert!(only_on_request.iter().all(|right| right.contains("namespaces")), "{only_on_request:?}");
    assert_eq!(only_on_request.len(), 3);
}

/// Who makes no pools sees no workloads but StatefulSets, and writes no SpiderSubnet but for its finalizer.
#[test]
fn rights_for_subnets_and_workloads_come_with_their_values() {
    let all = [
        ("ClusterRole", "spiderpool-controller"),
        ("ClusterRole", "spiderpool-agent"),
        ("ClusterRole", "spiderpool-init"),
    ];
    let lines = |values: &[&str]| granted(&objects(values), &all);
    let has = |lines: &BTreeSet<String>, part: &str| lines.iter().any(|line| line.contains(part));
    let (off, on) = (lines(&[]), lines(&[WITH_SUBNETS]));
    let subnets_alone = lines(&[WITH_SUBNETS, "--set=ipam.spiderSubnet.autoPool.enable=false"]);
    for (resource, verb, with_subnets_alone) in [
        ("spidersubnets/status", "patch", true),
        ("spidersubnets/finalizers", "update", true),
        ("spiderippools", "delete", true),
        ("spiderippools", "update", false),
        ("deployments", "get", true),
        ("deployments", "watch", false),
        ("cronjobs", "watch", false),
        ("clonesets", "get", true),
    ] {
        let line = format!("{resource:?} {verb:?}");
        let found = [&off, &subnets_alone, &on].map(|lines| has(lines, &line));
        assert_eq!(found, [false, with_subnets_alone, true], "{line}");
    }
    let of_off: Vec<_> = off.iter().filter(|line| line.contains("spidersubnets")).collect();
    assert_eq!(of_off.len(), 4, "get, list, watch, and patch of one that is being deleted: {of_off:?}");
    let more = lines(&[
        WITH_SUBNETS,
        "--set=ipam.spiderSubnet.autoPool.thirdPartyWorkloads[0].apiGroups={apps.example.com}",
        "--set=ipam.spiderSubnet.autoPool.thirdPartyWorkloads[0].resources={gamesets,rooms}",
    ]);
    let added: Vec<_> = more.difference(&on).cloned().collect();
    assert_eq!(added.len(), 2, "{added:?}");
    assert!(added.iter().all(|line| line.contains("apps.example.com") && line.contains("get")), "{added:?}");
}

#[test]
fn rights_on_virtual_machines_come_with_their_addresses() {
    let of = |values: &[&str]| {
        let all = [("ClusterRole", "spiderpool-controller"), ("ClusterRole", "spiderpool-agent")];
        let lines = granted(&objects(values), &all);
        lines.into_iter().filter(|line| line.contains("kubevirt.io")).count()
    };
    assert_eq!(
        of(&["--set=ipam.enableKubevirtStaticIP=false"]),
        1,
        "one may be migrating when it is switched off"
    );
    assert_eq!(of(&[]), 2 * 3 + 1, "get, list and watch of two kinds; get of migrations");
}

/// Of other projects' objects, and of a directory of the node, no more than the coordinator needs.
#[test]
fn rights_for_cidrs_go_with_the_coordinator_and_follow_ciliums_config_map() {
    let texts = |objects: &[Value]| roles(objects).map(ToString::to_string).collect::<Vec<_>>().join("\n");
    let off = texts(&objects(&["--set=coordinator.enabled=false"]));
    for word in
        ["ippools\"]", "ciliumpodippools", "calico-node", "servicecidrs", "kubeadm-config", "cilium-config"]
    {
        assert!(!off.contains(word), "{word}");
    }
    let elsewhere = objects(&["--set=global.ciliumConfigMap=cilium/settings"]);
    let of_maps = roles(&elsewhere).filter(|role| role["metadata"]["name"] == "spiderpool-controller-cidrs");
    let maps: BTreeSet<_> = of_maps
        .map(|role| format!("{} {}", role["metadata"]["namespace"], role["rules"][0]["resourceNames"]))
        .collect();
    let expected = [r#""cilium" ["settings"]"#, r#""kube-system" ["kubeadm-config"]"#];
    assert_eq!(maps, expected.map(str::to_owned).into());
    let bindings = elsewhere.iter().filter(|o| o["kind"] == "RoleBinding");
    assert_eq!(bindings.filter(|o| o["roleRef"]["name"] == "spiderpool-controller-cidrs").count(), 2);
}

#[test]
fn the_controller_sees_its_nodes_cni_configuration_only_to_detect_the_network() {
    let mount = |values: &[&str]| {
        let pods = pods(&objects(values));
        let mut containers = pods.iter().flat_map(|(_, pod)| containers(pod));
        let controller = containers.find(|c| c["name"] == "controller").unwrap();
        let mounts = controller["volumeMounts"].as_array().unwrap().clone();
        mounts.into_iter().find(|mount| mount["name"] == "cni-conf")
    };
    let path = "/var/lib/rancher/k3s/agent/etc/cni/net.d";
    let mounted = mount(&[&format!("--set=global.cniConfHostPath={path}")]).unwrap();
    assert_eq!((&mounted["mountPath"], &mounted["readOnly"]), (&json!(path), &json!(true)));
    for value in ["coordinator.podCIDRType=calico", "coordinator.enabled=false"] {
        assert_eq!(mount(&[&format!("--set={value}")]), None, "{value}");
    }
}

fn product(resources: &Value, verbs: &Value) -> Vec<(String, String)> {
    let words = |list: &Value| list.as_array().unwrap().iter().map(ToString::to_string).collect::<Vec<_>>();
    let verbs = words(verbs);
    let pair =
        |resource: String| verbs.iter().map(|verb| (resource.clone(), verb.clone())).collect::<Vec<_>>();
    words(resources).into_iter().flat_map(pair).collect()
}

#[test]
fn one_container_is_privileged_and_all_are_read_only() {
    let pods = pods(&objects(&[]));
    let mut privileged = Vec::new();
    for (owner, pod) in &pods {
        assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault", "{owner}");
        for container in containers(pod) {
            let (name, context) = (&container["name"], &container["securityContext"]);
            assert_eq!(context["readOnlyRootFilesystem"], true, "{owner} {name}");
            if context["privileged"] == true {
                privileged.push(name.as_str().unwrap());
            } else {
                assert_eq!(context["allowPrivilegeEscalation"], false, "{owner} {name}");
                assert_eq!(context["capabilities"]["drop"], json!(["ALL"]), "{owner} {name}");
            }
        }
    }
    assert_eq!(privileged, ["prepare-node"]);
}

#[test]
fn the_agent_has_named_capabilities_and_others_than_it_and_the_cleaner_have_none() {
    for (owner, pod) in pods(&objects(&[])) {
        for container in containers(&pod) {
            let added = &container["securityContext"]["capabilities"]["add"];
            let expected = match container["name"].as_str().unwrap() {
                "agent" => json!(["BPF", "NET_ADMIN", "NET_RAW", "PERFMON", "SYS_ADMIN", "SYS_PTRACE"]),
                "clean-node" => json!(["NET_ADMIN"]),
                _ => Value::Null,
            };
            assert_eq!(*added, expected, "{owner} {}", container["name"]);
        }
    }
}

/// For kernels that count maps as locked memory.
#[test]
fn the_agent_may_lift_a_limit_if_asked_to() {
    let pods = pods(&objects(&["--set=spiderpoolAgent.raiseMemlock=true"]));
    let agent = pods.iter().flat_map(|(_, pod)| containers(pod)).find(|c| c["name"] == "agent").unwrap();
    let added = agent["securityContext"]["capabilities"]["add"].as_array().unwrap().clone();
    assert!(added.contains(&json!("SYS_RESOURCE")), "{added:?}");
}

/// A DaemonSet cannot depend on its node: where /sys is no shared mount, a container that asks for propagation fails.
#[test]
fn no_container_asks_for_propagation_of_bpffs() {
    let pods = pods(&objects(&[]));
    let mounts = pods
        .iter()
        .flat_map(|(_, pod)| containers(pod))
        .flat_map(|c| c["volumeMounts"].as_array().cloned().unwrap_or_default().into_iter());
    for mount in mounts.filter(|mount| mount["name"] == "bpffs") {
        assert_eq!(mount["mountPropagation"], Value::Null, "{mount}");
    }
}

/// The agent follows a link that moves, so it has the folder above the link.
#[test]
fn a_moving_folder_of_plugins_is_mounted_from_above() {
    for (path, mounted) in [
        ("/opt/cni/bin", "/opt/cni/bin"),
        ("/var/lib/rancher/k3s/data/current/bin", "/var/lib/rancher/k3s/data"),
        ("/opt/current", "/opt"),
        ("/current/bin", "/current/bin"),
    ] {
        let pods = pods(&objects(&[&format!("--set=global.cniBinHostPath={path}")]));
        let agents = pods.iter().filter(|(_, pod)| containers(pod).iter().any(|c| c["name"] == "agent"));
        let mut volumes = agents.flat_map(|(_, pod)| pod["volumes"].as_array().unwrap());
        let volume = volumes.find(|volume| volume["name"] == "cni-bin").unwrap();
        assert_eq!(volume["hostPath"]["path"], mounted);
    }
}

#[test]
fn what_needs_no_root_does_not_run_as_root() {
    for (owner, pod) in pods(&objects(&[])) {
        for container in containers(&pod) {
            let name = container["name"].as_str().unwrap();
            let root = ["prepare-node", "agent", "clean-node"].contains(&name);
            assert_eq!(container["securityContext"]["runAsUser"] == 0, root, "{owner} {name}");
        }
    }
}
