use spiderpool_core::multus_conf::Obstacle;

use super::super::claims::tests::token;
use super::super::removal::{has_rest, remove_rest, withdraw};
use super::*;

const CALICO: &str = r#"{"cniVersion":"0.3.1","name":"k8s-pod-network","plugins":[{"type":"calico"}]}"#;

fn access(token: &str) -> Access {
    Access {
        server: "https://10.96.0.1:443".to_owned(),
        ca: "CA".to_owned(),
        namespace: "spiderpool".to_owned(),
        token: token.to_owned(),
    }
}

/// A node with a default CNI and Multus' program.
fn node() -> (tempfile::TempDir, ConfDir) {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("10-calico.conflist"), CALICO).unwrap();
    let dir = restarted(&root);
    (root, dir)
}

/// What another agent finds there.
fn restarted(root: &tempfile::TempDir) -> ConfDir {
    let settings = Settings {
        namespace: "spiderpool".to_owned(),
        cluster_network: None,
        conf_dir: "/etc/cni/net.d".to_owned(),
        kubeconfig: format!("/etc/cni/net.d/{}", kubeconfig::FILE),
        log_level: "verbose".to_owned(),
        log_file: "/var/log/multus.log".to_owned(),
    };
    ConfDir::new(root.path().to_owned(), settings, "system:serviceaccount:spiderpool:m".to_owned(), None)
}

fn names(root: &tempfile::TempDir) -> Vec<String> {
    let entries = fs::read_dir(root.path()).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn multus_comes_before_the_default_network_and_goes_with_its_kubeconfig_last() {
    let (root, mut dir) = node();
    let default_file = Some("10-calico.conflist".to_owned());
    assert_eq!(dir.run(Some(&access("a"))).unwrap(), Written::Conf { default_file, preceded_by: None });
    assert_eq!(dir.run(Some(&access("a"))).unwrap(), Written::Nothing);
    assert_eq!(names(&root), [FILE, "10-calico.conflist", "multus.d"]);
    assert!(withdraw(root.path()).unwrap());
    assert!(!withdraw(root.path()).unwrap());
    // The container runtime may end pods by the configuration by which it started them.
    assert_eq!(names(&root), ["10-calico.conflist", "multus.d"]);
    assert!(has_rest(root.path(), root.path()));
    assert_eq!(remove_rest(root.path(), root.path()), Vec::<String>::new());
    assert_eq!(names(&root), ["10-calico.conflist"]);
    assert!(!has_rest(root.path(), root.path()));
}

/// As at a rolling update, and while the API server is away.
#[test]
fn an_agent_that_starts_changes_nothing_that_is_right() {
    let (root, mut dir) = node();
    assert!(matches!(dir.run(None), Err(DirError::NoAccess)));
    assert_eq!(names(&root), ["10-calico.conflist"], "pods would not start without access");
    dir.run(Some(&access("a"))).unwrap();
    let inode = |path: &str| {
        use std::os::unix::fs::MetadataExt as _;
        fs::metadata(root.path().join(path)).unwrap().ino()
    };
    let before = inode(FILE);
    assert_eq!(restarted(&root).run(None).unwrap(), Written::Nothing);
    assert_eq!(inode(FILE), before);
}

#[test]
fn a_default_network_that_comes_later_or_is_written_again_is_followed() {
    let (root, mut dir) = node();
    let calico = root.path().join("10-calico.conflist");
    fs::remove_file(&calico).unwrap();
    assert!(matches!(dir.run(Some(&access("a"))), Err(DirError::Obstacle(_))));
    fs::write(&calico, CALICO).unwrap();
    dir.run(Some(&access("a"))).unwrap();
    // As the CNI's daemon does after a reboot: for a moment there is none, then half of it, then another one.
    fs::remove_file(&calico).unwrap();
    dir.run(Some(&access("a"))).unwrap_err();
    fs::write(&calico, &CALICO[..20]).unwrap();
    dir.run(Some(&access("a"))).unwrap_err();
    let ours = || fs::read_to_string(root.path().join(FILE)).unwrap();
    assert!(ours().contains("k8s-pod-network"), "what was right last stays");
    fs::write(&calico, CALICO.replace("k8s-pod-network", "renewed")).unwrap();
    dir.run(Some(&access("a"))).unwrap();
    assert!(ours().contains("renewed"));
}

#[test]
fn a_configuration_that_cilium_renames_is_put_back_and_said() {
    let (root, mut dir) = node();
    dir.run(Some(&access("a"))).unwrap();
    fs::rename(root.path().join(FILE), root.path().join(RENAMED_BY_CILIUM)).unwrap();
    assert_eq!(dir.run(Some(&access("a"))).unwrap(), Written::RenamedByCilium);
    assert_eq!(names(&root), [FILE, "10-calico.conflist", "multus.d"]);
    fs::remove_file(root.path().join(FILE)).unwrap();
    assert_eq!(dir.run(Some(&access("a"))).unwrap(), Written::Again);
}

#[test]
fn the_multus_of_somebody_else_is_not_touched() {
    let (root, mut dir) = node();
    let other = r#"{"cniVersion":"1.0.0","name":"multus-cni-network","type":"multus-shim"}"#;
    fs::write(root.path().join(FILE), other).unwrap();
    assert!(matches!(dir.run(Some(&access("a"))), Err(DirError::Obstacle(Obstacle::OtherMultus { .. }))));
    assert!(!withdraw(root.path()).unwrap());
    assert_eq!(fs::read_to_string(root.path().join(FILE)).unwrap(), other);
    assert_eq!(names(&root), [FILE, "10-calico.conflist"]);
}

#[test]
fn without_the_program_the_runtime_is_not_told_to_execute_it() {
    let (root, dir) = node();
    // As k3s has it: a link of the node, which leads elsewhere in this container.
    let bin = root.path().join("host/data/bin");
    fs::create_dir_all(&bin).unwrap();
    std::os::unix::fs::symlink("/data", root.path().join("host/current")).unwrap();
    let program = Program { host: root.path().join("host"), folder: "/current/bin".into() };
    let mut dir = ConfDir { program: Some(program), ..dir };
    assert!(matches!(dir.run(Some(&access("a"))), Err(DirError::NoProgram(_))));
    fs::write(bin.join("multus"), "").unwrap();
    dir.run(Some(&access("a"))).unwrap();
}

#[test]
fn the_kubeconfig_follows_token_and_ca_and_only_root_reads_it() {
    use std::os::unix::fs::PermissionsExt as _;
    let (root, mut dir) = node();
    dir.run(Some(&access("first"))).unwrap();
    let path = root.path().join(kubeconfig::FILE);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    dir.run(Some(&access("second"))).unwrap();
    assert!(fs::read_to_string(&path).unwrap().contains("second"));
    dir.run(Some(&Access { ca: "CB".to_owned(), ..access("second") })).unwrap();
    assert!(fs::read_to_string(&path).unwrap().contains("Q0I="));
}

/// What upstream's chart has left behind in the release's namespace is known by whose token it has.
#[test]
fn the_multus_of_upstreams_chart_is_replaced_and_another_one_of_the_same_namespace_is_not() {
    for (account, is_replaced) in [("spiderpool/m", true), ("spiderpool/multus", false)] {
        let (root, mut dir) = node();
        let theirs = r#"{"cniVersion":"0.3.1","name":"multus-cni-network","type":"multus","multusNamespace":"spiderpool",
            "kubeconfig":"/etc/cni/net.d/multus.d/multus.kubeconfig"}"#;
        fs::write(root.path().join(FILE), theirs).unwrap();
        let kubeconfig = root.path().join(kubeconfig::UPSTREAMS);
        fs::create_dir(kubeconfig.parent().unwrap()).unwrap();
        let user = format!("users:\n- name: multus\n  user:\n    token: \"{}\"\n", token(account, "u", 60));
        fs::write(&kubeconfig, &user).unwrap();
        let outcome = dir.run(Some(&access("a")));
        assert_eq!(matches!(outcome, Ok(Written::Conf { .. })), is_replaced, "{account}: {outcome:?}");
        assert_eq!(fs::read_to_string(&kubeconfig).unwrap(), user);
    }
}

/// In the agent's container it may lead nowhere.
#[test]
fn a_program_that_is_a_link_is_there() {
    let (root, dir) = node();
    fs::create_dir(root.path().join("bin")).unwrap();
    std::os::unix::fs::symlink("/on/the/node", root.path().join("bin/multus")).unwrap();
    let program = Program { host: root.path().to_owned(), folder: "/bin".into() };
    ConfDir { program: Some(program), ..dir }.run(Some(&access("a"))).unwrap();
}
