//! The flow matrix between real pods: both default CNIs, both modes of kube-proxy.
#![forbid(unsafe_code)]

use anyhow::{Result, ensure};
use spiderpool_tests::cluster::{Cluster, ClusterFixture, DefaultCni, Options, ProxyMode};
use spiderpool_tests::fixture::{Fixture as _, RouteHints, run_matrix};
use spiderpool_tests::{privilege, release, teardown};

fn every_flow_works(cni: DefaultCni) -> Result<()> {
    let before = teardown::Snapshot::take()?;
    let cluster = Cluster::up(&Options { cni, proxy: ProxyMode::Nftables, ..Options::default() })?;
    release::load_images(&cluster)?;
    release::install(&cluster, &[])?;
    release::apply_network(&cluster)?;
    for (mode, hints) in [(ProxyMode::Nftables, RouteHints::Auto), (ProxyMode::Iptables, RouteHints::Never)] {
        cluster.set_proxy_mode(mode)?;
        let mut fixture = Box::new(ClusterFixture::start(&cluster, |_| ())?);
        let failed = run_matrix(&mut *fixture, &[hints])?;
        fixture.finish()?;
        ensure!(failed.is_empty(), "{mode:?}: {} flows failed:\n{}", failed.len(), failed.join("\n"));
    }
    let folder = cluster.folder().to_owned();
    cluster.down()?;
    before.check_nothing_left_of(&folder)
}

#[test]
fn every_flow_works_beside_calico() {
    if privilege::root_or_skip("every_flow_works_beside_calico")
        && let Err(error) = every_flow_works(DefaultCni::CalicoLike)
    {
        panic!("{error:#}");
    }
}

#[test]
fn every_flow_works_beside_cilium() {
    if privilege::root_or_skip("every_flow_works_beside_cilium")
        && let Err(error) = every_flow_works(DefaultCni::CiliumLike)
    {
        panic!("{error:#}");
    }
}
