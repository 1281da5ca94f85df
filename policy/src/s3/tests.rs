use super::*;

fn rule() -> S3Rule {
    let bucket = |text| BucketPattern::parse(text).unwrap();
    S3Rule { buckets: vec![bucket("acme-reports"), bucket("acme-logs-*"), bucket("ap-*")], regions: vec!["eu-west-1".into()] }
}

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

#[test]
fn virtual_hosted_forms_match() {
    for host in [
        "acme-reports.s3.eu-west-1.amazonaws.com",
        "acme-logs-2026.s3.eu-west-1.amazonaws.com",
        "acme-reports.s3.dualstack.eu-west-1.amazonaws.com",
        "acme-reports.s3-fips.eu-west-1.amazonaws.com",
        "acme-reports.s3-eu-west-1.amazonaws.com",
        "ap-123456789012.s3-accesspoint.eu-west-1.amazonaws.com",
        "ap-123456789012.s3-accesspoint.dualstack.eu-west-1.amazonaws.com",
    ] {
        assert!(rule().matches(&name(host)), "{host}");
    }
}

#[test]
fn names_without_a_region_belong_to_us_east_1() {
    let global = name("acme-reports.s3.amazonaws.com");
    assert!(!rule().matches(&global));
    let anywhere = S3Rule { regions: vec![], ..rule() };
    let east = S3Rule { regions: vec!["us-east-1".into()], ..rule() };
    for host in
        [&global, &name("acme-reports.s3-accelerate.amazonaws.com"), &name("acme-reports.s3-accelerate.dualstack.amazonaws.com")]
    {
        assert!(anywhere.matches(host) && east.matches(host), "{host}");
    }
}

#[test]
fn the_same_name_in_another_partition_is_another_bucket() {
    let names = [
        ("acme-reports.s3.cn-north-1.amazonaws.com.cn", "cn-north-1"),
        ("acme-reports.s3.us-gov-west-1.amazonaws.com", "us-gov-west-1"),
        ("acme-reports.s3-fips.dualstack.us-gov-east-1.amazonaws.com", "us-gov-east-1"),
    ];
    for (host, region) in names {
        assert!(!S3Rule { regions: vec![], ..rule() }.matches(&name(host)), "{host}");
        assert!(S3Rule { regions: vec![region.into()], ..rule() }.matches(&name(host)), "{host}");
    }
    // What no partition has.
    let all = ["eu-west-1", "us-east-1", "cn-north-1"].map(Box::from).to_vec();
    for host in [
        "acme-reports.s3.eu-west-1.amazonaws.com.cn",
        "acme-reports.s3.amazonaws.com.cn",
        "acme-reports.s3.cn-north-1.amazonaws.com",
    ] {
        assert!(!S3Rule { regions: all.clone(), ..rule() }.matches(&name(host)), "{host}");
    }
}

#[test]
fn other_buckets_regions_and_services_do_not() {
    for host in [
        "evil.s3.eu-west-1.amazonaws.com",
        "acme-reports.s3.eu-west-2.amazonaws.com",
        "acme-reports.evil.s3.eu-west-1.amazonaws.com",
        "evil.acme-reports.s3.eu-west-1.amazonaws.com",
        "acme-logs-x.evil.s3.eu-west-1.amazonaws.com",
        "acme-reports.s3.eu-west-1.s3.eu-west-1.amazonaws.com",
        "acme-reports.execute-api.eu-west-1.amazonaws.com",
        "acme-reports.s3.eu-west-1.amazonaws.com.evil.test",
        "acme-reports.s3.eu-west-1.evil-amazonaws.com",
    ] {
        assert!(!rule().matches(&name(host)), "{host}");
    }
}

#[test]
fn path_style_is_seen_for_what_it_is() {
    for host in
        ["s3.amazonaws.com", "s3.eu-west-1.amazonaws.com", "s3.dualstack.eu-west-1.amazonaws.com", "s3-eu-west-1.amazonaws.com"]
    {
        assert_eq!(S3Host::of(&name(host)), Some(S3Host::PathStyle), "{host}");
    }
    assert_eq!(S3Host::of(&name("logs.eu-west-1.amazonaws.com")), None);
    assert_eq!(S3Host::of(&name("eu-west-1.amazonaws.com")), None);
}

#[test]
fn stars_stay_inside_a_label() {
    assert!(glob(b"a*c", b"abbbc") && glob(b"a*", b"a") && glob(b"*b*d", b"abcd"));
    assert!(!glob(b"a*c", b"ab.c") && !glob(b"a*c", b"abcd"));
    assert_eq!(BucketPattern::parse("*"), None);
    assert_eq!(BucketPattern::parse("Acme"), None);
    assert_eq!(BucketPattern::parse(""), None);
}
