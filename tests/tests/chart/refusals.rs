//! Values that cannot be used are refused, by name and with a way out.

use crate::render::template;

/// The message with which helm refuses.
fn refusal(values: &[&str]) -> String {
    match template(values) {
        Ok(_) => panic!("{values:?} is taken"),
        Err(error) => format!("{error:#}"),
    }
}

const NOT_SERVED: &[&str] = &[
    "ipam.enableCleanOutdatedEndpoint=true",
    "ipam.gc.statelessPod.enableGcRunningPodOnEmptyPodStatusIPs=true",
    "coordinator.detectGateway=true",
    "plugins.installSriovCNI=true",
    "spiderpoolAgent.networkResourcePlugin.enabled=true",
    "spiderpoolAgent.prometheus.enabledRdmaMetric=true",
    "spiderpoolAgent.prometheus.prometheusRule.install=true",
    "spiderpoolAgent.debug.gopsPort=5713",
    "spiderpoolController.debug.gopsPort=5713",
    "grafanaDashboard.install=true",
    "rdma.rdmaSharedDevicePlugin.install=true",
    "sriov.install=true",
    "iaasNetworkProvider.serverUrl=https://cloud.test",
];

#[test]
fn what_is_not_served_fails_with_its_name_and_a_way_out() {
    for value in NOT_SERVED {
        let message = refusal(&[&format!("--set={value}")]);
        assert!(message.contains(&format!("* {value} is not served yet")), "{message}");
        assert!(message.contains("Instead: "), "{message}");
        assert_eq!(message.matches("\n  * ").count(), 1, "{message}");
    }
}

#[test]
fn all_that_is_wrong_is_said_at_once() {
    let all = NOT_SERVED.iter().map(|value| format!("--set={value}")).collect::<Vec<_>>();
    let mut values: Vec<&str> = all.iter().map(String::as_str).collect();
    values.push("--set=clusterDefaultPool.installIPv4IPPool=true");
    let message = refusal(&values);
    assert_eq!(message.matches("\n  * ").count(), NOT_SERVED.len() + 1, "{message}");
}

#[test]
fn underlay_mode_is_served_by_both_dataplanes() {
    let values = "--set=coordinator.mode=underlay,coordinator.vethLinkAddress=169.254.100.1";
    for dataplane in ["ebpf", "policy"] {
        template(&[values, &format!("--set=coordinator.dataplane={dataplane}")]).unwrap();
    }
}

#[test]
fn a_strict_reverse_path_filter_is_served_by_dataplane_policy() {
    template(&["--set=coordinator.podRPFilter=1,coordinator.dataplane=policy"]).unwrap();
    template(&["--set=coordinator.podRPFilter=1,coordinator.enabled=false"]).unwrap();
    for other in ["-1", "0", "2"] {
        template(&[&format!("--set=coordinator.podRPFilter={other}")]).unwrap();
    }
}

#[test]
fn options_below_a_switch_that_is_off_are_taken() {
    template(&[
        "--set=sriov.image.registry=x,rdma.rdmaSharedDevicePlugin.name=y,plugins.image.tag=z",
        "--set=rdma.rdmaSharedDevicePlugin.deviceConfig.configList[0].resourceName=r",
        "--set=multus.multusCNI.log.logLevel=debug,spiderpoolController.tls.auto.caExpiration=1",
        "--set=multus.multusCNI.name=m,multus.multusCNI.securityContext.privileged=true",
        "--set=spiderpoolController.tls.certmanager.issuerName=i,spiderpoolController.tls.provided.tlsCa=c",
        "--set=spiderpoolAgent.networkResourcePlugin.resourceAdvertisement.subENI.rules[0].name=r",
        "--set=spiderpoolAgent.prometheus.prometheusRule.enableWarningIPAMReleaseFailure=false",
        "--set=grafanaDashboard.namespace=g",
    ])
    .unwrap();
}

/// Upstream's chart has these switches on. What is refused are later capabilities, and nothing harmless.
#[test]
fn of_upstreams_own_values_only_later_capabilities_are_refused() {
    let message = refusal(&[
        "--set=ipam.enableStatefulSet=true,ipam.enableKubevirtStaticIP=true,ipam.spiderSubnet.enable=true",
        "--set=ipam.spiderSubnet.autoPool.enable=true,global.cniConfHostPath=/etc/cni/net.d",
        "--set=multus.multusCNI.install=true,multus.multusCNI.uninstall=false,multus.multusCNI.log.logLevel=debug",
        "--set=multus.multusCNI.image.registry=ghcr.io,multus.multusCNI.image.tag=v4.1.4",
        "--set=multus.multusCNI.image.repository=k8snetworkplumbingwg/multus-cni",
        "--set=multus.multusCNI.securityContext.privileged=true,plugins.installCNI=false",
        "--set=plugins.installRdmaCNI=true,plugins.installOvsCNI=true,plugins.installSriovCNI=true",
        "--set=plugins.installibSriovCNI=true,plugins.installIpoibCNI=true,plugins.installVlanCNI=true",
        "--set=spiderpoolController.replicas=1,spiderpoolController.tls.auto.caExpiration=73000",
    ]);
    let mut refused: Vec<&str> =
        message.lines().filter_map(|line| line.strip_prefix("  * ")?.split('=').next()).collect();
    refused.sort_unstable();
    let expected = [
        "plugins.installIpoibCNI",
        "plugins.installOvsCNI",
        "plugins.installRdmaCNI",
        "plugins.installSriovCNI",
        "plugins.installVlanCNI",
        "plugins.installibSriovCNI",
    ];
    assert_eq!(refused, expected, "{message}");
}

/// A number of the command line is of another type than one of the values file.
#[test]
fn defaults_may_be_said_again() {
    template(&[
        "--set=spiderpoolController.webhookPort=5722,spiderpoolController.debug.gopsPort=5724",
        "--set=global.clusterDnsDomain=cluster.local,coordinator.vethLinkAddress=",
    ])
    .unwrap();
}

#[test]
fn contradictions_are_explained() {
    for (values, part) in [
        (vec!["--set=ipam.enableIPv4=false,ipam.enableIPv6=false"], "are both false"),
        (vec!["--set=clusterDefaultPool.installIPv6IPPool=true"], "needs clusterDefaultPool.ipv6Subnet"),
        (
            vec![
                "--set=clusterDefaultPool.installIPv4IPPool=true,clusterDefaultPool.ipv4Subnet=10.0.0.0/8",
                "--set=ipam.enableIPv4=false",
            ],
            "a family that ipam.enableIPv4 switches off",
        ),
        (
            vec![
                "--set=clusterDefaultPool.installIPv4IPPool=true,clusterDefaultPool.ipv4Subnet=10.0.0.0/8",
                "--set=clusterDefaultPool.installIPv6IPPool=true,clusterDefaultPool.ipv6Subnet=fd00::/64",
                "--set=clusterDefaultPool.ipv4SubnetName=s,clusterDefaultPool.ipv6SubnetName=s",
                "--set=ipam.spiderSubnet.enable=true",
            ],
            "two SpiderSubnets cannot have one name",
        ),
        (vec!["--set=coordinator.podRPFilter=1"], "Set coordinator.podRPFilter to 0, or"),
        (vec!["--set=spiderpoolController.httpPort=5710"], "are both 5710"),
        (vec!["--set=spiderpoolController.webhookPort=5720"], "are both 5720"),
        (
            vec!["--set=spiderpoolController.tls.method=certmanager"],
            "needs spiderpoolController.tls.certmanager.issuerName",
        ),
        (
            vec!["--set=spiderpoolController.tls.method=provided,spiderpoolController.tls.provided.tlsCa=c"],
            "needs tlsCert, tlsKey and tlsCa",
        ),
        (vec!["--set=spiderpoolController.tls.auto.certExpiration=0"], "are days: at least 1"),
        (vec!["--set=global.ipamUNIXSocketHostPath=/var/run/a.sock"], "a folder of its own"),
        (vec!["--set=global.ipamUNIXSocketHostPath=/var/log/a.sock"], "a folder of its own"),
        (vec!["--set=global.ipamUNIXSocketHostPath=/spidernet/a.sock"], "two folders below /"),
        (vec!["--set=spiderpoolAgent.name=a,spiderpoolController.name=a"], "must differ from each other"),
        (vec!["--set=global.cniBinHostPath=opt"], "must be an absolute path"),
        (vec!["--set=global.cniConfHostPath=etc"], "must be an absolute path"),
        (vec!["--set=multus.multusCNI.name=spiderpool-agent"], "must differ from each other"),
        (
            vec!["--set=spiderpoolController.cleanup.enable=false"],
            "Set multus.multusCNI.uninstall=false if it shall stay there",
        ),
        (
            vec![
                "--set=spiderpoolAgent.extraEnv[0].name=SPIDERPOOL_LOG_LEVEL",
                "--set=spiderpoolAgent.extraEnv[0].value=x",
            ],
            "SPIDERPOOL_LOG_LEVEL, which the chart sets itself",
        ),
        (vec!["--set=feature.enableSpiderSubnet=true"], "feature.enableSpiderSubnet is of an older chart"),
    ] {
        let message = refusal(&values);
        assert!(message.contains(part), "{part:?} is not in {message}");
    }
}

#[test]
fn slips_are_found_by_the_schema_and_shown_by_path() {
    for (value, parts) in [
        ("ipam.enableIPv4=maybe", vec!["/ipam/enableIPv4", "boolean"]),
        ("ipam.enableIPV4=true", vec!["/ipam", "enableIPV4"]),
        ("coordinator.mode=overley", vec!["/coordinator/mode", "overlay"]),
        ("coordinator.ebpf.maps.nics=70000", vec!["/coordinator/ebpf/maps/nics", "65,535"]),
        ("spiderpoolAgent.httpPort=0", vec!["/spiderpoolAgent/httpPort"]),
        ("global.ciliumConfigMap=cilium-config", vec!["/global/ciliumConfigMap"]),
        ("coordinator.podCIDRType=flannel", vec!["/coordinator/podCIDRType"]),
        ("spiderpolAgent.name=x", vec!["spiderpolAgent"]),
        ("global.imageRegistyOverride=x", vec!["/global", "imageRegistyOverride"]),
        ("multus.multusCNI.instal=true", vec!["/multus/multusCNI", "instal"]),
        ("multus.multusCNI.log.logLevel=loud", vec!["/multus/multusCNI/log/logLevel", "verbose"]),
        (
            "ipam.spiderSubnet.autoPool.thirdPartyWorkloads[0].apiGroups={*}",
            vec!["/ipam/spiderSubnet/autoPool/thirdPartyWorkloads/0", "resources"],
        ),
        ("plugins.installCni=true", vec!["/plugins", "installCni"]),
        ("rdma.sharedDevicePlugin.install=true", vec!["/rdma", "sharedDevicePlugin"]),
        ("spiderpoolController.tls.methd=auto", vec!["/spiderpoolController/tls", "methd"]),
        (
            "spiderpoolAgent.networkResourcePlugin.enable=true",
            vec!["/spiderpoolAgent/networkResourcePlugin", "enable"],
        ),
    ] {
        let message = refusal(&[&format!("--set={value}")]);
        for part in parts {
            assert!(message.contains(part), "{part:?} is not in {message}");
        }
    }
}
