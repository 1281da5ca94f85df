//! The threads that serve clients. Each has a runtime of its own and accepts for itself: what a connection needs happens on the
//! thread that accepted it, and wakes no other.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread;

use egret_proxy::{Gateway, Serving};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};

/// More threads than this gain nothing for a sidecar, and each costs memory.
const MAX: usize = 4;

/// A runtime for this thread alone.
pub(crate) fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

/// Serves these listeners on further threads: with the one that calls, there are as many as the quota of processors allows
/// (cgroups(7)), and four at most.
///
/// # Errors
/// There are no descriptors or threads left.
pub(crate) fn serve(gateway: &Arc<Gateway>, listeners: &[TcpListener], serving: &Serving) -> io::Result<()> {
    let count = thread::available_parallelism().map_or(1, usize::from).min(MAX);
    (1..count).try_for_each(|number| {
        let doubled = listeners.iter().map(|listener| Ok(listener.as_fd().try_clone_to_owned()?.into()));
        let listeners = doubled.collect::<io::Result<Vec<_>>>()?;
        let (gateway, serving) = (Arc::clone(gateway), serving.clone());
        let work = move || {
            if let Err(error) = work(&gateway, listeners, &serving) {
                tracing::warn!(%error, "clients are served by one thread less");
            }
        };
        thread::Builder::new().name(format!("serve-{number}")).spawn(work).map(drop)
    })
}

fn work(gateway: &Arc<Gateway>, listeners: Vec<std::net::TcpListener>, serving: &Serving) -> io::Result<()> {
    runtime()?.block_on(async {
        for listener in listeners {
            tokio::spawn(Arc::clone(gateway).serve(TcpListener::from_std(listener)?, serving.clone()));
        }
        // Connections outlive the accepting.
        serving.tasks.wait().await;
        Ok(())
    })
}
