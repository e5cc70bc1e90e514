//! Starts what a replica does for the webhooks: the server, its certificate and the watches behind its decisions.

use std::sync::Arc;

use anyhow::Context as _;
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::core::PartialObjectMeta;
use kube::runtime::events::{Recorder, Reporter};
use kube::runtime::watcher::{self, watcher};
use spiderpool_api::crd::{SpiderCoordinator, SpiderMultusConfig, SpiderSubnet};
use spiderpool_core::admission::Families;
use spiderpool_runtime::health::{Health, Scope};
use spiderpool_runtime::http::{self, Limits, TlsListener};
use spiderpool_runtime::kubernetes::Kubernetes;
use spiderpool_runtime::leader::Role;
use spiderpool_runtime::pools::PoolObject;
use spiderpool_runtime::watch::{Shared, follow, reduced};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, info, info_span};

use super::certificate::{CertificateKeeper, CertificateReport, CertificateResolver, CertificateSettings};
use super::in_use::AddressesInUse;
use super::ip_pool::PoolValidator;
use super::known::{KnownNamespace, KnownNetwork, KnownObjects, KnownPool, KnownSubnet};
use super::multus_config::NetworkValidator;
use super::pod::PodInjector;
use super::review::Validators;
use super::server;
use super::stored_subnet::StoredSubnets;
use super::subnet::SubnetValidator;

/// Pools of a page of the first list.
const PAGE: u32 = 200;

/// How webhooks are served.
pub(crate) struct Webhooks {
    pub(crate) port: u16,
    pub(crate) certificate: CertificateSettings,
    pub(crate) families: Families,
    pub(crate) guards_deletion: bool,
    /// Whether pools belong to SpiderSubnets.
    pub(crate) subnets: bool,
    /// Whether there are SpiderMultusConfigs.
    pub(crate) networks: bool,
    /// Whether pods get networks and resources by an annotation.
    pub(crate) injects_resources: bool,
    /// Whether this replica leads.
    pub(crate) role: watch::Receiver<Role>,
    /// Our own pod, for Events.
    pub(crate) pod: String,
}

/// Binds the port; each task ends with the shutdown.
pub(crate) async fn start(
    webhooks: Webhooks,
    kube: &Kubernetes,
    health: &Health,
    shutdown: &CancellationToken,
) -> anyhow::Result<Vec<JoinHandle<()>>> {
    let port = webhooks.port;
    let listener = http::bind_all(port).await.with_context(|| format!("port {port} of the webhooks"))?;
    info!(address = %listener.local_addr()?, "webhooks are served");
    let resolver = Arc::<CertificateResolver>::default();
    let listener = TlsListener::new(listener, resolver.clone()).context("TLS of the webhooks")?;
    let known = Shared::<KnownObjects>::default();
    let mut tasks = Vec::new();

    let reporter = Reporter { controller: "spiderpool".to_owned(), instance: Some(webhooks.pod) };
    let keeper = CertificateKeeper {
        kube: kube.clone(),
        settings: webhooks.certificate,
        resolver,
        usable: health.condition("webhook certificate", Scope::Readiness),
        report: CertificateReport { recorder: Recorder::new(kube.client(), reporter) },
        role: webhooks.role,
    };
    tasks.push(tokio::spawn(keeper.run(shutdown.clone()).instrument(info_span!("certificate"))));

    tasks.extend(spawn_watches(
        kube,
        &known,
        health,
        webhooks.networks || webhooks.injects_resources,
        shutdown,
    ));
    if webhooks.injects_resources {
        tasks.push(watch_namespaces(kube, &known, health, shutdown));
    }
    let pods = webhooks.injects_resources.then(|| PodInjector::new(kube.clone(), known.clone()));
    let networks = NetworkValidator::new(kube.clone(), known.clone());
    let subnets = SubnetValidator {
        known: known.clone(),
        families: webhooks.families,
        enabled: webhooks.subnets,
        guards_deletion: webhooks.guards_deletion,
    };
    let pools = PoolValidator {
        in_use: AddressesInUse::new(kube.clone()),
        subnets: webhooks.subnets.then(|| StoredSubnets::new(kube.clone())),
        known,
        families: webhooks.families,
        guards_deletion: webhooks.guards_deletion,
    };
    let router = server::router(Validators { pools, subnets, networks, pods });
    tasks.push(tokio::spawn(http::serve(listener, router, Limits::WEBHOOK, shutdown.clone())));
    Ok(tasks)
}

/// What the decisions know of other objects.
fn spawn_watches(
    kube: &Kubernetes,
    known: &Shared<KnownObjects>,
    health: &Health,
    networks: bool,
    shutdown: &CancellationToken,
) -> Vec<JoinHandle<()>> {
    let config = || watcher::Config::default().page_size(PAGE);
    let pools = reduced(watcher(Api::<PoolObject>::all(kube.client()), config()), KnownPool::from);
    let synced = health.condition("webhooks' watch of pools", Scope::Readiness);
    let pools = follow(pools, known.clone(), synced, shutdown.clone(), || {});
    let subnets = watcher(Api::<SpiderSubnet>::all(kube.client()), config());
    let synced = health.condition("webhooks' watch of SpiderSubnets", Scope::Readiness);
    let subnets = reduced(subnets, KnownSubnet::from);
    let subnets = follow(subnets, known.clone(), synced, shutdown.clone(), || {});
    let coordinators = watcher(Api::<SpiderCoordinator>::all(kube.client()), config());
    let synced = health.condition("webhooks' watch of coordinators", Scope::Readiness);
    let coordinators = follow(coordinators, known.clone(), synced, shutdown.clone(), || {});
    let mut tasks = vec![
        tokio::spawn(pools.instrument(info_span!("watch", name = "webhooks' pools"))),
        tokio::spawn(subnets.instrument(info_span!("watch", name = "webhooks' SpiderSubnets"))),
        tokio::spawn(coordinators.instrument(info_span!("watch", name = "webhooks' coordinators"))),
    ];
    if networks {
        let configs = watcher(Api::<SpiderMultusConfig>::all(kube.client()), config());
        let synced = health.condition("webhooks' watch of SpiderMultusConfigs", Scope::Readiness);
        let configs =
            follow(reduced(configs, KnownNetwork::from), known.clone(), synced, shutdown.clone(), || {});
        tasks.push(tokio::spawn(configs.instrument(info_span!("watch", name = "webhooks' networks"))));
    }
    tasks
}

/// What namespaces say of their pods' networks.
fn watch_namespaces(
    kube: &Kubernetes,
    known: &Shared<KnownObjects>,
    health: &Health,
    shutdown: &CancellationToken,
) -> JoinHandle<()> {
    let config = watcher::Config::default().page_size(PAGE);
    let namespaces = watcher(Api::<PartialObjectMeta<Namespace>>::all(kube.client()), config);
    let synced = health.condition("webhooks' watch of namespaces", Scope::Readiness);
    let following =
        follow(reduced(namespaces, KnownNamespace::from), known.clone(), synced, shutdown.clone(), || {});
    tokio::spawn(following.instrument(info_span!("watch", name = "webhooks' namespaces")))
}
