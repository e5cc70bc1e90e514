//! How many connections a server has, and for how long: nobody who reaches it uses up the process's files.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use axum::serve::Listener;
use tokio::task::{AbortHandle, JoinSet};

/// What the clients of a server may use up.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub(super) connections: usize,
    pub(super) clients: Clients,
}

/// Who they are, which decides what happens to a connection too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Clients {
    /// Whoever reaches the port. The oldest connection without a request is closed in favor of a new one, or the oldest if all
    /// have one: a client that asks at once, like the kubelet, is always answered, and an answer that takes long is not lost
    /// to connections that ask nothing. A connection is for one request, and ends in this time.
    Anybody { lifetime: Duration },
    /// The same, and above all one client that comes again: its connection stays open for the next request. Of those without
    /// a request, the ones that have never had one are closed first.
    Returning,
    /// They wait until a connection has ended: a request of theirs that has begun is answered.
    Trusted,
}

impl Limits {
    /// For a port that anybody may reach.
    pub const PORT: Self =
        Self { connections: 64, clients: Clients::Anybody { lifetime: Duration::from_secs(10) } };
    /// For the webhooks' port. The API server asks as many objects at a time as its clients write. A handshake for each of its
    /// requests would take more time than the answer.
    pub const WEBHOOK: Self = Self { connections: 256, clients: Clients::Returning };
    /// For a unix socket with permissions. More than the pods that a kubelet starts and ends at the same time.
    pub const SOCKET: Self = Self { connections: 512, clients: Clients::Trusted };
}

/// What a connection has come to: the lower, the sooner it gives way.
#[derive(Debug, Clone, Default)]
pub(super) struct Progress(Arc<AtomicU8>);

/// How long a returning client's new connections are waited for.
const PATIENCE: Duration = Duration::from_millis(500);
/// A request was answered; 0 is none yet.
const ANSWERED: u8 = 1;
/// A request has come as a whole and is being answered.
const ANSWERING: u8 = 2;

impl Progress {
    pub(super) fn request_has_come(&self) {
        self.0.store(ANSWERING, Ordering::Relaxed);
    }

    pub(super) fn request_is_answered(&self) {
        self.0.store(ANSWERED, Ordering::Relaxed);
    }

    fn stage(&self) -> u8 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Debug)]
struct Connection {
    task: AbortHandle,
    progress: Progress,
    since: Instant,
}

impl Connection {
    /// Whether it waits for a request, and not only because it is new.
    fn is_idle(&self) -> bool {
        match self.progress.stage() {
            ANSWERED => true,
            ANSWERING => false,
            _ => self.since.elapsed() >= PATIENCE,
        }
    }
}

/// The connections of one server. Dropping it closes them.
#[derive(Debug)]
pub(super) struct Connections {
    limits: Limits,
    tasks: JoinSet<()>,
    /// Oldest first; some may have ended.
    by_age: VecDeque<Connection>,
}

impl Connections {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, tasks: JoinSet::new(), by_age: VecDeque::new() }
    }

    /// The next connection, when there is room for it.
    pub(super) async fn accept<L: Listener>(&mut self, listener: &mut L) -> L::Io {
        if self.limits.clients == Clients::Trusted {
            self.make_room().await;
        }
        let (stream, _) = listener.accept().await;
        // At once for `Trusted`: there is room already.
        self.make_room().await;
        stream
    }

    async fn make_room(&mut self) {
        while self.tasks.try_join_next().is_some() {}
        while self.tasks.len() >= self.limits.connections {
            if self.limits.clients != Clients::Trusted {
                self.by_age.retain(|connection| !connection.task.is_finished());
                if self.limits.clients == Clients::Returning && !self.by_age.iter().any(Connection::is_idle) {
                    // So many at once may all be the API server's: most of them end in a moment.
                    if tokio::time::timeout(PATIENCE, self.tasks.join_next()).await.is_ok() {
                        continue;
                    }
                }
                // The first of several is the oldest.
                let first = self.by_age.iter().enumerate().min_by_key(|(_, one)| one.progress.stage());
                let first = first.map(|(index, _)| index);
                if let Some(closed) = first.and_then(|index| self.by_age.remove(index)) {
                    closed.task.abort();
                }
            }
            self.tasks.join_next().await;
        }
    }

    pub(super) fn spawn(
        &mut self,
        connection: impl Future<Output = ()> + Send + 'static,
        progress: Progress,
    ) {
        let limits = self.limits;
        let task = self.tasks.spawn(async move {
            match limits.clients {
                Clients::Anybody { lifetime } => {
                    drop(tokio::time::timeout(lifetime, connection).await);
                }
                Clients::Returning | Clients::Trusted => connection.await,
            }
        });
        if limits.clients != Clients::Trusted {
            self.by_age.retain(|connection| !connection.task.is_finished());
            self.by_age.push_back(Connection { task, progress, since: Instant::now() });
        }
    }
}
