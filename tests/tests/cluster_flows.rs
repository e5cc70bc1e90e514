//! The flow matrix between real pods, and their Services by the nodes' ports: both default CNIs, both modes of kube-proxy. In the short form each CNI has one mode.
#![forbid(unsafe_code)]

use anyhow::{Result, ensure};
use spiderpool_tests::cluster::{Cluster, ClusterFixture, DefaultCni, Options, ProxyMode};
use spiderpool_tests::fixture::{Fixture as _, RouteHints, run_matrix};
use spiderpool_tests::matrix::DefaultRoute;
use spiderpool_tests::{long_form, privilege, release, teardown};

const TURNS: [(ProxyMode, RouteHints); 2] =
    [(ProxyMode::Nftables, RouteHints::Auto), (ProxyMode::Iptables, RouteHints::Never)];

fn every_flow_works(cni: DefaultCni) -> Result<()> {
    let before = teardown::Snapshot::take()?;
    let cluster = Cluster::up(&Options { cni, proxy: ProxyMode::Nftables, ..Options::default() })?;
    release::load_images(&cluster)?;
    release::install(&cluster, &[])?;
    release::apply_network(&cluster)?;
    let turns = match cni {
        _ if long_form::is_asked_for() => &TURNS[..],
        DefaultCni::CiliumLike => &TURNS[1..],
        _ => &TURNS[..1],
    };
    for &(mode, hints) in turns {
        cluster.set_proxy_mode(mode)?;
        let mut fixture = Box::new(ClusterFixture::start(&cluster, |_| ())?);
        let failed = run_matrix(&mut *fixture, &[hints])?;
        for default_route in DefaultRoute::ALL {
            let pod = fixture.add_pod(&format!("published-{}", default_route.nic()), default_route)?;
            fixture.check_published(&pod)?;
        }
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
