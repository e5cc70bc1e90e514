use super::*;

const CALICO: &str = r#"{"cniVersion":"0.3.1","name":"k8s-pod-network","plugins":[
    {"type":"calico","ipam":{"type":"host-local","ranges":[[{"subnet":"10.244.0.0/24"}]]}},
    {"type":"portmap","capabilities":{"portMappings":true}},
    {"type":"tuning","capabilities":{"mac":true,"ips":false}}]}"#;

fn file(name: &str, content: &str) -> ConfFile {
    ConfFile { name: name.to_owned(), content: content.to_owned() }
}

fn settings() -> Settings {
    Settings {
        namespace: "spiderpool".to_owned(),
        cluster_network: None,
        conf_dir: "/etc/cni/net.d".to_owned(),
        kubeconfig: "/etc/cni/net.d/multus.d/spiderpool.kubeconfig".to_owned(),
        log_level: "verbose".to_owned(),
        log_file: "/var/log/multus.log".to_owned(),
    }
}

fn plan(files: &[ConfFile]) -> Result<MultusConf, Obstacle> {
    plan_multus_conf(files, &settings(), None)
}

fn network(name: &str) -> String {
    format!(r#"{{"cniVersion":"0.3.1","name":"{name}","type":"ptp"}}"#)
}

fn default_of(files: &[ConfFile]) -> String {
    plan(files).unwrap().default_file.unwrap()
}

#[test]
fn the_default_network_is_a_delegate_as_it_is_in_its_file() {
    let conf = plan(&[file("10-calico.conflist", CALICO)]).unwrap();
    assert_eq!((conf.default_file.as_deref(), conf.preceded_by), (Some("10-calico.conflist"), None));
    let json: Value = serde_json::from_str(&conf.content).unwrap();
    assert_eq!(json["delegates"][0], serde_json::from_str::<Value>(CALICO).unwrap());
    let expected = json!({
        "cniVersion": "0.3.1", "name": "multus-cni-network", "type": "multus", "managedBy": "spiderpool",
        "capabilities": {"bandwidth": true, "mac": true, "portMappings": true},
        "confDir": "/etc/cni/net.d", "kubeconfig": "/etc/cni/net.d/multus.d/spiderpool.kubeconfig",
        "delegates": json["delegates"], "logFile": "/var/log/multus.log", "logLevel": "verbose",
        "logOptions": {"maxAge": 5, "maxSize": 100, "maxBackups": 5, "compress": true},
        "multusNamespace": "spiderpool", "namespaceIsolation": false, "systemNamespaces": [],
    });
    assert_eq!(json, expected);
}

#[test]
fn the_first_file_in_order_of_names_that_the_runtime_reads_is_the_default_network() {
    let files = [
        file("20-other.conf", &network("other")),
        file("10-b.json", &network("b")),
        file("05-Multus-extra.conf", &network("extra")),
        file("01-notes.txt", "text"),
        file(".00-multus.conf.spiderpool-new", "half"),
        file("00-calico.conflist.cilium_bak", CALICO),
    ];
    assert_eq!(default_of(&files), "10-b.json");
    assert_eq!(default_of(&files[..1]), "20-other.conf");
}

/// As after a reboot, and when another default CNI takes over.
#[test]
fn a_default_network_that_is_written_again_or_replaced_is_followed() {
    let first = plan(&[file("10-calico.conflist", CALICO)]).unwrap();
    let ours = file(FILE, &first.content);
    assert_eq!(plan(&[file("10-calico.conflist", CALICO), ours.clone()]).unwrap().content, first.content);
    let flannel = [ours, file("05-flannel.conf", &network("cbr0")), file("10-calico.conflist", CALICO)];
    let second = plan(&flannel).unwrap();
    assert!(second.content.contains("cbr0") && !second.content.contains("calico"), "{}", second.content);
}

#[test]
fn without_default_network_or_with_half_a_file_nothing_is_written() {
    let ours = plan(&[file("10-calico.conflist", CALICO)]).unwrap().content;
    let none = plan(&[file(FILE, &ours)]).unwrap_err();
    assert!(none.to_string().contains("no configuration of a default CNI in /etc/cni/net.d"), "{none}");
    let renamed = plan(&[file("10-calico.conflist.cilium_bak", CALICO)]).unwrap_err().to_string();
    assert!(
        renamed.contains("Cilium has renamed 10-calico.conflist.cilium_bak: set cni.exclusive=false"),
        "{renamed}"
    );
    for half in [
        "{\"cniVersion\":",
        r#"{"type":"ptp"}"#,
        r#"{"name":"a","plugins":[]}"#,
        r#"{"name":"a","plugins":[{}]}"#,
    ] {
        let why = plan(&[file("10-a.conflist", half), file("20-b.conf", &network("b"))]).unwrap_err();
        assert!(matches!(&why, Obstacle::Unreadable { file, .. } if file == "10-a.conflist"), "{why}");
    }
}

/// Also in the release's namespace: somebody's own Multus is often in kube-system, and so may be the release.
#[test]
fn the_multus_of_somebody_else_is_left_alone_and_that_of_upstreams_chart_is_taken_over() {
    let kubeconfig = "/etc/cni/net.d/multus.d/multus.kubeconfig";
    let multus = |kind: &str, namespace: &str| {
        json!({"cniVersion": "0.3.1", "name": "multus-cni-network", "type": kind, "multusNamespace": namespace,
            "kubeconfig": kubeconfig})
    };
    let with = |name: &str, content: &Value, predecessor: Option<&str>| {
        let files = [file("10-calico.conflist", CALICO), file(name, &content.to_string())];
        plan_multus_conf(&files, &settings(), predecessor)
    };
    for (name, content, predecessor) in [
        (FILE, multus("multus", "spiderpool"), None),
        (FILE, multus("multus", "spiderpool"), Some("/elsewhere/multus.kubeconfig")),
        (FILE, multus("multus-shim", "spiderpool"), Some(kubeconfig)),
        ("00-multus.conflist", multus("multus", "spiderpool"), Some(kubeconfig)),
        ("70-multus.conflist", json!({"name": "m", "plugins": [multus("multus", "spiderpool")]}), None),
    ] {
        let refused = with(name, &content, predecessor).unwrap_err();
        assert_eq!(refused, Obstacle::OtherMultus { file: name.to_owned() }, "{content}");
    }
    assert!(with(FILE, &multus("multus", "spiderpool"), Some(kubeconfig)).is_ok());
}

#[test]
fn a_file_that_the_runtime_takes_before_multus_is_named() {
    let conf = plan(&[file("00-calico.conflist", CALICO)]).unwrap();
    assert_eq!(conf.preceded_by.as_deref(), Some("00-calico.conflist"));
}

#[test]
fn a_network_attachment_definition_as_default_network_needs_no_file() {
    let settings = Settings { cluster_network: Some("default-network".to_owned()), ..settings() };
    let conf = plan_multus_conf(&[], &settings, None).unwrap();
    let json: Value = serde_json::from_str(&conf.content).unwrap();
    assert_eq!(
        (&json["clusterNetwork"], &json["multusNamespace"]),
        (&json!("default-network"), &json!("spiderpool"))
    );
    assert_eq!((&json["delegates"], conf.default_file), (&Value::Null, None));
}

#[test]
fn a_version_that_asks_plugins_for_more_is_not_spoken() {
    let version = |text: &str| {
        let conf = plan(&[file("10-a.conf", &format!(r#"{{{text}"name":"a","type":"ptp"}}"#))]).unwrap();
        serde_json::from_str::<Value>(&conf.content).unwrap()["cniVersion"].clone()
    };
    assert_eq!(version(r#""cniVersion":"1.1.0","#), "1.0.0");
    assert_eq!(version(r#""cniVersion":"0.4.0","#), "0.4.0");
    assert_eq!(version(""), "0.3.1");
}

#[test]
fn multus_is_found_in_every_form_that_its_installers_write() {
    let has =
        |name: &str, content: &str| has_multus(&[file("10-calico.conflist", CALICO), file(name, content)]);
    assert!(has(FILE, r#"{"type":"multus-shim"}"#));
    assert!(has("70-multus.conflist", r#"{"plugins":[{"type":"multus"}]}"#));
    assert!(!has(RENAMED_BY_CILIUM, r#"{"type":"multus"}"#));
    assert!(!has("20-other.conf", &network("multus")));
}

#[test]
fn ours_is_known_by_its_mark() {
    let ours = plan(&[file("10-calico.conflist", CALICO)]).unwrap().content;
    assert!(is_ours(&ours));
    assert!(!is_ours(CALICO) && !is_ours("") && !is_ours("half {"));
}
