//! What an app says to its proxy, as raw bytes: HTTP CONNECT and forwarding, SOCKS4, 4a and 5, and TLS within the
//! tunnel. Every read and write has a deadline; nothing is retried.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use super::DEADLINE;
use super::http1::{Response, copy_body, read_head};

/// A TLS session over a tunnel.
pub(crate) type TlsStream = StreamOwned<ClientConnection, TcpStream>;

/// The destination in a SOCKS5 request.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Host<'a> {
    Name(&'a str),
    Ip(IpAddr),
}

/// What came of a CONNECT: a tunnel in `stream` if `response.status` is 200.
pub(crate) struct Connected {
    pub(crate) response: Response,
    pub(crate) stream: TcpStream,
}

/// A connection whose reads and writes fail after the deadline.
pub(crate) fn connect(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&addr, DEADLINE).unwrap_or_else(|e| panic!("connect to {addr}: {e}"));
    stream.set_read_timeout(Some(DEADLINE)).expect("the deadline is not zero");
    stream.set_write_timeout(Some(DEADLINE)).expect("the deadline is not zero");
    stream.set_nodelay(true).expect("a TCP socket takes the option");
    stream
}

/// Sends `bytes` and returns all that comes back until the proxy closes.
pub(crate) fn raw(proxy: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = connect(proxy);
    // The proxy may refuse before it has read everything; what it answers is still to be read.
    drop(stream.write_all(bytes));
    read_to_close(&mut stream)
}

/// Reads until the peer closes, be it orderly or by a reset. A peer that keeps the connection fails the test.
pub(crate) fn read_to_close(stream: &mut impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    let end = stream.read_to_end(&mut bytes).map_err(|error| error.kind());
    let kept_open = matches!(end, Err(ErrorKind::WouldBlock | ErrorKind::TimedOut));
    assert!(!kept_open, "not closed within {DEADLINE:?}; so far: {:?}", String::from_utf8_lossy(&bytes));
    bytes
}

/// Exactly `count` bytes.
pub(crate) fn read_exactly(stream: &mut impl Read, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    stream.read_exact(&mut bytes).unwrap_or_else(|e| panic!("{count} bytes expected: {e}"));
    bytes
}

/// `CONNECT target`, with nothing but a Host header.
pub(crate) fn http_connect(proxy: SocketAddr, target: &str) -> Connected {
    http_connect_with(proxy, target, &[])
}

/// The same with more header lines (`Name: value`).
pub(crate) fn http_connect_with(proxy: SocketAddr, target: &str, headers: &[&str]) -> Connected {
    let mut stream = connect(proxy);
    let mut request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n");
    for header in headers {
        request += &format!("{header}\r\n");
    }
    request += "\r\n";
    stream.write_all(request.as_bytes()).expect("the proxy takes a request");
    let response = read_connect_answer(&mut stream);
    Connected { response, stream }
}

/// The answer to a CONNECT that was sent: the head alone if it is a yes, with its body otherwise. Not a byte of
/// the tunnel is taken.
pub(crate) fn read_connect_answer(stream: &mut TcpStream) -> Response {
    let head = read_head(stream).expect("the proxy answers").expect("the proxy answers before it closes");
    let mut response = Response::of_head(head);
    if response.status != 200 {
        let mut rest = io::BufReader::new(stream);
        copy_body(&mut rest, &response.head, true, |part| response.body.extend_from_slice(part))
            .expect("the proxy sends the whole body");
    }
    response
}

/// A plain GET through the proxy in absolute form, on a connection of its own.
pub(crate) fn forward_get(proxy: SocketAddr, url: &str) -> Response {
    let authority = url.trim_start_matches("http://").split('/').next().unwrap_or_default();
    let mut stream = connect(proxy);
    let request = format!("GET {url} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("the proxy takes a request");
    Response::read(stream).expect("the proxy answers")
}

/// SOCKS5 (RFC 1928, 1929): the reply code of a CONNECT, or 0xFF if no method was acceptable. With `credentials`,
/// user name and password are the only method offered.
pub(crate) fn socks5(proxy: SocketAddr, host: Host<'_>, port: u16, credentials: Option<(&str, &str)>) -> (u8, TcpStream) {
    let mut stream = connect(proxy);
    let method = if credentials.is_some() { 2 } else { 0 };
    stream.write_all(&[5, 1, method]).expect("the proxy takes a greeting");
    let chosen = read_exactly(&mut stream, 2);
    assert_eq!(chosen[0], 5, "the version of the method choice");
    if chosen[1] == 0xff {
        return (0xff, stream);
    }
    assert_eq!(chosen[1], method, "the method chosen is the one offered");
    if let Some((user, password)) = credentials {
        log_in(&mut stream, user, password);
    }
    stream.write_all(&socks5_request(1, host, port)).expect("the proxy takes a request");
    (read_socks5_reply(&mut stream), stream)
}

/// A SOCKS5 request with this command (1 CONNECT, 2 BIND, 3 UDP ASSOCIATE).
pub(crate) fn socks5_request(command: u8, host: Host<'_>, port: u16) -> Vec<u8> {
    let mut request = vec![5, command, 0];
    match host {
        Host::Name(name) => {
            request.push(3);
            push_short(&mut request, name);
        }
        Host::Ip(IpAddr::V4(ip)) => {
            request.push(1);
            request.extend_from_slice(&ip.octets());
        }
        Host::Ip(IpAddr::V6(ip)) => {
            request.push(4);
            request.extend_from_slice(&ip.octets());
        }
    }
    request.extend_from_slice(&port.to_be_bytes());
    request
}

/// The code of a SOCKS5 reply, which is read to the end of its bound address.
pub(crate) fn read_socks5_reply(stream: &mut TcpStream) -> u8 {
    let reply = read_exactly(stream, 4);
    assert_eq!((reply[0], reply[2]), (5, 0), "version and reserved byte of {reply:?}");
    let address = match reply[3] {
        1 => 4,
        4 => 16,
        3 => usize::from(read_exactly(stream, 1)[0]),
        other => panic!("unknown address type {other} in a SOCKS5 reply"),
    };
    read_exactly(stream, address + 2);
    reply[1]
}

fn log_in(stream: &mut TcpStream, user: &str, password: &str) {
    let mut request = vec![1];
    push_short(&mut request, user);
    push_short(&mut request, password);
    stream.write_all(&request).expect("the proxy takes credentials");
    assert_eq!(read_exactly(stream, 2), [1, 0], "the answer to user name and password");
}

fn push_short(request: &mut Vec<u8>, text: &str) {
    request.push(u8::try_from(text.len()).expect("at most 255 bytes"));
    request.extend_from_slice(text.as_bytes());
}

/// SOCKS4 CONNECT: the reply code, 90 for yes.
pub(crate) fn socks4(proxy: SocketAddr, ip: Ipv4Addr, port: u16, user: &str) -> (u8, TcpStream) {
    socks4_exchange(proxy, &socks4_request(ip, port, user))
}

/// SOCKS4a CONNECT, by name: the reply code, 90 for yes.
pub(crate) fn socks4a(proxy: SocketAddr, name: &str, port: u16, user: &str) -> (u8, TcpStream) {
    let mut request = socks4_request(Ipv4Addr::new(0, 0, 0, 1), port, user);
    request.extend_from_slice(name.as_bytes());
    request.push(0);
    socks4_exchange(proxy, &request)
}

fn socks4_request(ip: Ipv4Addr, port: u16, user: &str) -> Vec<u8> {
    let mut request = vec![4, 1];
    request.extend_from_slice(&port.to_be_bytes());
    request.extend_from_slice(&ip.octets());
    request.extend_from_slice(user.as_bytes());
    request.push(0);
    request
}

fn socks4_exchange(proxy: SocketAddr, request: &[u8]) -> (u8, TcpStream) {
    let mut stream = connect(proxy);
    stream.write_all(request).expect("the proxy takes a request");
    let reply = read_exactly(&mut stream, 8);
    assert_eq!(reply[0], 0, "the version of the SOCKS4 reply {reply:?}");
    (reply[1], stream)
}

/// TLS over a tunnel, with the handshake done. An error is what a client sees when it is refused.
pub(crate) fn tls_over(mut stream: TcpStream, sni: &str, config: Arc<ClientConfig>) -> io::Result<TlsStream> {
    let name = ServerName::try_from(sni.to_owned()).expect("a name that a certificate can have");
    let mut session = ClientConnection::new(config, name).expect("the configuration is complete");
    while session.is_handshaking() {
        session.complete_io(&mut stream)?;
    }
    Ok(StreamOwned::new(session, stream))
}

/// One HTTPS GET over a tunnel. The certificate must be valid for `sni`.
pub(crate) fn https_get(stream: TcpStream, sni: &str, path: &str, config: Arc<ClientConfig>) -> Response {
    let mut stream = tls_over(stream, sni, config).unwrap_or_else(|e| panic!("TLS handshake for {sni}: {e}"));
    let request = format!("GET {path} HTTP/1.1\r\nHost: {sni}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("the upstream takes a request");
    Response::read(stream).expect("the upstream answers")
}
