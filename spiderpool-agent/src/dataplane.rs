//! The owner of this node's dataplane: programs, maps and the inventory of the pods that they serve.
//!
//! One thread owns them all and does the blocking work, in the order of asking; [`Handle`] talks to it.

mod attach;
mod cidrs;
mod entries;
mod metrics;
mod owner;
mod recover;

use std::net::IpAddr;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use spiderpool_api::agent::dataplane::{Attachment, RegisterNics, RegisteredNics};
use spiderpool_runtime::health::Condition;
use tokio::sync::oneshot;

use crate::cluster_cidrs::ClusterCidrs;

pub use cidrs::plan_cidrs;
pub use metrics::DataplaneMetrics;
pub use owner::{DataplaneError, Owner, Settings};

/// How often flows are expired, counters read and a failed load is tried again.
const SWEEP: Duration = Duration::from_secs(5);

type Answer<T> = oneshot::Sender<Result<T, DataplaneError>>;

enum Order {
    Register(Box<RegisterNics>, Answer<RegisteredNics>),
    Unregister(Attachment, Answer<()>),
    /// What is in [`News`].
    Renew,
    Stop,
}

/// What is to be steered now. Only the latest counts: carrying it into all pods takes longer than it lasts.
#[derive(Debug, Default)]
struct News {
    cluster: Option<ClusterCidrs>,
    nodes: Option<Vec<IpAddr>>,
}

/// Talks to the owner. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    orders: Sender<Order>,
    news: Arc<Mutex<News>>,
}

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
        self.renew(|news| news.cluster = Some(cidrs));
    }

    /// The node's addresses now.
    pub fn set_nodes(&self, addresses: Vec<IpAddr>) {
        self.renew(|news| news.nodes = Some(addresses));
    }

    /// Ends the owner's thread. Programs and maps stay.
    pub fn stop(&self) {
        self.tell(Order::Stop);
    }

    fn renew(&self, change: impl FnOnce(&mut News)) {
        change(&mut self.news.lock().unwrap_or_else(PoisonError::into_inner));
        self.tell(Order::Renew);
    }

    fn tell(&self, order: Order) {
        // The thread ends by `Stop` alone; what comes after it is not wanted any more.
        let _ended = self.orders.send(order);
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
    let news = Arc::<Mutex<News>>::default();
    let heard = Arc::clone(&news);
    thread::Builder::new().name("dataplane".to_owned()).spawn(move || {
        let mut owner = Owner::new(settings, metrics, loaded);
        owner.sweep();
        // The one who waits may have given up.
        let _gone = tried.send(());
        let mut sweep = Instant::now() + SWEEP;
        loop {
            if Instant::now() >= sweep {
                owner.sweep();
                // A burst of pods leaves holes in the heap, some MiB of it: lists, connections, tasks.
                spiderpool_dataplane::give_back_memory();
                sweep = Instant::now() + SWEEP;
            }
            match orders.recv_timeout(sweep.saturating_duration_since(Instant::now())) {
                Ok(Order::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Ok(order) => obey(&mut owner, &heard, order),
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    })?;
    Ok((Handle { orders: sender, news }, first_try))
}

fn obey(owner: &mut Owner, news: &Mutex<News>, order: Order) {
    match order {
        // The one who asked may have gone; what was done stays done.
        Order::Register(request, answer) => drop(answer.send(owner.register(&request))),
        Order::Unregister(attachment, answer) => drop(answer.send(owner.unregister(&attachment))),
        Order::Renew => {
            let News { cluster, nodes } =
                std::mem::take(&mut *news.lock().unwrap_or_else(PoisonError::into_inner));
            owner.set(cluster, nodes);
        }
        Order::Stop => {}
    }
}
