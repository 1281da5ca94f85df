//! A look at the flows of this moment by a process that runs no gateway: what `egret flows` and `egret doctor` show where no
//! egret runs, or beside one.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use anyhow::Context;
use egret_flows::{Event as Seen, Flow, Options, Watch};
use ipnet::IpNet;

use super::row::Row;
use super::ways::{Listening, OwnSockets, Surroundings, Way};

/// For the first listings, and the look for holders.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is known without a gateway.
pub(crate) struct Bystander {
    pub(crate) direct: Vec<IpNet>,
    nameservers: Vec<IpAddr>,
    interfaces: HashSet<IpAddr>,
    listening: Listening,
    own: OwnSockets,
    began: Instant,
}

impl Bystander {
    pub(crate) fn new(direct: Vec<IpNet>) -> Self {
        let all = if_addrs::get_if_addrs().unwrap_or_default();
        Self {
            direct,
            nameservers: crate::confinement::exit::nameservers(),
            interfaces: all.iter().map(if_addrs::Interface::ip).collect(),
            listening: Listening::default(),
            own: OwnSockets::default(),
            began: Instant::now(),
        }
    }

    /// These ports listen now.
    pub(crate) fn listens(&mut self, ports: &[u16]) {
        self.listening.listed(ports);
    }

    /// How a flow is shown. A program named egret is taken at its word, as nobody is stopped by this.
    pub(crate) fn row(&self, flow: &Flow) -> Row {
        let is_near = |address: IpAddr| address.is_loopback() || self.interfaces.contains(&address);
        let surroundings = Surroundings {
            own: &self.own,
            direct: &self.direct,
            nameservers: &self.nameservers,
            listening: &self.listening,
            is_near: &is_near,
            pid: std::process::id(),
        };
        let exe = flow.holder.as_ref().ok().and_then(|holder| holder.exe.as_ref());
        let is_egret = exe.is_some_and(|exe| exe.file_name().is_some_and(|name| name == "egret"));
        let way = if is_egret { Way::Proxy } else { surroundings.way(flow) };
        let age = self.began.elapsed().saturating_sub(flow.began);
        Row::new(flow, way, Vec::new(), u64::try_from(age.as_millis()).unwrap_or(u64::MAX))
    }
}

/// Every flow of this moment that leaves the machine.
///
/// # Errors
/// The kernel lists no sockets here; the message says why.
pub(crate) fn now(direct: Vec<IpNet>) -> anyhow::Result<Vec<Row>> {
    let mut bystander = Bystander::new(direct);
    let (tell, told) = channel();
    let options = Options { every: Duration::from_millis(100), ..Options::default() };
    let watch = Watch::start(options, move |seen| {
        if let Seen::Listed(listed) = seen {
            let _ = tell.send(listed.listening);
        }
    })?;
    // After the second listing it was looked who holds what the first one met.
    for _ in 0..2 {
        bystander.listens(&told.recv_timeout(PATIENCE).context("sockets were not listed in time")?);
    }
    let rows = watch.flows().iter().map(|flow| bystander.row(flow)).filter(|row| row.way != "near").collect();
    drop(watch);
    Ok(rows)
}
