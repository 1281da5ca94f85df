//! What egret finds around itself: limits, processes, names, time, addresses, files, variables. Every look has a bound in
//! time and size, and sends nothing but one DNS question to the system's own server and attempts to connect to link-local
//! addresses.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rustix::fs::{Access, access};

use super::{Check, State};
use crate::flows::row::Row;
use crate::flows::ways::Way;
use crate::flows::{advice, glance};
use crate::variables;

/// How long anything on the network may take to answer.
const PATIENCE: Duration = Duration::from_millis(1500);
/// A question for the servers of the root, with recursion: 17 octets (RFC 1035 section 4.1).
const QUESTION: [u8; 17] = [0xe6, 0x7e, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1];
/// No certificate of today was valid before (2025-01-01).
const LATE: i64 = 1_735_689_600;
/// Programs and destinations around the proxy that are named.
const MOST_SHOWN: usize = 5;
/// Where an app or egret may want to write.
const FOLDERS: [&str; 6] = ["/", "/tmp", "/dev/shm", "/var/log", "/etc/egret", "/opt/egret"];

/// All of them, in the order in which they are printed.
pub(super) fn checks() -> Vec<Check> {
    vec![inotify(), processes(), dns(), clock(), metadata(), writable(), proxy_variables(), around()]
}

/// Who goes around the proxy at this moment, and what to set. No policy says here what may.
fn around() -> Check {
    let rows = match glance::now(Vec::new()) {
        Ok(rows) => rows,
        Err(error) => return Check::new("around", State::Note, format!("connections cannot be seen: {error:#}")),
    };
    let who: BTreeSet<String> = rows.iter().filter(|row| row.way == Way::Around.as_str()).map(went_around).collect();
    if who.is_empty() {
        return Check::new("around", State::Good, "no program has a connection around the proxy now");
    }
    let more = match who.len().saturating_sub(MOST_SHOWN) {
        0 => String::new(),
        more => format!("; {more} more: `egret flows`"),
    };
    let shown: Vec<String> = who.into_iter().take(MOST_SHOWN).collect();
    Check::new("around", State::Note, format!("{}{more}", shown.join("; ")))
}

fn went_around(row: &Row) -> String {
    let exe = row.exe.as_deref().map_or_else(|| "a program that is not visible".to_owned(), |exe| exe.escape_debug().to_string());
    let address = row.address.map_or_else(|| "an unknown address".to_owned(), |address| address.to_string());
    let port = row.port.map(|port| format!(" port {port}")).unwrap_or_default();
    let advice = row.exe.as_deref().and_then(|exe| advice::of(exe, &row.protocol)).map(|advice| format!(" ({advice})"));
    format!("{exe} goes to {address}{port}{}", advice.unwrap_or_default())
}

fn number(file: &str) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// Limits of inotify(7), which are of the user and not of the container.
fn inotify() -> Check {
    let limit = |name: &str| number(&format!("/proc/sys/fs/inotify/{name}"));
    let [watches, instances, queue] = ["max_user_watches", "max_user_instances", "max_queued_events"].map(limit);
    if let Err(error) = inotify::Inotify::init() {
        let what = format!("no instance can be had ({error}); `files:` compares instead of watching");
        return Check::new("inotify", State::Bad, what);
    }
    let said = |value: Option<u64>| value.map_or_else(|| "unknown".to_owned(), |value| value.to_string());
    let limits = format!("{} watches, {} instances, {} queued events", said(watches), said(instances), said(queue));
    match watches {
        Some(watches) if watches < 8192 => Check::new(
            "inotify",
            State::Note,
            format!("{limits}; beyond half of these watches folders are compared, not watched"),
        ),
        _ => Check::new("inotify", State::Good, limits),
    }
}

/// Whose processes are seen, and of how many it can be told what they execute: roles by executable and suspects need that.
fn processes() -> Check {
    let own = std::process::id();
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let others: Vec<u32> = pids.filter(|pid| *pid != own).take(100_000).collect();
    let first = fs::read_to_string("/proc/1/comm").unwrap_or_default();
    let known = others.iter().filter(|pid| fs::read_link(format!("/proc/{pid}/exe")).is_ok()).count();
    let first = first.trim();
    if own == 1 || others.is_empty() {
        let what = "a namespace of egret's own: processes of other containers are not seen; share it (`pidMode: task`, \
                    `shareProcessNamespace`) for roles by executable, or start the app by egret";
        return Check::new("processes", State::Note, what);
    }
    let what = format!("process 1 is {first:?}; {} others are seen, of {known} it can be told what they execute", others.len());
    let state = if known == others.len() { State::Good } else { State::Note };
    Check::new("processes", state, what)
}

/// The system's first server, asked for the servers of the root.
fn dns() -> Check {
    let text = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let server = text.lines().filter_map(|line| line.strip_prefix("nameserver")).find_map(|rest| rest.trim().parse().ok());
    let Some(server) = server else {
        return Check::new("dns", State::Bad, "/etc/resolv.conf names no server; set `dns: upstream` in the policy");
    };
    let start = Instant::now();
    match ask(server) {
        Ok(()) => Check::new("dns", State::Good, format!("{server} answers in {} ms", start.elapsed().as_millis())),
        Err(error) => Check::new("dns", State::Bad, format!("{server} does not answer: {error}")),
    }
}

fn ask(server: IpAddr) -> std::io::Result<()> {
    let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { std::net::Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.connect((server, 53))?;
    socket.send(&QUESTION)?;
    let mut answer = [0; 512];
    socket.recv(&mut answer).map(drop)
}

fn clock() -> Check {
    let now = Timestamp::now();
    let time = now.strftime("%Y-%m-%dT%H:%M:%SZ");
    if now.as_second() < LATE {
        let what = format!("it is {time}, which no server's certificate allows: TLS will fail, and rules expire late");
        return Check::new("clock", State::Bad, what);
    }
    Check::new("clock", State::Good, time.to_string())
}

/// Which of the platforms' addresses can be reached from here without egret.
fn metadata() -> Check {
    let addresses = [("169.254.170.2", "ECS"), ("169.254.170.23", "EKS"), ("169.254.169.254", "the machine")];
    let reach = |ip: &str| {
        let ip: Option<IpAddr> = ip.parse().ok();
        ip.is_some_and(|ip| TcpStream::connect_timeout(&SocketAddr::new(ip, 80), PATIENCE / 4).is_ok())
    };
    let reached: Vec<String> =
        addresses.iter().filter(|(ip, _)| reach(ip)).map(|(ip, whose)| format!("{ip} ({whose})")).collect();
    let platform = ["ECS_CONTAINER_METADATA_URI_V4", "KUBERNETES_SERVICE_HOST", "K_SERVICE"];
    let platform: Vec<&str> = platform.into_iter().filter(|name| std::env::var_os(name).is_some()).collect();
    let named = if platform.is_empty() { "no platform's variables".to_owned() } else { platform.join(", ") };
    if reached.iter().any(|one| one.starts_with("169.254.169.254")) {
        let what = format!(
            "{named}; {} can be reached without the proxy: credentials of the machine may be had there",
            reached.join(", ")
        );
        return Check::new("metadata", State::Note, what);
    }
    let reached = if reached.is_empty() { "none answers".to_owned() } else { format!("{} answers", reached.join(", ")) };
    Check::new("metadata", State::Good, format!("{named}; of the metadata addresses {reached}"))
}

/// By the permissions that the kernel applies, read-only mounts included; nothing is written.
fn writable() -> Check {
    let may_write = |path: &&str| access(Path::new(path), Access::WRITE_OK).is_ok();
    let (yes, no): (Vec<&str>, Vec<&str>) =
        FOLDERS.into_iter().filter(|path| Path::new(path).is_dir()).partition(|path| may_write(path));
    let what = format!("writable: {}; not: {}", listed(&yes), listed(&no));
    let state = if yes.contains(&"/") { State::Note } else { State::Good };
    Check::new("folders", state, what)
}

fn listed(paths: &[&str]) -> String {
    if paths.is_empty() { "none".to_owned() } else { paths.join(" ") }
}

/// What an app that was started like this would read.
fn proxy_variables() -> Check {
    let value = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let names = ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy"];
    let missing: Vec<&str> = names.into_iter().filter(|name| value(name).is_none()).collect();
    if missing.len() == names.len() {
        return Check::new("variables", State::Note, "no proxy variables are set here; `egret env` prints them");
    }
    let mut faults: Vec<String> = Vec::new();
    if !missing.is_empty() {
        faults.push(format!("{} not set: some clients read only these", missing.join(", ")));
    }
    for pair in names.chunks(2) {
        let [upper, lower] = [value(pair[0]), value(pair[1])];
        if upper.is_some() && lower.is_some() && upper != lower {
            faults.push(format!("{} and {} differ", pair[0], pair[1]));
        }
    }
    let socks = names.iter().filter(|name| value(name).is_some_and(|value| value.starts_with("socks")));
    faults.extend(socks.map(|name| format!("{name} has a SOCKS URL, of which several clients die")));
    let direct = value("NO_PROXY").or_else(|| value("no_proxy")).unwrap_or_default();
    let unread =
        direct.split(',').filter_map(|item| variables::unportable(item).map(|why| format!("NO_PROXY has {item:?}: {why}")));
    faults.extend(unread);
    if faults.is_empty() {
        return Check::new("variables", State::Good, "the proxy variables are set in both cases");
    }
    Check::new("variables", State::Bad, faults.join("; "))
}
