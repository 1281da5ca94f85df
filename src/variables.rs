//! The variables that send an app's clients through the proxy, and which clients read none. Both cases, because clients
//! read one or the other; an http:// URL even for https, because that is how one speaks to the proxy; a NO_PROXY of plain
//! names and addresses, because half of all clients read nothing else.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use clap::ValueEnum;

/// Loopback, and the platform's credential addresses, which are fetched without a proxy.
const NO_PROXY: [&str; 5] = ["localhost", "127.0.0.1", "::1", "169.254.170.2", "169.254.170.23"];

/// Every variable that may be set here.
pub(crate) const NAMES: [&str; 10] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "NO_PROXY",
    "no_proxy",
    "NODE_USE_ENV_PROXY",
    "NODE_OPTIONS",
    "JAVA_TOOL_OPTIONS",
    "PERL_LWP_ENV_PROXY",
];

/// Makes every agent of Node's http and https read the variables, those of libraries that make their own included, such as
/// the AWS SDK's. As a module in a URL, so that no file has to be brought along.
const NODE_PRELOAD: &str = "import%20http%20from'node:http';import%20https%20from'node:https';\
    import{syncBuiltinESMExports%20as%20s}from'node:module';const%20e=o=>({proxyEnv:process.env,...o});\
    for(const%20m%20of[http,https])m.Agent=new%20Proxy(m.Agent,{construct:(t,[o],n)=>Reflect.construct(t,[e(o)],n),\
    apply:(t,self,[o])=>Reflect.apply(t,self,[e(o)])});s()";

/// What an app's clients are written in or run by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Runtime {
    /// Node 24: fetch, http and https with NODE_USE_ENV_PROXY
    Node,
    /// Node 24.5: agents that libraries make for themselves too, such as the AWS SDK's, by NODE_OPTIONS
    NodeAgents,
    /// The JVM: JAVA_TOOL_OPTIONS
    Java,
    /// CPython and its usual clients
    Python,
    /// Go's net/http
    Go,
    /// Ruby's Net::HTTP
    Ruby,
    /// PHP: the curl extension
    Php,
    /// Perl: LWP and HTTP::Tiny
    Perl,
    /// .NET's HttpClient
    Dotnet,
    /// Rust: reqwest and ureq
    Rust,
}

impl Runtime {
    /// What its clients leave unread.
    pub(crate) fn note(self) -> &'static str {
        match self {
            Self::Node => {
                "node: NODE_USE_ENV_PROXY is read from version 24 on; older versions, and libraries with agents of their own \
                 (AWS SDK v3), connect directly: for these see --runtime node-agents"
            }
            Self::NodeAgents => {
                "node-agents: needs Node 24.5; older versions ignore it, and those before 18.18 do not start with it. It \
                 takes the place of the app's own NODE_OPTIONS"
            }
            Self::Java => {
                "java: reads no proxy variables; JAVA_TOOL_OPTIONS sets the properties, which java.net clients read. AWS SDK 2 \
                 with its Apache client reads them as well; clients with a proxy selector of their own do not"
            }
            Self::Python => {
                "python: urllib, requests, httpx and botocore read them; aiohttp only with trust_env=True in the code, and \
                 botocore fetches task credentials without a proxy"
            }
            Self::Go => "go: net/http reads them, and goes around them for localhost; a transport with Proxy: nil does not",
            Self::Ruby => "ruby: Net::HTTP.new reads http_proxy alone, for https too",
            Self::Php => "php: the curl extension reads them; streams (file_get_contents) connect directly, whatever is set",
            Self::Perl => "perl: HTTP::Tiny reads them; LWP with PERL_LWP_ENV_PROXY",
            Self::Dotnet => "dotnet: HttpClient reads them",
            Self::Rust => "rust: reqwest and ureq read them; hyper alone does not",
        }
    }

    fn variables(self, proxy: &str, direct: &[String]) -> Vec<(&'static str, String)> {
        match self {
            Self::Node => vec![("NODE_USE_ENV_PROXY", "1".to_owned())],
            Self::NodeAgents => vec![
                ("NODE_USE_ENV_PROXY", "1".to_owned()),
                ("NODE_OPTIONS", format!("--import=data:text/javascript,{NODE_PRELOAD}")),
            ],
            Self::Java => vec![("JAVA_TOOL_OPTIONS", java_options(proxy, direct))],
            Self::Perl => vec![("PERL_LWP_ENV_PROXY", "1".to_owned())],
            Self::Python | Self::Go | Self::Ruby | Self::Php | Self::Dotnet | Self::Rust => Vec::new(),
        }
    }
}

/// The JVM separates with bars, and takes names below a domain only by a star.
fn java_options(proxy: &str, direct: &[String]) -> String {
    let hosts = direct.iter().map(|host| match host.parse::<IpAddr>() {
        Ok(IpAddr::V6(_)) => format!("[{host}]"),
        _ if host.starts_with('.') => format!("*{host}"),
        _ => host.clone(),
    });
    let (host, port) = proxy.rsplit_once(':').unwrap_or((proxy, "3128"));
    let proxies = ["http", "https"].map(|scheme| format!("-D{scheme}.proxyHost={host} -D{scheme}.proxyPort={port}"));
    format!("{} -Dhttp.nonProxyHosts={}", proxies.join(" "), hosts.collect::<Vec<_>>().join("|"))
}

/// The usual exceptions and these.
pub(crate) fn no_proxy(more: &[String]) -> Vec<String> {
    let mut all: Vec<String> = NO_PROXY.map(str::to_owned).to_vec();
    for name in more {
        if !all.contains(name) {
            all.push(name.clone());
        }
    }
    all
}

/// What sends an app through the proxy at this host and port, but for these names and addresses.
pub(crate) fn variables(proxy: &str, direct: &[String], runtimes: &[Runtime]) -> Vec<(String, String)> {
    let (url, no_proxy) = (format!("http://{proxy}"), direct.join(","));
    let pairs = [("HTTP_PROXY", &url), ("HTTPS_PROXY", &url), ("NO_PROXY", &no_proxy)];
    let both =
        pairs.into_iter().flat_map(|(name, value)| [(name.to_owned(), value.clone()), (name.to_lowercase(), value.clone())]);
    let mut all: Vec<(String, String)> = both.collect();
    for (name, value) in runtimes.iter().flat_map(|runtime| runtime.variables(proxy, direct)) {
        if !all.iter().any(|(there, _)| there == name) {
            all.push((name.to_owned(), value));
        }
    }
    all
}

/// A listener on every address is reached on loopback.
pub(crate) fn as_seen_by_the_app(mut listen: SocketAddr) -> SocketAddr {
    match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => listen.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => listen.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    listen
}

/// Why an item of NO_PROXY is not read by every client; `None` if it is.
pub(crate) fn unportable(item: &str) -> Option<&'static str> {
    if item.trim() != item {
        return Some("ureq reads no item with a blank before it");
    }
    if item.contains('*') {
        return Some("curl, git, wget, Python, Ruby and Rust read no star: write the domain with a dot before it");
    }
    if item.contains('/') {
        return Some("wget, Python's urllib, httpx, aiohttp and botocore, Node and Perl read no networks: name the addresses");
    }
    let is_address = item.parse::<IpAddr>().is_ok();
    if !is_address && item.trim_start_matches('[').contains(':') {
        return Some("curl, git, wget, aiohttp, Rust and Perl read no ports: name the host alone");
    }
    None
}
