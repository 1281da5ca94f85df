//! `egret env`: the proxy variables for an app. Both cases, because clients read one or the other; an http:// URL even
//! for https, because that is how one speaks to the proxy; a NO_PROXY of plain names and addresses, because half of
//! all clients read nothing else.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use ipnet::IpNet;
use serde_json::json;

use super::{print, print_json};
use crate::cli::{EnvArgs, EnvOutput, Failure, Outcome};
use crate::config;
use crate::config::source::Source;
use crate::settings;

/// Loopback, and the platform's credential addresses, which are fetched without a proxy.
const NO_PROXY: &str = "localhost,127.0.0.1,::1,169.254.170.2,169.254.170.23";

/// Prints the variables.
pub(crate) fn env(args: &EnvArgs) -> Outcome {
    let direct = args.policy.as_deref().map(direct_of).transpose()?.unwrap_or_default();
    let variables = for_app(&args.listen, &direct);
    let lines = |form: fn(&str, &str) -> String| variables.iter().map(|(name, value)| form(name, value)).collect::<String>();
    match args.output {
        EnvOutput::Shell => print(&lines(|name, value| format!("export {name}='{value}'\n"))),
        EnvOutput::Dotenv => print(&lines(|name, value| format!("{name}={value}\n"))),
        EnvOutput::Json => print_json(&variables.iter().map(|(name, value)| (name.clone(), json!(value))).collect()),
        EnvOutput::Ecs => print_json(&variables.iter().map(|(name, value)| json!({ "name": name, "value": value })).collect()),
    }
}

/// What sends an app through the proxy on the first of these listeners, but for the addresses that are reached without it.
pub(crate) fn for_app(listen: &[SocketAddr], direct: &[IpNet]) -> Vec<(String, String)> {
    let listen = listen.first().copied().unwrap_or_else(|| settings::fixed(settings::DEFAULT_LISTEN));
    variables(as_seen_by_the_app(listen), &no_proxy(direct))
}

/// A listener on every address is reached on loopback.
fn as_seen_by_the_app(mut listen: SocketAddr) -> SocketAddr {
    match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => listen.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => listen.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    listen
}

/// What a policy says is reached without the proxy.
fn direct_of(policy: &Path) -> Result<Vec<IpNet>, Failure> {
    let text = Source::File(policy.to_owned()).read().map_err(Failure::Usage)?;
    let config = config::load(&text, None).map_err(Failure::invalid)?;
    Ok(config.direct)
}

/// The usual exceptions and the policy's own. Networks are left out, as half of all clients read none.
fn no_proxy(direct: &[IpNet]) -> String {
    let mut all: Vec<String> = NO_PROXY.split(',').map(str::to_owned).collect();
    for net in direct {
        let address = net.addr().to_string();
        if net.prefix_len() < net.max_prefix_len() {
            eprintln!(
                "egret: the network {net} is left out of NO_PROXY, where many clients read no networks; name its addresses"
            );
        } else if !all.contains(&address) {
            all.push(address);
        }
    }
    all.join(",")
}

fn variables(listen: SocketAddr, no_proxy: &str) -> Vec<(String, String)> {
    let url = format!("http://{listen}");
    let pairs = [("HTTP_PROXY", url.as_str()), ("HTTPS_PROXY", url.as_str()), ("NO_PROXY", no_proxy)];
    let both = pairs
        .into_iter()
        .flat_map(|(name, value)| [(name.to_owned(), value.to_owned()), (name.to_lowercase(), value.to_owned())]);
    // Node listens to the others only with this switch (from version 24).
    both.chain([("NODE_USE_ENV_PROXY".to_owned(), "1".to_owned())]).collect()
}
