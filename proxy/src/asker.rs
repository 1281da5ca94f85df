//! Who is asking, as far as it can be observed: the executable that holds the client's socket. Looked for only where
//! the policy has roles by executable. What the request itself says, a proxy user name, is read with the request.

use std::net::SocketAddr;
use std::sync::Arc;

use egret_policy::{Asker, Policy, RoleId};
use tokio::net::TcpStream;

use crate::listener::Gateway;

/// Finds the executable that holds a client's socket. It may block, and is called on a thread where that is allowed.
pub trait Owners: Send + Sync + 'static {
    /// The path of the executable; `client` is the socket's own address, `server` the one it connected to.
    ///
    /// # Errors
    /// Why it cannot be told, for people.
    fn executable(&self, client: SocketAddr, server: SocketAddr) -> Result<String, String>;
}

/// What is known of a client before it says anything.
#[derive(Clone, Debug, Default)]
pub(crate) struct Observed {
    pub(crate) port: u16,
    pub(crate) executable: Option<String>,
}

impl Observed {
    /// Looks at who is there, if the policy asks for it.
    pub(crate) async fn of(stream: &TcpStream, port: u16, policy: &Policy, gateway: &Gateway) -> Self {
        let wanted = policy.has_executables().then_some(gateway.owners.as_ref()).flatten();
        let Some(owners) = wanted.map(Arc::clone) else { return Self { port, executable: None } };
        let (Ok(client), Ok(server)) = (stream.peer_addr(), stream.local_addr()) else { return Self { port, executable: None } };
        let _turn = gateway.owner_lookups.acquire().await;
        let looked = tokio::task::spawn_blocking(move || owners.executable(client, server)).await;
        let executable = match looked.unwrap_or_else(|error| Err(error.to_string())) {
            Ok(executable) => Some(executable),
            Err(why) => {
                gateway.observer.unattributed(&why);
                None
            }
        };
        Self { port, executable }
    }

    /// The role, given what the request says.
    pub(crate) fn role(&self, policy: &Policy, user: Option<&str>) -> RoleId {
        policy.role_of(Asker { user, executable: self.executable.as_deref(), port: self.port })
    }
}
