//! Yes or no, in the client's own protocol. A denial teaches: it says what was refused, why, by which rule, and what
//! would change it. HTTP gets that in the reason phrase too, since many clients show nothing else of a refused CONNECT.

use std::fmt::Write as _;

use egret_policy::{Denial, Reason};
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use crate::client::Client;
use crate::fault::{ConnectFault, DnsFault, Fault, Stop};
use crate::limits::{DISCARD_AFTER_REFUSAL, LINGER_AFTER_REFUSAL};
use crate::record::{Id, Via};
use crate::wire::{socks4, socks5};

const ESTABLISHED: &[u8] = b"HTTP/1.1 200 Connection established\r\n\r\n";
/// A fatal TLS alert, access_denied (RFC 8446 section 6.2), in a record that every version understands.
const TLS_ALERT: &[u8] = &[0x15, 3, 1, 0, 2, 2, 49];
/// The longest reason phrase in octets; log lines and terminals cut longer ones.
const MAX_PHRASE: usize = 240;

/// Says that the upstream is connected.
pub(crate) async fn yes(client: &mut Client, via: Via) -> Result<(), Fault> {
    if client.answered {
        return Ok(());
    }
    client.answered = true;
    match via {
        Via::Connect | Via::Forward => client.say(ESTABLISHED).await,
        Via::Socks5 => client.say(&socks5::reply(socks5::Reply::Succeeded)).await,
        Via::Socks4 => client.say(&socks4::reply(true)).await,
        Via::Tls | Via::Confined => Ok(()),
    }
}

/// Says no, if anything can still be said, and lets the client take it before the socket closes.
pub(crate) async fn no(client: &mut Client, via: Option<Via>, stop: &Stop, id: &Id) {
    if matches!(stop, Stop::Fault(Fault::ClientGone)) {
        return;
    }
    let words = refusal(client, via, stop, id);
    let _ = timeout(LINGER_AFTER_REFUSAL, async {
        if client.say(&words).await.is_ok() && client.stream.shutdown().await.is_ok() {
            discard(client).await;
        }
    })
    .await;
}

fn refusal(client: &Client, via: Option<Via>, stop: &Stop, id: &Id) -> Vec<u8> {
    let shows_tls = client.said.first() == Some(&0x16);
    match via {
        Some(Via::Tls) => TLS_ALERT.to_vec(),
        Some(_) if client.answered => {
            if shows_tls {
                TLS_ALERT.to_vec()
            } else {
                Vec::new()
            }
        }
        Some(Via::Connect | Via::Forward) => Answer::of(stop, Some(id)).into_bytes(),
        Some(Via::Socks5) if !client.greeted => vec![5, socks5::NO_METHOD],
        Some(Via::Socks5) => socks5::reply(socks_code(stop)).to_vec(),
        Some(Via::Socks4) => socks4::reply(false).to_vec(),
        Some(Via::Confined) | None => Vec::new(),
    }
}

/// Reads what a refused client still sends: closing with unread bytes would reset the connection, and the reset could
/// overtake the answer.
async fn discard(client: &mut Client) {
    let mut budget = DISCARD_AFTER_REFUSAL;
    while budget > 0 {
        client.said.clear();
        match client.hear_or_end().await {
            Ok(0) | Err(_) => return,
            Ok(n) => budget = budget.saturating_sub(n),
        }
    }
}

fn socks_code(stop: &Stop) -> socks5::Reply {
    match stop {
        Stop::Denied(denial) => match denial.reason {
            Reason::Malformed | Reason::ConnectionLimit => socks5::Reply::Failure,
            _ => socks5::Reply::NotAllowed,
        },
        Stop::Fault(Fault::Connect(ConnectFault::Refused)) => socks5::Reply::Refused,
        Stop::Fault(Fault::Dns(_) | Fault::Connect(_)) => socks5::Reply::HostUnreachable,
        Stop::Fault(_) => socks5::Reply::Failure,
    }
}

/// An HTTP answer of egret's own.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) phrase: String,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: String,
}

impl Answer {
    /// The answer to a request that was stopped.
    pub(crate) fn of(stop: &Stop, id: Option<&Id>) -> Self {
        let mut answer = match stop {
            Stop::Denied(denial) => Self::denial(denial),
            Stop::Fault(fault) => Self::fault(fault),
        };
        if let Some(id) = id {
            answer.headers.push(("x-egret-id", id.to_string()));
        }
        answer
    }

    /// 431, for a head that was not read to its end.
    pub(crate) fn head_too_large() -> Self {
        let body = format!("egret: the request head is longer than {} octets or has too many fields\n", crate::limits::MAX_HEAD);
        Self { status: 431, phrase: "Request Header Fields Too Large".into(), headers: Vec::new(), body }
    }

    fn denial(denial: &Denial) -> Self {
        let status = match denial.reason {
            Reason::Malformed | Reason::UnknownProtocol | Reason::Unsupported => 400,
            Reason::ConnectionLimit => 503,
            _ => 403,
        };
        let mut headers = vec![
            ("x-egret-reason", denial.reason.code().to_owned()),
            (
                "proxy-status",
                format!("egret; error={}", if status == 403 { "http_request_denied" } else { "http_request_error" }),
            ),
        ];
        let mut body = format!("egret: {}\nreason: {}\n", denial.detail, denial.reason);
        if let Some(rule) = &denial.rule {
            headers.push(("x-egret-rule", header_text(rule.as_str())));
            let line = if denial.line > 0 { format!(" (line {})", denial.line) } else { String::new() };
            let _ = writeln!(body, "rule: {rule}{line}");
        }
        if status == 503 {
            headers.push(("retry-after", "1".to_owned()));
        }
        let _ = writeln!(body, "to change this: {}", denial.help);
        Self { status, phrase: header_text(&format!("{}; {}", denial.detail, denial.help)), headers, body }
    }

    fn fault(fault: &Fault) -> Self {
        let status = match fault {
            Fault::Dns(DnsFault::Timeout) | Fault::Connect(ConnectFault::Timeout) => 504,
            Fault::ClientTimeout => 408,
            _ => 502,
        };
        let headers =
            vec![("x-egret-reason", fault.code().to_owned()), ("proxy-status", format!("egret; error={}", proxy_status(fault)))];
        let detail = fault.detail();
        Self { status, phrase: header_text(&detail), headers, body: format!("egret: {detail}\nreason: {}\n", fault.code()) }
    }

    /// The answer on a raw socket, which closes after it.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        let mut head = format!("HTTP/1.1 {} {}\r\n", self.status, self.phrase);
        for (name, value) in &self.headers {
            let _ = write!(head, "{name}: {value}\r\n");
        }
        let length = self.body.len();
        let _ = write!(
            head,
            "content-type: text/plain; charset=utf-8\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{}",
            self.body
        );
        head.into_bytes()
    }
}

/// The proxy error types of RFC 9209.
fn proxy_status(fault: &Fault) -> &'static str {
    match fault {
        Fault::Dns(DnsFault::Timeout) => "dns_timeout",
        Fault::Dns(_) => "dns_error",
        Fault::Connect(ConnectFault::Refused) => "connection_refused",
        Fault::Connect(ConnectFault::Timeout) => "connection_timeout",
        Fault::Connect(ConnectFault::Failed(_)) => "destination_ip_unroutable",
        Fault::ClientGone | Fault::ClientTimeout => "http_request_error",
        Fault::Upstream(_) => "http_protocol_error",
    }
}

/// Printable ASCII only, cut to a length: text from the network cannot end a header line or steer a terminal.
fn header_text(text: &str) -> String {
    text.chars().take(MAX_PHRASE).map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_denial_names_reason_rule_and_the_way_out() {
        let denial = Denial::new(Reason::NoRule, "evil.test:443 is refused", "add `- evil.test`");
        let text = String::from_utf8(Answer::of(&denial.into(), Some(&Id::new("x".into(), 1))).into_bytes()).unwrap();
        assert!(text.starts_with("HTTP/1.1 403 evil.test:443 is refused; add `- evil.test`\r\n"), "{text}");
        assert!(text.contains("x-egret-reason: no_rule\r\n") && text.contains("x-egret-id: x-1\r\n"), "{text}");
        assert!(text.ends_with("to change this: add `- evil.test`\n"), "{text}");
    }

    #[test]
    fn text_from_the_network_cannot_end_a_line() {
        let denial = Denial::new(Reason::NoRule, "a\r\nset-cookie: x\u{1b}[2J\u{2028}", "b\nc".to_owned());
        let text = String::from_utf8(Answer::of(&denial.into(), None).into_bytes()).unwrap();
        assert_eq!(text.lines().next().unwrap(), "HTTP/1.1 403 a??set-cookie: x?[2J?; b?c");
    }

    #[test]
    fn faults_are_gateway_errors_and_limits_ask_to_come_back() {
        let status = |stop: Stop| Answer::of(&stop, None).status;
        assert_eq!(status(DnsFault::NxDomain.into()), 502);
        assert_eq!(status(DnsFault::Timeout.into()), 504);
        assert_eq!(status(ConnectFault::Refused.into()), 502);
        assert_eq!(status(ConnectFault::Timeout.into()), 504);
        assert_eq!(status(Stop::malformed("x")), 400);
        let limit = Denial::new(Reason::ConnectionLimit, "x", "y").into();
        assert!(Answer::of(&limit, None).headers.contains(&("retry-after", "1".into())));
    }
}
