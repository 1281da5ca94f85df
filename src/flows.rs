//! Every flow of this network namespace, told: which way it took, who holds it, what it carried; and what the policy says of
//! those that go around the proxy is done. What there is to see is `egret-flows`' to find out.

pub(crate) mod advice;
mod fold;
pub(crate) mod glance;
pub(crate) mod row;
mod teller;
pub(crate) mod trends;
pub(crate) mod ways;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use egret_flows::{Options, Ours, Watch};
use egret_proxy::Gateway;
use serde_json::{Value, json};

use self::row::Row;
use self::teller::{Knows, Teller};
use self::trends::Trends;
use self::ways::{OwnSockets, Way};
use crate::config::Around;
use crate::confinement::exit::{Direct, nameservers};
use crate::events::Event;
use crate::files::Outlets;
use crate::metrics;
use crate::settings::Settings;
use crate::stderr;

/// The most flows that one answer has: some 5 MiB. What goes around comes first.
const MOST_ROWS: usize = 10_000;

/// The watch of a running egret, or none.
pub(crate) struct Flows {
    teller: Arc<Mutex<Teller>>,
    watch: Mutex<Option<Watch>>,
    /// Why there is no watch.
    off: Option<String>,
}

impl Flows {
    /// Starts to watch. Where nothing can be seen, that is said, and everything else goes on.
    pub(crate) fn start(
        settings: &Settings,
        outlets: Outlets,
        gateway: &Arc<Gateway>,
        own: &Arc<OwnSockets>,
        direct: &Direct,
    ) -> Arc<Self> {
        let journal = outlets.journal.clone();
        let (gateway, own, direct) = (Arc::clone(gateway), Arc::clone(own), Arc::clone(direct));
        let egrets = Arc::clone(&own);
        let knows = Knows { outlets, gateway, own, direct, nameservers: nameservers() };
        let teller = Arc::new(Mutex::new(Teller::new(knows, settings.config.around.unwrap_or_default())));
        if settings.flows.is_zero() {
            return Arc::new(Self { teller, watch: Mutex::default(), off: Some("it is set to 0".to_owned()) });
        }
        metrics::flows_begin();
        let hears = Arc::clone(&teller);
        let ours = Ours::new(move |cookie| egrets.has(cookie));
        let options = Options { again: settings.flows, ours, ..Options::default() };
        let (watch, off) = match Watch::start(options, move |seen| lock(&hears).hear(seen)) {
            Ok(watch) => (Some(watch), None),
            Err(refused) => {
                let why = format!("nothing is seen that goes around the proxy: {refused}");
                stderr::say(&why);
                journal.write(Event::Coverage { section: "flows", why: why.clone() });
                (None, Some(why))
            }
        };
        Arc::new(Self { teller, watch: Mutex::new(watch), off })
    }

    /// Whether flows are watched.
    pub(crate) fn is_on(&self) -> bool {
        self.off.is_none()
    }

    /// Another policy is in force.
    pub(crate) fn reload(&self, around: Around) {
        lock(&self.teller).reload(around);
    }

    /// For /status.
    pub(crate) fn status(&self) -> Value {
        match &self.off {
            Some(why) => json!({ "state": "off", "why": why }),
            None => lock(&self.teller).status(),
        }
    }

    /// Live flows, those that ended after that number, and the last number; for whoever follows.
    pub(crate) fn seen(&self, since: Option<u64>) -> Value {
        let flows = lock(&self.watch).as_ref().map(Watch::flows).unwrap_or_default();
        let teller = lock(&self.teller);
        let mut rows: Vec<Row> = flows.iter().map(|flow| teller.row(flow)).collect();
        let more = rows.len().saturating_sub(MOST_ROWS);
        if more > 0 {
            rows.sort_by_key(|row| row.way != Way::Around.as_str());
            rows.truncate(MOST_ROWS);
        }
        let (ended, seq, lost) = since.map_or_else(|| (Vec::new(), teller.ended_since(u64::MAX).1, 0), |n| teller.ended_since(n));
        let mut blind = teller.blind_spots();
        blind.extend(self.off.clone());
        blind.extend((more > 0).then(|| format!("{more} flows more than are listed")));
        json!({ "v": 1, "flows": rows, "ended": ended, "seq": seq, "lost": lost, "blind": blind })
    }

    /// What went where.
    pub(crate) fn trends(&self) -> Trends {
        lock(&self.teller).trends.clone()
    }

    /// Tells what lives still, and ends. It blocks for one listing.
    fn finish(&self) {
        let watch = lock(&self.watch).take();
        if let Some(watch) = watch {
            let flows = watch.stop();
            let mut teller = lock(&self.teller);
            flows.into_iter().for_each(|flow| teller.hear(egret_flows::Event::Goes(flow)));
            teller.flush(true);
        }
    }
}

/// Tells what lives still, if that is done within `most`.
pub(crate) async fn finish(flows: &Arc<Flows>, most: Duration) {
    let flows = Arc::clone(flows);
    let _ = tokio::time::timeout(most, tokio::task::spawn_blocking(move || flows.finish())).await;
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
