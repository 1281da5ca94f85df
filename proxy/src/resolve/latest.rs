//! Answers of the last moment, for an app that opens many connections to few names: what the resolver says of a name from its
//! own cache takes it several allocations and look-ups each time.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use egret_policy::Name;

use crate::limits::{DNS_LATEST, DNS_MOMENT};

/// The table.
#[derive(Debug, Default)]
pub(super) struct Latest(Mutex<HashMap<Name, (Instant, Vec<IpAddr>)>>);

impl Latest {
    pub(super) fn get(&self, name: &Name) -> Option<Vec<IpAddr>> {
        self.table().get(name).filter(|(end, _)| Instant::now() < *end).map(|(_, addresses)| addresses.clone())
    }

    /// Keeps an answer that is true until then.
    pub(super) fn put(&self, name: &Name, addresses: &[IpAddr], valid_until: Instant) {
        let now = Instant::now();
        let mut table = self.table();
        if table.len() >= DNS_LATEST {
            table.retain(|_, (end, _)| now < *end);
        }
        if table.len() < DNS_LATEST {
            table.insert(name.clone(), (valid_until.min(now + DNS_MOMENT), addresses.to_vec()));
        }
    }

    fn table(&self) -> MutexGuard<'_, HashMap<Name, (Instant, Vec<IpAddr>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn name(number: usize) -> Name {
        format!("n{number}.test").parse().unwrap()
    }

    #[test]
    fn an_answer_is_kept_as_long_as_it_is_true_and_a_moment_at_most() {
        let (latest, now) = (Latest::default(), Instant::now());
        latest.put(&name(1), &[ADDRESS], now);
        assert_eq!(latest.get(&name(1)), None, "its time to live is over");
        latest.put(&name(1), &[ADDRESS], now + Duration::from_secs(3_600));
        assert_eq!(latest.get(&name(1)), Some(vec![ADDRESS]));
        assert!(latest.table()[&name(1)].0 <= Instant::now() + DNS_MOMENT);
    }

    #[test]
    fn there_is_no_more_than_the_limit_and_what_is_over_makes_room() {
        let (latest, now) = (Latest::default(), Instant::now());
        let later = now + Duration::from_secs(3_600);
        latest.put(&name(0), &[ADDRESS], now);
        for number in 1..=DNS_LATEST {
            latest.put(&name(number), &[ADDRESS], later);
        }
        assert_eq!((latest.get(&name(0)), latest.table().len()), (None, DNS_LATEST));
        latest.put(&name(DNS_LATEST + 1), &[ADDRESS], later);
        assert_eq!(latest.get(&name(DNS_LATEST + 1)), None);
    }
}
