use super::*;

fn target(text: &str) -> Result<String, TargetError> {
    Target::parse(text).map(|t| t.to_string())
}

#[test]
fn names_addresses_and_ports_are_read() {
    assert_eq!(target("Allowed.TEST.:443"), Ok("allowed.test:443".into()));
    assert_eq!(target("192.0.2.7:80"), Ok("192.0.2.7:80".into()));
    assert_eq!(target("[2001:DB8::1]:443"), Ok("[2001:db8::1]:443".into()));
    assert_eq!(Target::parse_or("allowed.test", 443), Target::parse("allowed.test:443"));
    assert_eq!(Target::parse_or("[::1]", 80), Target::parse("[::1]:80"));
}

#[test]
fn h03_brackets_hold_only_ipv6() {
    for text in ["[allowed.test]:443", "[127.0.0.1]:443", "[::1:443", "[fe80::1%eth0]:443", "[]:443", "[::1]x:443"] {
        assert_eq!(target(text), Err(TargetError::Brackets), "{text}");
    }
}

#[test]
fn h12_ports_do_not_wrap_and_have_one_spelling() {
    for port in
        ["0", "65536", "65979", "4294967739", "18446744073709552059", "+443", " 443", "0443", "", "443 ", "4 43", "0x1bb", "-1"]
    {
        assert_eq!(target(&format!("allowed.test:{port}")), Err(TargetError::Port), "{port:?}");
    }
    assert_eq!(target("allowed.test"), Err(TargetError::NoPort));
    assert_eq!(target("[::1]"), Err(TargetError::NoPort));
}

#[test]
fn h13_userinfo_is_no_part_of_a_target() {
    assert!(matches!(target("user@allowed.test:443"), Err(TargetError::Host(NameError::Character('@')))));
    assert_eq!(target("user:pw@allowed.test:443"), Err(TargetError::Bare));
}

#[test]
fn a01_only_the_canonical_dotted_quad_is_an_address() {
    for host in ["2130706433", "0x7f000001", "0177.0.0.1", "127.1", "0x7f.1", "1.1.1.1.", "127.0.0.01"] {
        assert_eq!(target(&format!("{host}:443")), Err(TargetError::Host(NameError::Numeric)), "{host}");
    }
}

#[test]
fn bare_ipv6_is_refused() {
    assert_eq!(target("2001:db8::1:443"), Err(TargetError::Bare));
    assert_eq!(Host::parse("::1"), Err(TargetError::Bare));
}

#[test]
fn rule_literals_take_ipv6_either_way() {
    assert_eq!(literal("::1"), literal("[::1]"));
    assert_eq!(literal("allowed.test"), None);
    assert_eq!(literal("010.0.0.1"), None);
}
