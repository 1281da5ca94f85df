use super::*;

fn this() -> Caller {
    Caller { tid: rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs() }
}

#[test]
fn this_thread_is_who_it_is() {
    let identity = Identity::of(this()).unwrap();
    assert_eq!(identity, Identity::own().unwrap());
    assert_eq!(identity.is_own(), Ok(true));
}

#[test]
fn whoever_has_less_is_somebody_else() {
    let own = Identity::own().unwrap();
    assert_eq!(Identity { user: own.user + 1, ..own.clone() }.is_own(), Ok(false));
    assert_eq!(Identity { group: own.group + 1, ..own.clone() }.is_own(), Ok(false));
    let mut groups = own.groups.clone();
    groups.push(4_000_000);
    assert_eq!(Identity { groups, ..own.clone() }.is_own(), Ok(false));
    let without = Identity { passes: CapabilitySet::empty(), ..own.clone() };
    assert_eq!(without.is_own(), Ok(own.passes.is_empty()));
}

#[test]
fn a_status_is_read_by_its_effective_columns() {
    let status = "Name:\tx\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\nGroups:\t10 9 \nCapEff:\t0000000000000006\n";
    let expected = Identity { user: 2, group: 6, groups: vec![9, 10], passes: PASSES };
    assert_eq!(parse(status), Some(expected));
    assert_eq!(parse("Uid:\t1\t2\t3\t4\n"), None);
}
