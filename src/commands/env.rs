//! `egret env`: the proxy variables for an app. Both cases, because clients read one or the other; an http:// URL even
//! for https, because that is how one speaks to the proxy; a NO_PROXY of plain names and addresses, because half of
//! all clients read nothing else.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde_json::json;

use super::{print, print_json};
use crate::cli::{EnvArgs, EnvOutput, Outcome};
use crate::run;

/// Loopback, and the platform's credential addresses, which are fetched without a proxy.
const NO_PROXY: &str = "localhost,127.0.0.1,::1,169.254.170.2,169.254.170.23";

/// Prints the variables.
pub(crate) fn env(args: &EnvArgs) -> Outcome {
    let listen = args.listen.first().copied().unwrap_or_else(|| run::fixed(run::DEFAULT_LISTEN));
    let variables = variables(as_seen_by_the_app(listen));
    let lines = |form: fn(&str, &str) -> String| variables.iter().map(|(name, value)| form(name, value)).collect::<String>();
    match args.output {
        EnvOutput::Shell => print(&lines(|name, value| format!("export {name}='{value}'\n"))),
        EnvOutput::Dotenv => print(&lines(|name, value| format!("{name}={value}\n"))),
        EnvOutput::Json => print_json(&variables.iter().map(|(name, value)| (name.clone(), json!(value))).collect()),
        EnvOutput::Ecs => print_json(&variables.iter().map(|(name, value)| json!({ "name": name, "value": value })).collect()),
    }
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

fn variables(listen: SocketAddr) -> Vec<(String, String)> {
    let url = format!("http://{listen}");
    let pairs = [("HTTP_PROXY", url.as_str()), ("HTTPS_PROXY", url.as_str()), ("NO_PROXY", NO_PROXY)];
    let both = pairs
        .into_iter()
        .flat_map(|(name, value)| [(name.to_owned(), value.to_owned()), (name.to_lowercase(), value.to_owned())]);
    // Node listens to the others only with this switch (from version 24).
    both.chain([("NODE_USE_ENV_PROXY".to_owned(), "1".to_owned())]).collect()
}
