//! Names to addresses, through hickory-resolver only: libc's resolver blocks threads, hides times to live and does
//! not link statically. Every name is asked as it is, absolute; search domains are not applied, since one could
//! answer for an allowed name.

mod latest;
mod noted;

use std::collections::HashMap;
use std::fmt;
use std::future::{Future, ready};
use std::io::Read as _;
use std::iter;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use egret_policy::Name;
use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::{Query, ResponseCode};
use hickory_resolver::proto::rr::{Name as DnsName, RData, Record, RecordType};
use hickory_resolver::{Hosts, ResolverBuilder};
use rustls::pki_types::CertificateDer;

use self::latest::Latest;
use self::noted::Noted;

use crate::fault::DnsFault;
use crate::limits::{DNS_CACHE, DNS_IN_FLIGHT, DNS_MOMENT, DNS_NEGATIVE_TTL};

/// One try of one query; with the two retries it stays below [`Limits::dns`](crate::Limits::dns).
const TRY: Duration = Duration::from_millis(1_400);
const RETRIES: usize = 2;
/// The longest chain of aliases in one answer.
const MAX_ALIASES: usize = 32;
/// How much of `/etc/hosts` is read.
const MAX_HOSTS: u64 = 1024 * 1024;

/// Addresses on their way.
pub type BoxedAnswers<'a> = Pin<Box<dyn Future<Output = Result<Vec<IpAddr>, DnsFault>> + Send + 'a>>;

/// Records on their way.
pub type BoxedRecords<'a> = Pin<Box<dyn Future<Output = Result<Vec<Record>, DnsFault>> + Send + 'a>>;

/// Resolves names.
pub trait Resolve: Send + Sync + 'static {
    /// All addresses of the name, IPv4 and IPv6.
    fn resolve<'a>(&'a self, name: &'a Name) -> BoxedAnswers<'a>;

    /// All records of one other kind, aliases on the way included.
    fn records<'a>(&'a self, name: &'a Name, kind: RecordType) -> BoxedRecords<'a>;

    /// The names that `/etc/hosts` lists for an address.
    fn listed_for(&self, address: IpAddr) -> Vec<Name>;

    /// The one server that is asked, if the policy names it.
    fn server(&self) -> Option<SocketAddr> {
        None
    }
}

/// Where DNS questions go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DnsServer {
    /// What `/etc/resolv.conf` and `/etc/hosts` say.
    System,
    /// A server over UDP, and TCP for what does not fit. `/etc/hosts` counts too.
    Plain(SocketAddr),
    /// A server over TLS (RFC 7858), with the name its certificate must have. `/etc/hosts` counts too.
    Tls(SocketAddr, Name),
}

impl DnsServer {
    fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::System => None,
            Self::Plain(at) | Self::Tls(at, _) => Some(*at),
        }
    }
}

/// The resolver of the program.
pub struct Resolver {
    server: Option<SocketAddr>,
    /// `/etc/hosts`, as it was when the resolver was made.
    hosts: Hosts,
    /// The same the other way round.
    names: Vec<(IpAddr, Name)>,
    dns: hickory_resolver::Resolver<Noted>,
    latest: Latest,
}

/// Why a resolver cannot be made.
#[derive(Debug)]
pub struct ResolverError(String);

impl Resolver {
    /// A resolver with a cache of its own. `roots` are trusted beside the public ones, for DNS over TLS.
    ///
    /// # Errors
    /// `/etc/resolv.conf` or `/etc/hosts` cannot be read, or a root is no certificate.
    pub fn new(server: &DnsServer, roots: &[CertificateDer<'static>]) -> Result<Self, ResolverError> {
        Self::noting(server, roots, Arc::new(|_| {}))
    }

    /// The same; `note` is told the number of each socket that it makes (`SO_COOKIE`).
    ///
    /// # Errors
    /// As for [`Resolver::new`].
    pub fn noting(
        server: &DnsServer,
        roots: &[CertificateDer<'static>],
        note: Arc<dyn Fn(u64) + Send + Sync>,
    ) -> Result<Self, ResolverError> {
        let sockets = Noted::new(note);
        let mut builder = match server {
            DnsServer::System => hickory_resolver::Resolver::builder(sockets).map_err(|e| ResolverError(e.to_string()))?,
            DnsServer::Plain(at) => {
                let mut connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()];
                connections.iter_mut().for_each(|connection| connection.port = at.port());
                asking(NameServerConfig::new(at.ip(), true, connections.into()), sockets)
            }
            DnsServer::Tls(at, name) => {
                let mut connection = ConnectionConfig::tls(name.as_str().into());
                connection.port = at.port();
                asking(NameServerConfig::new(at.ip(), true, vec![connection]), sockets).with_tls_config(tls_config(roots)?)
            }
        };
        configure(builder.options_mut());
        let dns = builder.build().map_err(|e| ResolverError(e.to_string()))?;
        let server = server.address();
        // A container without the file has no hosts in it.
        Ok(Self {
            server,
            hosts: Hosts::from_system().unwrap_or_default(),
            names: names_in_hosts(),
            dns,
            latest: Latest::default(),
        })
    }

    /// What `/etc/hosts` says of a name. If it says anything, DNS is not asked, for neither family.
    fn listed_in_hosts(&self, name: &str) -> Vec<IpAddr> {
        let Ok(name) = DnsName::from_ascii(name) else { return Vec::new() };
        [RecordType::A, RecordType::AAAA]
            .into_iter()
            .filter_map(|family| self.hosts.lookup_static_host(&Query::query(name.clone(), family)))
            .flat_map(|found| found.answers().iter().filter_map(|record| record.data.ip_addr()).collect::<Vec<_>>())
            .collect()
    }
}

fn asking(server: NameServerConfig, sockets: Noted) -> ResolverBuilder<Noted> {
    hickory_resolver::Resolver::builder_with_config(ResolverConfig::from_name_servers(vec![server]), sockets)
}

fn configure(options: &mut ResolverOpts) {
    options.use_hosts_file = ResolveHosts::Never;
    options.timeout = TRY;
    options.attempts = RETRIES;
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    options.cache_size = DNS_CACHE;
    options.negative_max_ttl = Some(DNS_NEGATIVE_TTL);
    options.max_active_requests = DNS_IN_FLIGHT;
}

fn tls_config(roots: &[CertificateDer<'static>]) -> Result<rustls::ClientConfig, ResolverError> {
    let mut store = rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    for root in roots {
        store.add(root.clone()).map_err(|e| ResolverError(format!("a certificate of dns.ca cannot be used: {e}")))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| ResolverError(e.to_string()))?;
    Ok(config.with_root_certificates(store).with_no_client_auth())
}

impl Resolve for Resolver {
    fn resolve<'a>(&'a self, name: &'a Name) -> BoxedAnswers<'a> {
        if let Some(addresses) = self.latest.get(name) {
            return Box::pin(ready(Ok(addresses)));
        }
        Box::pin(async move {
            // The trailing dot makes the name absolute.
            let absolute = format!("{name}.");
            let listed = self.listed_in_hosts(&absolute);
            if !listed.is_empty() {
                self.latest.put(name, &listed, Instant::now() + DNS_MOMENT);
                return Ok(listed);
            }
            let lookup = self.dns.lookup_ip(absolute.as_str()).await.map_err(|error| fault(&error))?;
            let addresses = addresses_of(&absolute, lookup.as_lookup().answers());
            if addresses.is_empty() {
                return Err(DnsFault::NoAddress);
            }
            self.latest.put(name, &addresses, lookup.valid_until());
            Ok(addresses)
        })
    }

    fn records<'a>(&'a self, name: &'a Name, kind: RecordType) -> BoxedRecords<'a> {
        Box::pin(async move {
            let lookup = self.dns.lookup(format!("{name}."), kind).await.map_err(|error| fault(&error))?;
            Ok(lookup.answers().to_vec())
        })
    }

    fn listed_for(&self, address: IpAddr) -> Vec<Name> {
        self.names.iter().filter(|(listed, _)| *listed == address).map(|(_, name)| name.clone()).collect()
    }

    fn server(&self) -> Option<SocketAddr> {
        self.server
    }
}

/// The addresses of a name and of what it is an alias of. Records of other names in the same answer are nobody's answer;
/// hickory gives them all.
fn addresses_of(name: &str, records: &[Record]) -> Vec<IpAddr> {
    let Ok(name) = DnsName::from_ascii(name) else { return Vec::new() };
    let aliases: HashMap<&DnsName, &DnsName> = records
        .iter()
        .filter_map(|record| match &record.data {
            RData::CNAME(target) => Some((&record.name, &target.0)),
            _ => None,
        })
        .collect();
    let owners: Vec<&DnsName> =
        iter::successors(Some(&name), |owner| aliases.get(owner).copied()).take(1 + MAX_ALIASES).collect();
    let own = records.iter().filter(|record| owners.contains(&&record.name));
    own.filter_map(|record| record.data.ip_addr()).collect()
}

/// What `/etc/hosts` says (hosts(5)), as far as it is text of addresses and names.
fn names_in_hosts() -> Vec<(IpAddr, Name)> {
    let mut text = String::new();
    let read = std::fs::File::open("/etc/hosts").and_then(|file| file.take(MAX_HOSTS).read_to_string(&mut text));
    let lines = text.lines().filter(|_| read.is_ok());
    let named = lines.flat_map(|line| {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        let address = words.next().and_then(|word| word.parse::<IpAddr>().ok());
        words.filter_map(move |word| Some((address?, Name::parse(word).ok()?)))
    });
    named.collect()
}

fn fault(error: &NetError) -> DnsFault {
    match error {
        NetError::Timeout => DnsFault::Timeout,
        NetError::Dns(DnsError::NoRecordsFound(none)) => match none.response_code {
            ResponseCode::NXDomain => DnsFault::NxDomain,
            ResponseCode::NoError => DnsFault::NoAddress,
            _ => DnsFault::Failed,
        },
        _ => DnsFault::Failed,
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Resolver")
    }
}

impl fmt::Display for ResolverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ResolverError {}
