//! Many value sets, rendered and shown to the API server.

use std::collections::BTreeSet;

use spiderpool_tests::control_plane::ControlPlane;
use spiderpool_tests::{images, kubectl::Kubectl as _};

use crate::render::{NAMESPACE, containers, find, helm, objects, parse, pods, template, title};

const POOLS: &[&str] = &[
    "--set=clusterDefaultPool.installIPv4IPPool=true,clusterDefaultPool.ipv4Subnet=10.66.0.0/16",
    "--set=clusterDefaultPool.ipv4IPRanges={10.66.0.10-10.66.0.20,10.66.0.30}",
    "--set=clusterDefaultPool.ipv4Gateway=10.66.0.1",
    "--set=clusterDefaultPool.installIPv6IPPool=true,clusterDefaultPool.ipv6Subnet=fd66::/64",
];

const DRESSED: &[&str] = &[
    "--set=global.imageRegistryOverride=registry.test,global.nameOverride=renamed",
    "--set=global.commonLabels.team=net",
    "--set-literal=global.commonAnnotations.of={{ .Release.Name }}",
    "--set=spiderpoolAgent.podLabels.a=b,spiderpoolAgent.podAnnotations.c=d",
    "--set=spiderpoolAgent.extraArgs={--bpf-dir=/sys/fs/bpf/x}",
    "--set=spiderpoolAgent.extraEnv[0].name=RUST_LOG,spiderpoolAgent.extraEnv[0].value=debug",
    "--set=spiderpoolAgent.extraVolumes[0].name=v,spiderpoolAgent.extraVolumes[0].emptyDir.medium=Memory",
    "--set=spiderpoolAgent.extraVolumeMounts[0].name=v,spiderpoolAgent.extraVolumeMounts[0].mountPath=/v",
    "--set=spiderpoolAgent.securityContext.privileged=true,spiderpoolAgent.securityContext.allowPrivilegeEscalation=true",
    "--set=spiderpoolAgent.image.tag=v9,spiderpoolAgent.image.imagePullSecrets={one,two}",
    "--set=spiderpoolController.image.digest=sha256:0000000000000000000000000000000000000000000000000000000000000000",
    "--set=spiderpoolController.extraVolumes[0].name=w,spiderpoolController.extraVolumes[0].emptyDir.medium=Memory",
    "--set=spiderpoolController.extraVolumeMounts[0].name=w,spiderpoolController.extraVolumeMounts[0].mountPath=/w",
    "--set=spiderpoolController.replicas=3,spiderpoolController.podDisruptionBudget.enabled=true",
    "--set=spiderpoolController.image.imagePullSecrets[0].name=one,spiderpoolInit.image.imagePullSecrets={one}",
    "--set=spiderpoolInit.extraEnv[0].name=RUST_LOG,spiderpoolInit.extraEnv[0].value=debug",
];

const METRICS: &[&str] = &[
    "--set=spiderpoolAgent.prometheus.enabled=true,spiderpoolAgent.prometheus.serviceMonitor.install=true",
    "--set=spiderpoolController.prometheus.enabled=true,spiderpoolController.prometheus.serviceMonitor.install=true",
    "--set=spiderpoolController.prometheus.serviceMonitor.labels.release=prometheus",
];

const PROVIDED: &[&str] = &[
    "--set=spiderpoolController.tls.method=provided,spiderpoolController.tls.provided.tlsCert=Yw==",
    "--set=spiderpoolController.tls.provided.tlsKey=aw==,spiderpoolController.tls.provided.tlsCa=-----BEGIN",
    "--set=global.clusterDnsDomain=cluster.test,spiderpoolController.webhookPort=5723",
];

pub(crate) const SETS: &[(&str, &[&str])] = &[
    ("defaults", &[]),
    ("an upgrade", &["--is-upgrade"]),
    ("default pools", POOLS),
    ("everything dressed up", DRESSED),
    ("metrics", METRICS),
    ("IPv6 only", &["--set=ipam.enableIPv4=false"]),
    ("as older charts say it", &["--set=feature.enableIPv4=true,feature.enableIPv6=false"]),
    ("controller without the node's network", &["--set=spiderpoolController.hostnetwork=false"]),
    (
        "accounts of others",
        &[
            "--set=spiderpoolAgent.serviceAccount.create=false,spiderpoolController.serviceAccount.create=false",
        ],
    ),
    (
        "subnets, and pools for applications",
        &[
            "--set=ipam.spiderSubnet.enable=true,ipam.spiderSubnet.autoPool.enable=true",
            "--set=ipam.spiderSubnet.autoPool.thirdPartyWorkloads[0].apiGroups={apps.example.com}",
            "--set=ipam.spiderSubnet.autoPool.thirdPartyWorkloads[0].resources={gamesets}",
            "--set=clusterDefaultPool.installIPv4IPPool=true,clusterDefaultPool.ipv4Subnet=10.66.0.0/16",
        ],
    ),
    (
        "pools of subnets by hand alone",
        &["--set=ipam.spiderSubnet.enable=true,ipam.spiderSubnet.autoPool.enable=false"],
    ),
    ("no coordinator", &["--set=coordinator.enabled=false"]),
    ("a certificate that is given", PROVIDED),
    (
        "pools with addresses in use stay",
        &["--set=spiderpoolController.enableValidatingResourcesDeletedWebhook=true"],
    ),
    ("a Multus of one's own", &["--set=multus.multusCNI.install=false"]),
    (
        "Multus that stays, and the reference plugins",
        &[
            "--set=multus.multusCNI.uninstall=false,plugins.installCNI=true,multus.multusCNI.name=m",
            "--set=multus.multusCNI.image.imagePullSecrets={one},plugins.image.imagePullSecrets[0].name=two",
            "--set=global.cniConfHostPath=/var/lib/rancher/k3s/agent/etc/cni/net.d",
        ],
    ),
    ("no clean-up", &["--set=spiderpoolController.cleanup.enable=false,multus.multusCNI.uninstall=false"]),
    ("beside Calico or Cilium, as quick starts have it", &["--set=coordinator.mode=overlay"]),
    ("the same with the reference plugins", &["--set=coordinator.mode=overlay,plugins.installCNI=true"]),
    (
        "Calico's IPAM with BGP, as the quick start has it",
        &[
            "--set=feature.enableIPv4=true,clusterDefaultPool.installIPv4IPPool=true",
            "--set=clusterDefaultPool.ipv4Subnet=10.244.0.0/16",
            "--set=clusterDefaultPool.ipv4IPRanges={10.244.100.0-10.244.200.1}",
        ],
    ),
    ("OpenShift", &["--set=multus.multusCNI.install=false,global.cniBinHostPath=/var/lib/cni/bin"]),
    (
        "a cluster of another shape",
        &[
            "--set=global.cniBinHostPath=/usr/libexec/cni,global.ipamUNIXSocketHostPath=/run/sp/a.sock",
            "--set=coordinator.podCIDRType=none,coordinator.hijackCIDR={10.0.0.0/8}",
            "--set=coordinator.policyRoutes[0].dst=10.1.0.0/16,coordinator.policyRoutes[0].gw=10.6.0.1",
            "--set=coordinator.ebpf.routeHints=never,coordinator.ebpf.maps.nat=131072",
            "--set=multus.multusCNI.defaultCniCRName=default-network",
        ],
    ),
];

pub(crate) const MONITORS: &str = r"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: servicemonitors.monitoring.coreos.com}
spec:
  group: monitoring.coreos.com
  names: {kind: ServiceMonitor, plural: servicemonitors}
  scope: Namespaced
  versions:
    - name: v1
      served: true
      storage: true
      schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
";

#[test]
fn lint_has_nothing_to_say() {
    helm(&["lint", "--strict"], &[]).unwrap();
    helm(&["lint", "--strict"], POOLS).unwrap();
}

#[test]
fn the_api_server_takes_what_every_value_set_renders_to() {
    let plane = ControlPlane::shared();
    // Of a pod the account must be there.
    let namespace = format!(
        "apiVersion: v1\nkind: Namespace\nmetadata: {{name: {NAMESPACE}}}\n---\n\
         apiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: spiderpool-apply-crds, namespace: {NAMESPACE}}}\n"
    );
    plane.apply(&format!("{namespace}---{MONITORS}")).unwrap();
    plane
        .kubectl(&["wait", "--for=condition=Established", "crd/servicemonitors.monitoring.coreos.com"])
        .unwrap();
    let dry_run = ["apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-"];
    for (what, values) in SETS {
        let text = template(values).unwrap_or_else(|error| panic!("{what}: {error:#}"));
        let cleaner =
            parse(&text).iter().find_map(|o| Some(o["data"]["clean-node.yaml"].as_str()?.to_owned()));
        let all = format!("{text}\n---\n{}", cleaner.unwrap_or_default());
        plane.kubectl_with_input(&dry_run, &all).unwrap_or_else(|error| panic!("{what}: {error:#}"));
    }
}

#[test]
fn the_same_values_render_to_the_same_text() {
    assert_eq!(template(DRESSED).unwrap(), template(DRESSED).unwrap());
}

#[test]
fn images_are_those_that_the_image_verb_makes() {
    let expected: BTreeSet<String> =
        images::NAMES.map(|name| format!("{}/{name}:{}", images::REPOSITORY, images::TAG)).into();
    let pods = pods(&objects(&["--set=plugins.installCNI=true"]));
    let used: BTreeSet<String> = pods
        .iter()
        .flat_map(|(_, pod)| containers(pod))
        .map(|container| container["image"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(used, expected);
}

#[test]
fn common_labels_and_annotations_are_on_every_object() {
    for object in objects(DRESSED) {
        let (labels, annotations) = (&object["metadata"]["labels"], &object["metadata"]["annotations"]);
        assert_eq!(
            (&labels["team"], &annotations["of"]),
            (&"net".into(), &"spiderpool".into()),
            "{}",
            title(&object)
        );
        assert_eq!(labels["app.kubernetes.io/name"], "renamed");
        let pod = &object["spec"]["template"]["metadata"];
        if pod.is_object() {
            let found = (&pod["labels"]["team"], &pod["annotations"]["of"]);
            assert_eq!(found, (&"net".into(), &"spiderpool".into()), "pods of {}", title(&object));
        }
    }
}

/// A ResourceQuota of the namespace refuses pods without.
#[test]
fn every_container_has_requests_and_limits() {
    for verb in [&["--set=plugins.installCNI=true"][..], &["--is-upgrade"]] {
        for (owner, pod) in pods(&objects(verb)) {
            for container in containers(&pod) {
                for kind in ["requests", "limits"] {
                    for what in ["cpu", "memory"] {
                        let found = &container["resources"][kind][what];
                        assert!(found.is_string(), "{owner} {}: {kind}.{what} is {found}", container["name"]);
                    }
                }
            }
        }
    }
}

#[test]
fn pull_secrets_are_names_or_objects_and_the_agents_are_those_of_all_its_images() {
    let objects = objects(&[
        "--set=spiderpoolAgent.image.imagePullSecrets={one},multus.multusCNI.image.imagePullSecrets[0].name=two",
        "--set=plugins.installCNI=true,plugins.image.imagePullSecrets={one,three}",
    ]);
    let pod = &find(&objects, "DaemonSet", "spiderpool-agent")["spec"]["template"]["spec"];
    let expected = serde_json::json!([{"name": "one"}, {"name": "two"}, {"name": "three"}]);
    assert_eq!(pod["imagePullSecrets"], expected);
}

/// Two replicas, of which none stays on a dead node.
#[test]
fn the_controller_leaves_a_dead_node_after_ten_seconds() {
    let objects = objects(&[]);
    let deployment = find(&objects, "Deployment", "spiderpool-controller");
    assert_eq!(deployment["spec"]["replicas"], 2);
    let pod = &deployment["spec"]["template"]["spec"];
    for (at, key) in ["node.kubernetes.io/unreachable", "node.kubernetes.io/not-ready"].iter().enumerate() {
        assert_eq!(
            (&pod["tolerations"][at]["key"], &pod["tolerations"][at]["tolerationSeconds"]),
            (&(*key).into(), &10.into())
        );
    }
    assert!(pod["affinity"]["podAntiAffinity"].is_object());
}

#[test]
fn multus_has_an_account_of_its_own_that_reads_networks_and_pods() {
    let rendered = objects(&[]);
    let role = find(&rendered, "ClusterRole", "spiderpool-multus");
    let rules = role["rules"].to_string();
    assert!(!rules.contains("list") && !rules.contains("delete"), "{rules}");
    for values in
        [&[][..], &["--set=multus.multusCNI.uninstall=false"], &["--set=multus.multusCNI.install=false"]]
    {
        let objects = objects(values);
        for kind in ["ServiceAccount", "ClusterRole", "ClusterRoleBinding"] {
            let object = find(&objects, kind, "spiderpool-multus");
            let policy = &object["metadata"]["annotations"]["helm.sh/resource-policy"];
            assert_eq!(policy, "keep", "{kind} with {values:?}");
        }
    }
    let without = template(&["--set=multus.multusCNI.install=false"]).unwrap();
    assert!(!without.contains("install_multus") && !without.contains("serviceaccounts/token"));
}

/// Its own kind is no part of Kubernetes: rendered only.
#[test]
fn openshift_lets_each_account_do_what_its_pods_need_and_no_more() {
    let objects = objects(&["--set=openshift.enabled=true,plugins.installCNI=true"]);
    let constraints: Vec<_> =
        objects.iter().filter(|object| object["kind"] == "SecurityContextConstraints").collect();
    assert_eq!(constraints.len(), 3);
    for (owner, pod) in pods(&objects) {
        let account =
            format!("system:serviceaccount:{NAMESPACE}:{}", pod["serviceAccountName"].as_str().unwrap());
        let is_its = |object: &&&serde_json::Value| {
            object["users"].as_array().unwrap().iter().any(|user| *user == account)
        };
        let of_pod: Vec<_> = constraints.iter().filter(is_its).collect();
        let [constraint] = of_pod.as_slice() else { panic!("{owner}: {account} has {of_pod:?}") };
        for (allowed, needed) in [("allowHostNetwork", "hostNetwork"), ("allowHostPID", "hostPID")] {
            assert!(constraint[allowed] == true || pod[needed] != true, "{owner}: {needed}");
        }
        let volumes = pod["volumes"].as_array().unwrap();
        let has_paths = volumes.iter().any(|volume| volume["hostPath"].is_object());
        assert!(constraint["allowHostDirVolumePlugin"] == true || !has_paths, "{owner}");
        for container in containers(&pod) {
            let context = &container["securityContext"];
            let (name, allowed) = (&container["name"], &constraint["allowedCapabilities"]);
            assert!(
                constraint["allowPrivilegedContainer"] == true || context["privileged"] != true,
                "{name}"
            );
            assert!(constraint["runAsUser"]["type"] == "RunAsAny" || context["runAsUser"] != 0, "{name}");
            for capability in context["capabilities"]["add"].as_array().into_iter().flatten() {
                assert!(allowed.as_array().unwrap().contains(capability), "{name}: {capability}");
            }
        }
    }
    let others = constraints.iter().filter(|object| object["metadata"]["name"] != "spiderpool-agent-scc");
    for object in others {
        let asked = ["allowHostPID", "allowHostIPC", "allowPrivilegedContainer", "allowPrivilegeEscalation"];
        assert!(asked.iter().all(|key| object[key] == false), "{object}");
    }
    let agents = find(&objects, "SecurityContextConstraints", "spiderpool-agent-scc");
    assert!(!agents["allowedCapabilities"].to_string().contains("SYS_RESOURCE"));
    // Those of the release go with it.
    let hooks = constraints.iter().filter(|o| o["metadata"]["annotations"]["helm.sh/hook"].is_string());
    assert_eq!(
        hooks.map(|o| title(o)).collect::<Vec<_>>(),
        ["SecurityContextConstraints spiderpool-apply-crds-scc"]
    );
}

/// Upstream's chart swaps them.
#[test]
fn extra_volumes_are_volumes_and_their_mounts_are_mounts() {
    let objects = objects(DRESSED);
    for (kind, name, volume) in
        [("DaemonSet", "spiderpool-agent", "v"), ("Deployment", "spiderpool-controller", "w")]
    {
        let pod = &find(&objects, kind, name)["spec"]["template"]["spec"];
        let named = |list: &serde_json::Value| {
            list.as_array().unwrap().iter().filter(|entry| entry["name"] == volume).count()
        };
        assert_eq!((named(&pod["volumes"]), named(&pod["containers"][0]["volumeMounts"])), (1, 1), "{name}");
    }
}

#[test]
fn probes_ask_where_somebody_listens() {
    let host = |values: &[&str], kind: &str, name: &str| {
        let objects = objects(values);
        let container = find(&objects, kind, name)["spec"]["template"]["spec"]["containers"][0].clone();
        container["readinessProbe"]["httpGet"]["host"].as_str().map(ToOwned::to_owned)
    };
    assert_eq!(host(&[], "DaemonSet", "spiderpool-agent").as_deref(), Some("127.0.0.1"));
    assert_eq!(
        host(&["--set=ipam.enableIPv4=false"], "DaemonSet", "spiderpool-agent").as_deref(),
        Some("::1")
    );
    let own_network = ["--set=spiderpoolController.hostnetwork=false"];
    assert_eq!(host(&own_network, "Deployment", "spiderpool-controller"), None);
}

/// What older charts call `feature` is carried over, and the user is told.
#[test]
fn switches_of_older_charts_are_carried_over() {
    let objects = objects(&["--set=feature.enableIPv6=false"]);
    let file = find(&objects, "ConfigMap", "spiderpool-conf")["data"]["conf.yml"].as_str().unwrap();
    assert!(file.contains("enableIPv6: false") && file.contains("enableIPv4: true"), "{file}");
}
