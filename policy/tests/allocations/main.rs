//! A verdict that lets a connection through takes no memory, however many rules there are.

mod sys;

use std::hint::black_box;
use std::net::IpAddr;
use std::sync::Arc;

use egret_policy::{Draft, Flight, Policy, Request, RuleDraft, Sni, Surroundings, To, UnixTime};

use crate::sys::{Counting, taken};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Half exact names, half wildcards, and a network.
fn policy(rules: usize) -> Arc<Policy> {
    let mut draft = Draft::default();
    for n in 0..rules {
        let name = if n % 2 == 0 { format!("host{n}.example.test") } else { format!("*.zone{n}.example.test") };
        draft.allow(RuleDraft::name(name.parse().expect("a pattern")));
    }
    draft.allow(RuleDraft::new(vec![(To::Net("192.0.2.0/24".parse().expect("a network")), None)]));
    Arc::new(Policy::new(draft, Surroundings::default()))
}

fn request(policy: &Policy, target: &str) -> Request {
    Request::new(target.parse().expect("a target"), policy.default_role(), UnixTime(0))
}

/// What the work takes, and what it gives.
fn counted<T>(work: impl FnOnce() -> T) -> (usize, T) {
    let before = taken();
    let result = black_box(work());
    (taken() - before, result)
}

#[test]
fn the_count_counts() {
    let (count, _) = counted(|| vec![1_u8, 2]);
    assert_eq!(count, 1);
}

#[test]
fn a_permit_takes_no_memory() {
    for rules in [10, 100_000] {
        let policy = policy(rules);
        for target in ["host0.example.test:443", "a.b.zone1.example.test:443", "192.0.2.7:443"] {
            let request = request(&policy, target);
            let (count, verdict) = counted(|| policy.admit(&request));
            assert!(verdict.is_ok(), "{target}: {verdict:?}");
            assert_eq!(count, 0, "{target} of {rules} rules");
        }
    }
}

#[test]
fn vetting_takes_memory_for_its_answer_alone_and_confirming_none() {
    let policy = policy(10);
    let request = request(&policy, "host0.example.test:443");
    let flight = Flight::Tls { sni: Sni::One("host0.example.test".parse().expect("a name")), ech: false };
    let mut permit = policy.admit(&request).expect("a permit");
    let answers: Vec<IpAddr> = (1..=4).map(|n| IpAddr::from([8, 8, 8, n])).collect();
    let (count, vetted) = counted(|| permit.vet(&answers));
    assert_eq!((count, vetted.map(|vetted| vetted.len())), (1, Ok(4)));
    let (count, confirmed) = counted(|| permit.confirm(&flight));
    assert_eq!((count, confirmed), (0, Ok(())));
}
