use super::*;

#[test]
fn ranges_are_inclusive() {
    let ports = Ports::of(vec![PortRange::parse("5432").unwrap(), PortRange::parse("6379-6381").unwrap()]).unwrap();
    for port in [5432, 6379, 6380, 6381] {
        assert!(ports.contains(port), "{port}");
    }
    for port in [443, 5431, 5433, 6378, 6382] {
        assert!(!ports.contains(port), "{port}");
    }
    assert_eq!(ports.to_string(), "5432, 6379-6381");
}

#[test]
fn bad_ranges_are_refused() {
    for text in ["0", "0-5", "5-4", "65536", "-1", "1-", "+80", "80 ", "a", ""] {
        assert_eq!(PortRange::parse(text), None, "{text:?}");
    }
    assert_eq!(Ports::of(Vec::new()), None);
}

#[test]
fn every_port_is_every_port() {
    assert!(Ports::every().contains(1) && Ports::every().contains(u16::MAX));
}
