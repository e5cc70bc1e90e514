//! What the verbs print.

use anyhow::Result;
use spiderpool_tests::cluster::Cluster;
use spiderpool_tests::kubectl::Kubectl as _;
use spiderpool_tests::tools;

pub(crate) fn status(names: &[String]) {
    if names.is_empty() {
        println!("no cluster; `cargo xtask cluster up` starts one");
    }
    for name in names {
        match Cluster::find(name) {
            Ok(cluster) => one(&cluster),
            Err(error) => println!("cluster {name}: {error:#}"),
        }
    }
}

fn one(cluster: &Cluster) {
    let options = cluster.options();
    println!("cluster {}: default network {:?}, kube-proxy by {}", options.name, options.cni, options.proxy);
    for machine in cluster.machines() {
        let services = match machine.services() {
            Ok(services) => services
                .iter()
                .map(|service| match (service.process, service.restarts) {
                    (None, _) => format!("{} (not running)", service.name),
                    (_, 0) => service.name.clone(),
                    (_, restarts) => format!("{} ({restarts} restarts)", service.name),
                })
                .collect::<Vec<_>>()
                .join(", "),
            Err(_) => "switched off".to_owned(),
        };
        println!("  {:<8} {services}", machine.name());
    }
    match cluster.kubectl(&["get", "nodes", "-o", "wide"]) {
        Ok(nodes) => println!("{nodes}"),
        Err(error) => println!("  the API server does not answer: {error:#}"),
    }
}

pub(crate) fn kubeconfig(cluster: &Cluster) -> Result<()> {
    println!("{}", cluster.kubeconfig().display());
    let network = cluster.api_namespaces().shell();
    eprintln!(
        "The API server is reached from the cluster's own network only:\n\n    \
         {network} {} --kubeconfig {} get pods -A",
        tools::kubernetes("kubectl")?.display(),
        cluster.kubeconfig().display()
    );
    Ok(())
}

pub(crate) fn how_to_look_around(cluster: &Cluster) {
    let name = &cluster.options().name;
    let name = if name == "spiderpool" { String::new() } else { format!(" --name {name}") };
    println!(
        "
    cargo xtask cluster shell node1{name}                 # containerd, routes, pods' namespaces
    cargo xtask cluster shell fabric{name} -- kubectl get pods -A
    cargo xtask cluster load-image FILE{name}
    cargo xtask cluster down{name}"
    );
}
