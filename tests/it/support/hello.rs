//! ClientHellos byte by byte (RFC 8446 section 4.1.2, RFC 6066 section 3), well-formed unless a test asks for what
//! is not, and cut into TLS records wherever a test likes. No handshake is ever completed with them.

use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};

const HANDSHAKE_RECORD: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const HOST_NAME: u8 = 0;

/// The most that one record may carry.
const RECORD_LIMIT: usize = 1 << 14;

mod extension {
    pub(super) const SERVER_NAME: u16 = 0;
    pub(super) const SUPPORTED_GROUPS: u16 = 10;
    pub(super) const SIGNATURE_ALGORITHMS: u16 = 13;
    pub(super) const ALPN: u16 = 16;
    pub(super) const PADDING: u16 = 21;
    pub(super) const SUPPORTED_VERSIONS: u16 = 43;
    pub(super) const KEY_SHARE: u16 = 51;
    pub(super) const ENCRYPTED_CLIENT_HELLO: u16 = 0xfe0d;
}

/// A ClientHello for TLS 1.3 and 1.2 as a current client sends it, without a server name until one is given.
#[derive(Clone)]
pub(crate) struct Hello {
    extensions: Vec<(u16, Vec<u8>)>,
}

impl Hello {
    pub(crate) fn new() -> Self {
        let (x25519, p256) = ([0, 29], [0, 23]);
        // The base point's coordinate: a key share that a server can compute with.
        let mut share = vec![9];
        share.resize(32, 0);
        let share = [&x25519[..], &with_length16(&share)].concat();
        Self { extensions: Vec::new() }
            .extension(extension::SUPPORTED_GROUPS, &with_length16(&[x25519, p256].concat()))
            .extension(extension::SIGNATURE_ALGORITHMS, &with_length16(&[4, 3, 8, 4, 8, 5, 4, 1]))
            .extension(extension::SUPPORTED_VERSIONS, &[4, 3, 4, 3, 3])
            .extension(extension::KEY_SHARE, &with_length16(&share))
    }

    pub(crate) fn sni(self, name: &str) -> Self {
        self.sni_list(&[name])
    }

    /// One server_name extension with all these names in it, in the place of any former one.
    pub(crate) fn sni_list(self, names: &[&str]) -> Self {
        let names: Vec<&[u8]> = names.iter().map(|name| name.as_bytes()).collect();
        self.sni_bytes(&names)
    }

    /// The same with names that are no text.
    pub(crate) fn sni_bytes(self, names: &[&[u8]]) -> Self {
        let entry = |name: &&[u8]| [&[HOST_NAME][..], &with_length16(name)].concat();
        let entries: Vec<u8> = names.iter().flat_map(entry).collect();
        self.no_sni().extension(extension::SERVER_NAME, &with_length16(&entries))
    }

    pub(crate) fn no_sni(mut self) -> Self {
        self.extensions.retain(|(kind, _)| *kind != extension::SERVER_NAME);
        self
    }

    /// An encrypted_client_hello extension of the outer kind with meaningless content, as browsers send it to
    /// servers that never asked (RFC 9849 section 6.2).
    pub(crate) fn ech_grease(self) -> Self {
        let outer = [0, 0, 1, 0, 1, 0x42];
        let encapsulated = with_length16(&[0x17; 32]);
        let payload = with_length16(&[0x2a; 144]);
        self.extension(extension::ENCRYPTED_CLIENT_HELLO, &[&outer[..], &encapsulated, &payload].concat())
    }

    pub(crate) fn alpn(self, protocols: &[&str]) -> Self {
        let entry = |protocol: &&str| {
            let length = u8::try_from(protocol.len()).expect("at most 255 bytes");
            [&[length], protocol.as_bytes()].concat()
        };
        let entries: Vec<u8> = protocols.iter().flat_map(entry).collect();
        self.extension(extension::ALPN, &with_length16(&entries))
    }

    /// A padding extension of `count` zeros (RFC 7685).
    pub(crate) fn padding(self, count: usize) -> Self {
        self.extension(extension::PADDING, &vec![0; count])
    }

    /// Any extension, right or wrong, after those that are there already.
    pub(crate) fn extension(mut self, kind: u16, body: &[u8]) -> Self {
        self.extensions.push((kind, body.to_vec()));
        self
    }

    /// As bytes on the wire: one TLS record, or as many as it fills.
    pub(crate) fn build(&self) -> Vec<u8> {
        self.handshake().chunks(RECORD_LIMIT).flat_map(record).collect()
    }

    /// The handshake message alone, without the record layer.
    pub(crate) fn handshake(&self) -> Vec<u8> {
        let body = self.body();
        let length = u32::try_from(body.len()).expect("a ClientHello has a 24-bit length").to_be_bytes();
        [&[CLIENT_HELLO], &length[1..], &body].concat()
    }

    fn body(&self) -> Vec<u8> {
        let version = [3, 3];
        let random = [0x5a; 32];
        let session = [&[32][..], &[0xa5; 32]].concat();
        let suites = with_length16(&[0x13, 1, 0x13, 2, 0x13, 3, 0xc0, 0x2b, 0xc0, 0x2f]);
        let compression = [1, 0];
        let one = |(kind, body): &(u16, Vec<u8>)| [&kind.to_be_bytes()[..], &with_length16(body)].concat();
        let extensions: Vec<u8> = self.extensions.iter().flat_map(one).collect();
        [&version[..], &random, &session, &suites, &compression, &with_length16(&extensions)].concat()
    }
}

/// The same handshake bytes in records cut before each of the offsets `at`, which count from the first byte of the
/// handshake message. An offset given twice makes an empty record.
pub(crate) fn split_records(hello: &[u8], at: &[usize]) -> Vec<u8> {
    let message = strip_records(hello);
    let starts = [0].iter().chain(at);
    let ends = at.iter().copied().chain([message.len()]);
    starts.zip(ends).flat_map(|(start, end)| record(&message[*start..end])).collect()
}

/// The first flight of a real client: what rustls sends for this name.
pub(crate) fn rustls_hello(sni: &str) -> Vec<u8> {
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring has the default versions")
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let name = ServerName::try_from(sni.to_owned()).expect("a name that a certificate can have");
    let mut session = ClientConnection::new(Arc::new(config), name).expect("the configuration is complete");
    let mut hello = Vec::new();
    session.write_tls(&mut hello).expect("memory takes bytes");
    hello
}

fn strip_records(mut records: &[u8]) -> Vec<u8> {
    let mut message = Vec::new();
    while let [HANDSHAKE_RECORD, _, _, high, low, rest @ ..] = records {
        let (fragment, after) = rest.split_at(usize::from(u16::from_be_bytes([*high, *low])));
        message.extend_from_slice(fragment);
        records = after;
    }
    message
}

/// One record. Version 3.1, as RFC 8446 section 5.1 has it for a first ClientHello.
fn record(fragment: &[u8]) -> Vec<u8> {
    [&[HANDSHAKE_RECORD, 3, 1], &with_length16(fragment)[..]].concat()
}

fn with_length16(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).expect("at most 65,535 bytes");
    [&length.to_be_bytes(), bytes].concat()
}
