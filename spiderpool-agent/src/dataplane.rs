//! The owner of this node's dataplane: programs, maps and the inventory of the pods that they serve.
//!
//! One thread owns them all and does the blocking work, in the order of asking; [`Handle`] talks to it.

mod attach;
mod cidrs;
mod entries;
mod inventory;
mod metrics;
mod node_link;
mod nodes;
mod owner;
mod recover;
mod state_file;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use spiderpool_api::agent::dataplane::{Attachment, RegisterNics, RegisteredNics};
use spiderpool_runtime::health::Condition;
use tokio::sync::oneshot;
use tracing::{error, info};

pub use cidrs::{ClusterCidrs, ProfileKey, plan_cidrs};
pub use metrics::DataplaneMetrics;
pub use nodes::node_addresses;
pub use owner::{DataplaneError, Owner, Settings};

/// How often flows are expired, counters read and a failed load is tried again.
const SWEEP: Duration = Duration::from_secs(5);

type Answer<T> = oneshot::Sender<Result<T, DataplaneError>>;

enum Order {
    Register(Box<RegisterNics>, Answer<RegisteredNics>),
    Unregister(Attachment, Answer<()>),
    Cluster(ClusterCidrs),
    Nodes(Vec<IpAddr>),
    Stop,
}

/// Talks to the owner. Cheap to clone.
#[derive(Clone)]
pub struct Handle(Sender<Order>);

impl Handle {
    /// Gives a pod's NICs their ids and fills the maps.
    pub async fn register(&self, request: RegisterNics) -> Result<RegisteredNics, DataplaneError> {
        self.ask(|answer| Order::Register(Box::new(request), answer)).await
    }

    /// Takes an attachment out.
    pub async fn unregister(&self, attachment: Attachment) -> Result<(), DataplaneError> {
        self.ask(|answer| Order::Unregister(attachment, answer)).await
    }

    /// What SpiderCoordinator says now.
    pub fn set_cluster(&self, cidrs: ClusterCidrs) {
        self.tell(Order::Cluster(cidrs));
    }

    /// The node's addresses now.
    pub fn set_nodes(&self, addresses: Vec<IpAddr>) {
        self.tell(Order::Nodes(addresses));
    }

    /// Ends the owner's thread. Programs and maps stay.
    pub fn stop(&self) {
        self.tell(Order::Stop);
    }

    fn tell(&self, order: Order) {
        // The thread ends by `Stop` alone; what comes after it is not wanted any more.
        let _ended = self.0.send(order);
    }

    async fn ask<T>(&self, order: impl FnOnce(Answer<T>) -> Order) -> Result<T, DataplaneError> {
        let (sender, answer) = oneshot::channel();
        self.tell(order(sender));
        answer.await.unwrap_or(Err(DataplaneError::Stopped))
    }
}

/// Starts the owner's thread. `loaded` is met while the programs are. The receiver hears when it has tried once to
/// load them, and to take the pods of the node back into service.
pub fn start(
    settings: Settings,
    metrics: DataplaneMetrics,
    loaded: Condition,
) -> std::io::Result<(Handle, oneshot::Receiver<()>)> {
    let (sender, orders) = channel();
    let (tried, first_try) = oneshot::channel();
    thread::Builder::new().name("dataplane".to_owned()).spawn(move || {
        let mut owner = Owner::new(settings, metrics, loaded);
        owner.sweep();
        // The one who waits may have given up.
        let _gone = tried.send(());
        let mut sweep = Instant::now() + SWEEP;
        loop {
            if Instant::now() >= sweep {
                owner.sweep();
                sweep = Instant::now() + SWEEP;
            }
            match orders.recv_timeout(sweep.saturating_duration_since(Instant::now())) {
                Ok(Order::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Ok(order) => obey(&mut owner, order),
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    })?;
    Ok((Handle(sender), first_try))
}

fn obey(owner: &mut Owner, order: Order) {
    match order {
        // The one who asked may have gone; what was done stays done.
        Order::Register(request, answer) => drop(answer.send(owner.register(&request))),
        Order::Unregister(attachment, answer) => drop(answer.send(owner.unregister(&attachment))),
        Order::Cluster(cidrs) => owner.set_cluster(cidrs),
        Order::Nodes(addresses) => owner.set_nodes(addresses),
        Order::Stop => {}
    }
}

/// Follows the node's addresses on a thread of its own, for ever.
pub fn follow_nodes(mut changed: impl FnMut(Vec<IpAddr>) + Send + 'static) -> std::io::Result<()> {
    thread::Builder::new().name("addresses".to_owned()).spawn(move || {
        let outcome = nodes::follow(|addresses| {
            changed(addresses);
            true
        });
        match outcome {
            Ok(()) => info!("node addresses are not followed any more"),
            Err(error) => error!(%error, "node addresses cannot be followed"),
        }
    })?;
    Ok(())
}

/// Where the inventory is kept.
pub fn state_path(folder: &std::path::Path) -> PathBuf {
    folder.join("dataplane.json")
}
