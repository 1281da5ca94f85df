use super::*;

fn done(head: &str) -> Result<Connect, (Refused, String)> {
    match connect(head.as_bytes()) {
        Progress::Done(result, _) => result,
        other => panic!("{head:?}: {other:?}"),
    }
}

#[track_caller]
fn refused(head: &str, kind: Refused) {
    assert_eq!(done(head).map_err(|(kind, _)| kind), Err(kind), "{head:?}");
}

#[test]
fn a_connect_request_is_read() {
    let head = "CONNECT allowed.test:443 HTTP/1.1\r\nHost: allowed.test:443\r\nProxy-Authorization: Basic d29ya2VyOng=\r\n\r\n";
    let connect = done(head).unwrap();
    assert_eq!(connect.target.to_string(), "allowed.test:443");
    assert_eq!(connect.user.as_deref(), Some("worker"));
}

#[test]
fn every_prefix_needs_more_and_what_follows_is_left() {
    let head = b"CONNECT allowed.test:443 HTTP/1.1\r\nHost: x\r\n\r\n\x16\x03\x01";
    let whole = head.len() - 3;
    for end in 0..whole {
        assert_eq!(connect(&head[..end]), Progress::More, "{end}");
    }
    assert!(matches!(connect(head), Progress::Done(Ok(_), n) if n == whole));
}

#[test]
fn h12_p17_only_authority_form_with_a_port_is_a_target() {
    for target in [
        "allowed.test",
        "/",
        "*",
        "http://allowed.test/",
        "allowed.test:0",
        "allowed.test:65979",
        "user@allowed.test:443",
        "[allowed.test]:443",
        "all\u{e4}.test:443",
    ] {
        refused(&format!("CONNECT {target} HTTP/1.1\r\n\r\n"), Refused::BadRequest);
    }
}

#[test]
fn p02_p10_p14_heads_that_two_readers_read_differently_are_refused() {
    for fields in [
        "Host: a\r\nHost: b\r\n",
        "Content-Length: 10\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Host : a\r\n",
        "Host: a\r\n folded\r\n",
        "A: b\nC: d\r\n",
        "A: b\rC: d\r\n",
        "A: b\0c\r\n",
        "A b: c\r\n",
    ] {
        refused(&format!("CONNECT allowed.test:443 HTTP/1.1\r\n{fields}\r\n"), Refused::BadRequest);
    }
    refused("CONNECT allowed.test:443 HTTP/1.1\nHost: a\n\n", Refused::BadRequest);
    assert!(done("CONNECT allowed.test:443 HTTP/1.1\r\nContent-Length: 0\r\n\r\n").is_ok());
}

#[test]
fn r09_long_heads_are_refused_before_they_end() {
    let many = "A: b\r\n".repeat(101);
    refused(&format!("CONNECT allowed.test:443 HTTP/1.1\r\n{many}\r\n"), Refused::TooLarge);
    refused(&format!("CONNECT allowed.test:443 HTTP/1.1\r\nA: {}", "b".repeat(MAX_HEAD)), Refused::TooLarge);
    refused(&format!("CONNECT {}", "b".repeat(MAX_HEAD)), Refused::TooLarge);
}

#[test]
fn credentials_give_their_user_name_only() {
    assert_eq!(basic_user(b"Basic d29ya2VyOnNlY3JldA=="), Some("worker".into()));
    assert_eq!(basic_user(b"basic d29ya2Vy"), Some("worker".into()));
    for bad in [&b"Bearer d29ya2VyOng="[..], b"Basic !!!", b"Basic", b"Basic OnNlY3JldA=="] {
        assert_eq!(basic_user(bad), None);
    }
}

#[test]
fn p25_requests_inside_tunnels_are_told_from_other_protocols() {
    for request in [
        &b"GET / HTTP/1.1\r\n"[..],
        b"VERSION-CONTROL /x HTTP/1.0\n",
        b"\r\n\nGET / HTTP/1.1\r\n",
        b"GET  /  HTTP/1.1 \r\n",
        b"get\t/ http/1.1\r\n",
        b"PRI * HTTP/2.0\r\n",
        b"GET http://a.test/ HTTP/1.1\r\n",
    ] {
        assert_eq!(is_request(request), Some(true), "{}", request.escape_ascii());
    }
    for part in [&b""[..], b"G", b"GET", b"GET ", b"GET  ", b"GET /x", b"GET / HTTP/1.1", b"\r\n", b"\r\nGET"] {
        assert_eq!(is_request(part), None, "{}", part.escape_ascii());
    }
    for other in [
        &b"EHLO x\r\n"[..],
        b"SSH-2.0-x\r\n",
        b"\x16\x03\x01",
        b"/",
        b"QUIT\r\n",
        b"GET /x\r\n",
        b"*1\r\n$4\r\nPING\r\n",
        b"AMQP\0\0\x09\x01",
        b"{\"jsonrpc\":",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1\r\n",
        b"83 <34>1 2003-10-11T22:14:15.003Z host app - - - text",
        b"\x0bMSH|^~\\&|",
        b"--splunk-cooked-mode-v3--\0",
    ] {
        assert_eq!(is_request(other), Some(false), "{}", other.escape_ascii());
    }
    let long = [&b"GET /"[..], &[b'a'; MAX_REQUEST_LINE]].concat();
    assert_eq!(is_request(&long), Some(true), "too long to wait for its end, and nothing but HTTP");
}

#[test]
fn p55_whatever_a_lenient_server_takes_for_a_request_is_one() {
    let long = format!("{} / HTTP/1.1\r\n", "A".repeat(300)).into_bytes();
    for request in [
        &b"X_GET / HTTP/1.1\r\n"[..],
        b"GET2 / HTTP/1.1\r\n",
        b"!#$%&'*+-.^_`|~ / HTTP/1.1\r\n",
        b"GET evil.test HTTP/1.1\r\n",
        b"GET ?x HTTP/1.1\r\n",
        b"GET \xff HTTP/1.1\r\n",
        b"GET\x0b/\x0bHTTP/1.1\r\n",
        b"GET\x1c/\x85HTTP/1.1\r\n",
        b"\xa0\x0cGET\xa0/\xa0HTTP/1.1\n",
        b"GET\r/\rHTTP/1.1\r\n",
        b"GET HTTP/1.1\r\n",
        &long,
    ] {
        assert_eq!(is_request(request), Some(true), "{}", request.escape_ascii());
        let line = request.iter().position(|byte| *byte == b'\n').unwrap();
        for end in 0..line {
            assert_eq!(is_request(&request[..end]), None, "{}", request[..end].escape_ascii());
        }
    }
    assert_eq!(is_request(&[b'A'; MAX_REQUEST_LINE + 1]), Some(true), "a method without end");
}
