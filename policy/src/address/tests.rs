use super::*;

fn class(text: &str) -> Class {
    classify(text.parse().unwrap())
}

#[track_caller]
fn all(expected: Class, addresses: &[&str]) {
    for address in addresses {
        assert_eq!(class(address), expected, "{address}");
    }
}

#[test]
fn global_space_is_global() {
    all(Class::Global, &["1.1.1.1", "93.184.216.34", "100.63.255.255", "100.128.0.1", "172.15.0.1", "172.32.0.1", "192.0.1.1"]);
    all(Class::Global, &["2606:4700::1111", "2001:200::1", "2a00:1450::1", "2600:1f18::5", "3ffe::1"]);
}

#[test]
fn a03_private_and_platform_space() {
    all(Class::Loopback, &["127.0.0.1", "127.255.255.254", "::1"]);
    all(Class::Private, &["10.0.0.5", "172.16.0.1", "172.31.255.255", "192.168.1.1", "fc00::1", "fdff::1"]);
    all(Class::SharedSpace, &["100.64.0.1", "100.127.255.255"]);
    all(Class::LinkLocal, &["169.254.1.1", "fe80::1", "febf::1"]);
    all(
        Class::Metadata,
        &["169.254.169.254", "169.254.170.2", "168.63.129.16", "100.100.100.200", "192.0.0.192", "fd00:ec2::254", "fd20:ce::254"],
    );
}

#[test]
fn a04_a05_a06_a07_embedded_ipv4_in_every_form() {
    for (text, inner) in [
        ("::ffff:127.0.0.1", "127.0.0.1"),
        ("::ffff:a9fe:a9fe", "169.254.169.254"),
        ("64:ff9b::a9fe:a9fe", "169.254.169.254"),
        ("64:ff9b:1::a00:1", "10.0.0.1"),
        ("64:ff9b:1:2:3:4:a00:1", "10.0.0.1"),
        ("2002:7f00:1::", "127.0.0.1"),
        ("2001:0:4136:e378:8000:63bf:f5ff:fffa", "10.0.0.5"),
        ("::127.0.0.1", "127.0.0.1"),
        ("::ffff:0:10.0.0.1", "10.0.0.1"),
        ("2a00:1450::5efe:10.0.0.1", "10.0.0.1"),
        ("fe80::200:5efe:10.0.0.1", "10.0.0.1"),
    ] {
        let address: Ipv6Addr = text.parse().unwrap();
        assert_eq!(embedded_ipv4(address), Some(inner.parse().unwrap()), "{text}");
        assert_eq!(class(text), Class::EmbedsIpv4, "{text}");
    }
    assert_eq!(embedded_ipv4(Ipv6Addr::LOCALHOST), None);
    assert_eq!(embedded_ipv4(Ipv6Addr::UNSPECIFIED), None);
}

#[test]
fn a08_space_that_no_server_has() {
    all(Class::Unspecified, &["0.0.0.0", "0.1.2.3", "::"]);
    all(Class::Multicast, &["255.255.255.255", "224.0.0.1", "239.255.255.255", "ff02::1"]);
    all(
        Class::Reserved,
        &["240.0.0.1", "192.0.2.1", "198.18.0.1", "198.19.255.255", "198.51.100.1", "203.0.113.1", "192.88.99.1", "192.0.0.1"],
    );
    all(Class::Reserved, &["2001:db8::1", "100::1", "3fff::1", "5f00::1", "2001:2::1", "2001:20::1", "fec0::1", "4000::1"]);
}
