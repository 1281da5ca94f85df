use super::*;

fn pattern(text: &str) -> NamePattern {
    NamePattern::parse(text).unwrap()
}

fn matches(rule: &str, name: &str) -> bool {
    pattern(rule).matches(&Name::parse(name).unwrap())
}

#[test]
fn h07_labels_are_whole() {
    assert!(!matches("github.com", "github.com.evil.test"));
    assert!(!matches("*.allowed.test", "evilallowed.test"));
    assert!(!matches("*.allowed.test", "allowed.test.evil.test"));
}

#[test]
fn h08_a_wildcard_is_any_depth_below_and_never_the_apex() {
    assert!(matches("*.allowed.test", "a.allowed.test"));
    assert!(matches("*.allowed.test", "a.b.allowed.test"));
    assert!(!matches("*.allowed.test", "allowed.test"));
    assert!(matches("allowed.test", "ALLOWED.test."));
}

#[test]
fn h10_rules_are_normalised_like_requests() {
    assert!(matches("bücher.test", "xn--bcher-kva.test"));
    assert_eq!(pattern("*.Bücher.test.").to_string(), "*.xn--bcher-kva.test");
}

#[test]
fn what_people_write_elsewhere_is_refused_with_what_to_write_here() {
    for (text, says) in [
        ("*", "mode: audit"),
        (".example.com", "write \"*.example.com\""),
        ("https://api.example.com/v1", "write api.example.com"),
        ("api.example.com/v1", "write api.example.com"),
        ("api-*.example.com", "whole first label"),
        ("*.*.example.com", "whole first label"),
        ("*example.com", "whole first label"),
        ("exa mple.com", "' '"),
    ] {
        let error = NamePattern::parse(text).unwrap_err().to_string();
        assert!(error.contains(says), "{text}: {error}");
    }
}

#[test]
fn wildcards_over_shared_suffixes_are_known() {
    for text in ["*.com", "*.co.uk", "*.github.io", "*.s3.amazonaws.com", "*.cloudfront.net"] {
        assert_eq!(pattern(text).shared_suffix(), Some(SharedSuffix::Public), "{text}");
    }
    for text in ["*.amazonaws.com", "*.eu-west-1.amazonaws.com", "*.sharepoint.com"] {
        assert_eq!(pattern(text).shared_suffix(), Some(SharedSuffix::Provider), "{text}");
    }
    for text in ["*.example.com", "*.example.co.uk", "*.acme.github.io", "*.corp", "com", "*.logs.eu-west-1.amazonaws.com"] {
        assert_eq!(pattern(text).shared_suffix(), None, "{text}");
    }
}

#[test]
fn the_provider_list_repeats_nothing_of_the_public_one() {
    for suffix in PROVIDER_SUFFIXES {
        assert!(!is_public_suffix(suffix), "{suffix}");
    }
    assert!(PROVIDER_SUFFIXES.is_sorted());
}

#[test]
fn the_registered_domain_is_what_somebody_registered() {
    for (name, domain) in [
        ("a.b.example.co.uk", "example.co.uk"),
        ("example.com", "example.com"),
        ("com", "com"),
        ("x.y.github.io", "y.github.io"),
        ("db.prod.corp.internal", "corp.internal"),
        ("localhost", "localhost"),
    ] {
        assert_eq!(registered_domain(&name.parse().unwrap()), domain, "{name}");
    }
}
