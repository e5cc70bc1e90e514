//! Follows SpiderSubnets, reserved addresses and workloads.

use std::time::Duration;

use futures::future::join_all;
use kube::Api;
use kube::runtime::watcher::{self, watcher};
use spiderpool_api::crd::SpiderReservedIP;
use spiderpool_api::workload::WorkloadKind;
use spiderpool_core::names::PoolName;
use spiderpool_runtime::health::{Health, Scope};
use spiderpool_runtime::kubernetes::Kubernetes;
use spiderpool_runtime::watch::{Shared, follow, reduced};
use spiderpool_runtime::work_queue::WorkQueue;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, info_span};

use super::applications::{AllApplications, Applications, SlimWorkload};
use super::gauges;
use super::known::{SubnetIndex, SubnetObject};
use crate::config::SubnetSettings;
use crate::leader::metrics::SubnetGauges;

/// Objects of a page of the first list.
const PAGE: u32 = 200;
/// How often it is looked whether all have listed.
const POLL: Duration = Duration::from_millis(20);

/// The watches, before and while they run.
pub(super) struct Watches<'a> {
    pub(super) kube: &'a Kubernetes,
    pub(super) index: &'a Shared<SubnetIndex>,
    pub(super) applications: &'a AllApplications,
    /// Where metrics are served.
    pub(super) gauges: Option<&'a SubnetGauges>,
    /// What is followed beside the subnets.
    pub(super) settings: SubnetSettings,
    pub(super) queue: &'a WorkQueue<PoolName>,
    pub(super) health: Health,
}

impl Watches<'_> {
    /// Follows all until shutdown, and adds each subnet to the queue of which something has changed. A watch that fails says so
    /// in the log.
    pub(super) async fn run(&self, shutdown: &CancellationToken) {
        let config = || watcher::Config::default().page_size(PAGE);
        let client = || self.kube.client();
        let condition = |name: &'static str| self.health.condition(name, Scope::Startup);
        let enqueue = || {
            for subnet in self.index.write(SubnetIndex::take_changed) {
                if let Some(gauges) = self.gauges {
                    gauges::show(gauges, &subnet, self.index.read(|index| index.get(&subnet)).as_deref());
                }
                self.queue.add(subnet);
            }
        };
        let subnets = watcher(Api::<SubnetObject>::all(client()), config());
        let synced = condition("watch of SpiderSubnets");
        let subnets = follow(subnets, self.index.clone(), synced, shutdown.clone(), enqueue);
        let reserved = watcher(Api::<SpiderReservedIP>::all(client()), config());
        let synced = condition("watch of SpiderReservedIPs");
        let reserved = follow(reserved, self.index.clone(), synced, shutdown.clone(), enqueue);
        let reserved = async {
            if self.settings.enabled {
                reserved.instrument(info_span!("watch", name = "reserved addresses")).await;
            }
        };
        let kinds = if self.settings.auto_pools { &WorkloadKind::ALL[..] } else { &[] };
        let workloads = kinds.iter().zip(self.applications.iter()).map(|(&kind, index)| {
            let events = watcher(kind.all(client()), config());
            let events = reduced(events, move |object| SlimWorkload::new(kind, &object));
            let enqueue = move || {
                for subnet in index.write(Applications::take_changed) {
                    self.queue.add(subnet);
                }
            };
            let following =
                follow(events, index.clone(), condition(kind.as_str()), shutdown.clone(), enqueue);
            following.instrument(info_span!("watch", name = kind.as_str()))
        });
        let workloads = join_all(workloads);
        tokio::join!(subnets.instrument(info_span!("watch", name = "subnets")), reserved, workloads);
    }

    /// Waits until all have listed, or for the shutdown.
    pub(super) async fn listed(&self, shutdown: &CancellationToken) {
        let pause = || shutdown.run_until_cancelled(tokio::time::sleep(POLL));
        // The conditions are made when the watches begin.
        while pause().await.is_some() && self.health.started().is_err() {}
    }
}
