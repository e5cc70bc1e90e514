//! What the agent's short-lived commands do to a node, in namespaces of their own.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;
use std::process::Command;

use spiderpool_tests::{privilege, process, tools};

/// Runs a shell script in a new mount and network namespace, with the agent as `$AGENT` and its file as `$CONF`.
fn on_a_node(folder: &Path, script: &str) -> String {
    let config = folder.join("conf.yml");
    fs::write(&config, r#"{"enableIPv4": true, "enableIPv6": true, "tuneSysctlConfig": true}"#).unwrap();
    let mut shell = Command::new("unshare");
    shell
        .args(["--mount", "--net", "--propagation", "private", "sh", "-euc", script])
        .current_dir(folder)
        .env("AGENT", tools::spiderpool("spiderpool-agent").unwrap())
        .env("CONF", config)
        // Nobody is to be found by it.
        .env("KUBECONFIG", folder.join("none"));
    process::output(&shell).unwrap()
}

#[test]
fn a_node_is_prepared_once_and_goes_on_following_its_routers() {
    if !privilege::root_or_skip("a_node_is_prepared_once_and_goes_on_following_its_routers") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let said = on_a_node(
        folder.path(),
        r#"
        mkdir bpf
        ip link add up0 type veth peer name up1
        sysctl -qw net.ipv4.conf.all.rp_filter=1
        prepare() { $AGENT prepare-node --config-path $CONF --bpffs $PWD/bpf 2>>log; }
        prepare
        prepare
        stat --file-system --format %T bpf
        grep -c " $PWD/bpf bpf " /proc/mounts
        grep -c "strict reverse path filter" log
        cd /proc/sys/net
        cat ipv4/conf/all/forwarding ipv6/conf/all/forwarding ipv4/conf/all/rp_filter ipv6/conf/up0/accept_ra
        "#,
    );
    assert_eq!(said.split_whitespace().collect::<Vec<_>>(), ["bpf_fs", "1", "1", "1", "1", "0", "2"]);
}

/// As in a container of a node whose mounts are all private: the mount is the node's all the same, and only there.
#[test]
fn bpffs_is_mounted_in_the_nodes_mount_namespace() {
    if !privilege::root_or_skip("bpffs_is_mounted_in_the_nodes_mount_namespace") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let said = on_a_node(
        folder.path(),
        r#"
        mkdir bpf
        container() { unshare --mount --propagation private sh -euc "$1"; }
        prepare='$AGENT prepare-node --config-path $CONF --bpffs $PWD/bpf --mount-namespace /proc/'$$'/ns/mnt 2>>log'
        container "$prepare; stat --file-system --format %T bpf" | sed s/^/container:/
        container "$prepare"
        stat --file-system --format %T bpf
        grep -c " $PWD/bpf bpf " /proc/mounts
        "#,
    );
    let said: Vec<&str> = said.split_whitespace().collect();
    assert_eq!(said[1..], ["bpf_fs", "1"]);
    assert_ne!(said[0], "container:bpf_fs");
}

/// The container runtime may end pods by the configuration by which it started them.
#[test]
fn of_multus_only_the_configuration_goes_while_pods_may_run() {
    if !privilege::root_or_skip("of_multus_only_the_configuration_goes_while_pods_may_run") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let said = on_a_node(
        folder.path(),
        r#"
        mkdir -p image others host/opt/cni/bin host/var/run/spidernet host/etc/cni/net.d/multus.d
        echo new >image/coordinator
        echo multus >others/multus
        $AGENT prepare-node --config-path $CONF --cni-plugins image --plugins-to host/opt/cni/bin --other-plugins others 2>log
        echo '{"type": "multus", "managedBy": "spiderpool"}' >host/etc/cni/net.d/00-multus.conf
        echo '{"current-context": "spiderpool-multus"}' >host/etc/cni/net.d/multus.d/spiderpool.kubeconfig
        $AGENT clean-node --config-path $CONF --node-name n --plugins image --host host --bpf-dir $PWD/none \
            --multus /etc/cni/net.d 2>>log
        find host/etc host/opt -name '*multus*' | sort
        find host/etc -name '*.kubeconfig'
        "#,
    );
    let expected = [
        "host/etc/cni/net.d/multus.d",
        "host/opt/cni/bin/multus",
        "host/etc/cni/net.d/multus.d/spiderpool.kubeconfig",
    ];
    assert_eq!(said.split_whitespace().collect::<Vec<_>>(), expected);
}

/// Without the API server nobody can say whether pods run: then plugins and programs stay.
#[test]
fn a_node_is_not_cleaned_while_pods_may_run() {
    if !privilege::root_or_skip("a_node_is_not_cleaned_while_pods_may_run") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let said = on_a_node(
        folder.path(),
        r"
        mkdir -p image host/opt/cni/bin host/var/run/spidernet
        echo new >image/coordinator
        $AGENT install-plugins --from image --to host/opt/cni/bin 2>log
        touch host/var/run/spidernet/spiderpool.sock
        $AGENT clean-node --config-path $CONF --node-name n --plugins image --host host --bpf-dir $PWD/none 2>>log
        find host -type f | sort
        grep -c 'pods with addresses cannot be listed' log
        ",
    );
    let bin = [
        "host/opt/cni/bin/.spiderpool-plugins.json",
        "host/opt/cni/bin/coordinator",
        "host/opt/cni/bin/veth",
    ];
    assert_eq!(said.split_whitespace().collect::<Vec<_>>(), [&bin[..], &["1"]].concat());
}

/// NetworkAttachmentDefinitions with the plugin veth of another project may rely on what only that one does.
#[test]
fn the_second_name_of_a_plugin_is_taken_from_nobody() {
    if !privilege::root_or_skip("the_second_name_of_a_plugin_is_taken_from_nobody") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let said = on_a_node(
        folder.path(),
        r"
        mkdir image bin
        install() { echo $1 >image/coordinator; $AGENT install-plugins --from image --to bin 2>>log; cat bin/coordinator bin/veth; }
        install one
        install two
        echo theirs >bin/veth
        install three
        rm bin/veth
        install four
        ",
    );
    let expected = ["one", "one", "two", "two", "three", "theirs", "four", "four"];
    assert_eq!(said.split_whitespace().collect::<Vec<_>>(), expected);
}

/// The record is a hidden file, which copies of the folder may lack.
#[test]
fn the_second_name_of_a_plugin_is_replaced_also_without_the_record() {
    if !privilege::root_or_skip("the_second_name_of_a_plugin_is_replaced_also_without_the_record") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let said = on_a_node(
        folder.path(),
        r"
        mkdir image bin
        install() { echo $1 >image/coordinator; $AGENT install-plugins --from image --to bin 2>>log; cat bin/coordinator bin/veth; }
        install one
        rm bin/.spiderpool-plugins.json
        install two
        echo theirs >bin/veth
        rm bin/.spiderpool-plugins.json
        install three
        grep -c 'plugin veth is in the folder, leaving it' log
        ",
    );
    let expected = ["one", "one", "two", "two", "three", "theirs", "1"];
    assert_eq!(said.split_whitespace().collect::<Vec<_>>(), expected);
}
