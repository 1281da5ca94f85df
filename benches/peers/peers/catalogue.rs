//! The programs, each with its list of names and its log as a user would have them. Those that Debian has not are found where a
//! variable names them.

use super::{Peer, Web};
use crate::tunnel::Way;
use crate::wire::{HTTP_PORT, NAME, TLS_PORT};

const EGRET: &[&str] = &[
    "run",
    "--policy",
    "@RUN@/egret.yaml",
    "--listen",
    "127.0.0.1:@PORT@",
    "--admin",
    "127.0.0.1:@HTTP@",
    "--journal",
    "@RUN@/egret.log",
    "--drain",
    "0",
];
const EGRET_FILES: &[(&str, &str)] = &[("egret.yaml", include_str!("../configs/egret.yaml"))];

const fn egret(name: &'static str, program: &'static str, way: Way) -> Peer {
    Peer {
        name,
        way,
        web: if matches!(way, Way::Connect) { Web::Forward } else { Web::No },
        program,
        arguments: EGRET,
        files: EGRET_FILES,
        allow: |name| {
            let rule = |port, layer| format!("    - {{ to: {name}, ports: [{port}], as: {layer}, within: [127.0.0.0/8] }}");
            if name == NAME { [rule(TLS_PORT, "tls"), rule(HTTP_PORT, "http")].join("\n") } else { rule(TLS_PORT, "tls") }
        },
        log: "egret.log",
        version: "--version",
        cached: true,
        filters: true,
    }
}

const NONE: Peer = Peer {
    name: "direct",
    way: Way::Direct,
    web: Web::Forward,
    program: "",
    arguments: &[],
    files: &[],
    allow: str::to_owned,
    log: "",
    version: "",
    cached: false,
    filters: false,
};

/// Egret as it was built for the bench, and another one to compare it with.
pub(crate) const OURS: &str = "egret";
pub(crate) const OTHER: &str = "other";

/// Those that are measured among many idle tunnels as well.
pub(crate) const CROWD: [&str; 7] = ["direct", "egret", "egret-sni", "other", "squid", "haproxy-sni", "nginx-sni"];

pub(crate) const ALL: &[Peer] = &[
    NONE,
    egret("egret", OURS, Way::Connect),
    egret("egret-socks", OURS, Way::Socks5),
    egret("egret-sni", OURS, Way::Sni),
    egret("other", OTHER, Way::Connect),
    egret("other-socks", OTHER, Way::Socks5),
    egret("other-sni", OTHER, Way::Sni),
    Peer {
        name: "squid",
        way: Way::Connect,
        program: "squid",
        arguments: &["-N", "-f", "@RUN@/squid.conf"],
        files: &[("squid.conf", include_str!("../configs/squid.conf")), ("squid.names", "@ALLOW@\n")],
        log: "squid.log",
        version: "-v",
        filters: true,
        ..NONE
    },
    Peer {
        name: "squid-peek",
        way: Way::Connect,
        web: Web::No,
        program: "squid",
        arguments: &["-N", "-f", "@RUN@/squid-peek.conf"],
        files: &[("squid-peek.conf", include_str!("../configs/squid-peek.conf")), ("squid.names", "@ALLOW@\n")],
        log: "squid-peek.log",
        version: "-v",
        filters: true,
        ..NONE
    },
    Peer {
        name: "tinyproxy",
        way: Way::Connect,
        program: "tinyproxy",
        arguments: &["-d", "-c", "@RUN@/tinyproxy.conf"],
        files: &[("tinyproxy.conf", include_str!("../configs/tinyproxy.conf")), ("tinyproxy.names", "@ALLOW@\n")],
        allow: |name| format!("^{}$", name.replace('.', "\\.")),
        log: "tinyproxy.log",
        version: "-v",
        filters: true,
        ..NONE
    },
    Peer {
        name: "privoxy",
        way: Way::Connect,
        program: "privoxy",
        arguments: &["--no-daemon", "@RUN@/privoxy.conf"],
        files: &[
            ("privoxy.conf", include_str!("../configs/privoxy.conf")),
            ("privoxy.action", include_str!("../configs/privoxy.action")),
        ],
        // What it would write to its log file goes to standard error, as it is no daemon.
        log: "privoxy.out",
        version: "--version",
        filters: true,
        ..NONE
    },
    Peer {
        name: "3proxy",
        way: Way::Connect,
        program: "3proxy",
        arguments: &["@RUN@/3proxy.cfg"],
        files: &[("3proxy.cfg", include_str!("../configs/3proxy.cfg"))],
        allow: |name| format!("allow * * {name} 443 HTTP_CONNECT,CONNECT\nallow * * {name} 80 HTTP"),
        log: "3proxy.log",
        version: "--version",
        filters: true,
        ..NONE
    },
    Peer {
        name: "smokescreen",
        way: Way::Connect,
        program: "smokescreen",
        arguments: &["--config-file", "@RUN@/smokescreen.yaml"],
        files: &[
            ("smokescreen.yaml", include_str!("../configs/smokescreen.yaml")),
            ("smokescreen.acl.yaml", include_str!("../configs/smokescreen.acl.yaml")),
        ],
        allow: |name| format!("    - {name}"),
        log: "smokescreen.out",
        version: "--version",
        filters: true,
        ..NONE
    },
    Peer {
        name: "envoy",
        way: Way::Connect,
        program: "envoy",
        arguments: &["-c", "@RUN@/envoy.yaml", "--concurrency", "@THREADS@", "--use-dynamic-base-id", "--disable-hot-restart"],
        files: &[("envoy.yaml", include_str!("../configs/envoy.yaml"))],
        log: "envoy.log",
        version: "--version",
        filters: true,
        ..NONE
    },
    Peer {
        name: "g3proxy",
        way: Way::Connect,
        program: "g3proxy",
        arguments: &["-c", "@RUN@/g3proxy.yaml", "-G", "peers", "--control-dir", "@RUN@"],
        files: &[("g3proxy.yaml", include_str!("../configs/g3proxy.yaml"))],
        log: "g3proxy.out",
        version: "--version",
        filters: true,
        ..NONE
    },
    Peer {
        name: "dante",
        way: Way::Socks5,
        web: Web::No,
        program: "danted",
        arguments: &["-f", "@RUN@/dante.conf"],
        files: &[("dante.conf", include_str!("../configs/dante.conf"))],
        allow: |name| {
            format!(
                "socks pass {{ from: 127.0.0.0/8 to: {name} port = 443\n  protocol: tcp\n  command: connect\n  log: connect disconnect }}"
            )
        },
        log: "dante.log",
        version: "-v",
        filters: true,
        ..NONE
    },
    Peer {
        name: "microsocks",
        way: Way::Socks5,
        web: Web::No,
        program: "microsocks",
        arguments: &["-i", "127.0.0.1", "-p", "@PORT@"],
        log: "microsocks.out",
        ..NONE
    },
    Peer {
        name: "haproxy-sni",
        way: Way::Sni,
        web: Web::Gate,
        program: "haproxy",
        arguments: &["-db", "-f", "@RUN@/haproxy.cfg"],
        files: &[("haproxy.cfg", include_str!("../configs/haproxy.cfg")), ("haproxy.names", "@ALLOW@\n")],
        log: "haproxy-sni.out",
        version: "-v",
        filters: true,
        ..NONE
    },
    Peer {
        name: "nginx-sni",
        way: Way::Sni,
        web: Web::Gate,
        program: "nginx",
        arguments: &["-c", "@RUN@/nginx.conf"],
        files: &[("nginx.conf", include_str!("../configs/nginx.conf"))],
        allow: |name| format!("    {name} 127.0.0.1:443;"),
        log: "nginx.log",
        version: "-v",
        filters: true,
        ..NONE
    },
    Peer {
        name: "sniproxy",
        way: Way::Sni,
        web: Web::No,
        program: "sniproxy",
        arguments: &["-f", "-c", "@RUN@/sniproxy.conf"],
        files: &[("sniproxy.conf", include_str!("../configs/sniproxy.conf"))],
        allow: |name| format!("  ^{}$ 127.0.0.1:443", name.replace('.', "\\.")),
        log: "sniproxy.log",
        version: "-V",
        filters: true,
        ..NONE
    },
];
