//! Who is asking, as far as it can be observed: the executable that holds the client's socket. Looked for only where
//! the policy has roles by executable. What the request itself says, a proxy user name, is read with the request.

use std::net::SocketAddr;
use std::sync::Arc;

use egret_policy::{Asker, Policy, RoleId};
use tokio::sync::OnceCell;

use crate::listener::Gateway;

/// Finds the executable that holds a client's socket. It may block, and is called on a thread where that is allowed.
pub trait Owners: Send + Sync + 'static {
    /// The path of the executable; `client` is the socket's own address, `server` the one it connected to.
    ///
    /// # Errors
    /// Why it cannot be told, for people.
    fn executable(&self, client: SocketAddr, server: SocketAddr) -> Result<String, String>;
}

/// What can be observed of a client: looked for once, when the first policy asks for it.
#[derive(Debug)]
pub(crate) struct Observed {
    /// The client's own address and the one it connected to.
    ends: Option<(SocketAddr, SocketAddr)>,
    executable: OnceCell<Option<String>>,
}

impl Observed {
    pub(crate) fn new(ends: Option<(SocketAddr, SocketAddr)>) -> Self {
        Self { ends, executable: OnceCell::new() }
    }

    /// The role, given what the request says.
    pub(crate) async fn role(&self, policy: &Policy, gateway: &Gateway, user: Option<&str>) -> RoleId {
        let executable = match policy.has_executables() {
            true => self.executable.get_or_init(|| self.look(gateway)).await.as_deref(),
            false => None,
        };
        policy.role_of(Asker { user, executable, port: self.ends.map_or(0, |(_, server)| server.port()) })
    }

    async fn look(&self, gateway: &Gateway) -> Option<String> {
        let (client, server) = self.ends?;
        let owners = gateway.owners.as_ref().map(Arc::clone)?;
        let _turn = gateway.owner_lookups.acquire().await;
        let looked = tokio::task::spawn_blocking(move || owners.executable(client, server)).await;
        let executable = looked.unwrap_or_else(|error| Err(error.to_string()));
        executable.inspect_err(|why| gateway.observer.unattributed(why)).ok()
    }
}
