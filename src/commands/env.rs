//! `egret env`: the proxy variables for an app, in the form that takes them. What no variable can reach is said in comments, or
//! on stderr where the form has none.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use anyhow::anyhow;
use egret_policy::Name;
use ipnet::IpNet;
use serde_json::json;

use super::{print, print_json};
use crate::cli::{EnvArgs, EnvOutput, Failure, Outcome};
use crate::config::source::Source;
use crate::variables::{self, Runtime};
use crate::{config, settings, stderr};

/// Prints the variables.
pub(crate) fn env(args: &EnvArgs) -> Outcome {
    let direct = args.policy.as_deref().map(direct_of).transpose()?.unwrap_or_default();
    let mut addresses = addresses(&direct);
    addresses.extend(names(&args.direct)?);
    let runtimes = if args.runtime.is_empty() { &[Runtime::Node][..] } else { &args.runtime };
    let proxy = endpoint(&args.listen).to_string();
    let variables = variables::variables(&proxy, &variables::no_proxy(&addresses), runtimes);
    let notes: Vec<&str> = args.runtime.iter().map(|runtime| runtime.note()).collect();
    let lines = |form: fn(&str, &str) -> String| {
        let notes = notes.iter().map(|note| format!("# {note}\n"));
        notes.chain(variables.iter().map(|(name, value)| form(name, value))).collect::<String>()
    };
    if matches!(args.output, EnvOutput::Json | EnvOutput::Ecs) {
        notes.iter().for_each(stderr::say);
    }
    match args.output {
        EnvOutput::Shell => print(&lines(|name, value| format!("export {name}='{}'\n", value.replace('\'', "'\\''")))),
        EnvOutput::Dotenv => print(&lines(|name, value| format!("{name}={value}\n"))),
        EnvOutput::Json => print_json(&variables.iter().map(|(name, value)| (name.clone(), json!(value))).collect()),
        EnvOutput::Ecs => print_json(&variables.iter().map(|(name, value)| json!({ "name": name, "value": value })).collect()),
    }
}

/// What sends an app through the proxy on the first of these listeners, but for the addresses that are reached without it.
pub(crate) fn for_app(listen: &[SocketAddr], direct: &[IpNet]) -> Vec<(String, String)> {
    let proxy = endpoint(listen).to_string();
    variables::variables(&proxy, &variables::no_proxy(&addresses(direct)), &[Runtime::Node])
}

/// The first listener, as the app sees it.
pub(crate) fn endpoint(listen: &[SocketAddr]) -> SocketAddr {
    variables::as_seen_by_the_app(listen.first().copied().unwrap_or_else(|| settings::fixed(settings::DEFAULT_LISTEN)))
}

/// Names and addresses for NO_PROXY that a user gave: a domain twice, as clients differ in what one of the two forms means.
pub(crate) fn names(given: &[String]) -> Result<Vec<String>, Failure> {
    let mut all = Vec::new();
    for name in given {
        if let Some(why) = variables::unportable(name).or(name.contains(',').then_some("give each name for itself")) {
            return Err(Failure::Usage(anyhow!("--direct {name:?} would not mean the same to every client: {why}")));
        }
        let host = name.strip_prefix('.').unwrap_or(name);
        if host.parse::<IpAddr>().is_err()
            && let Err(error) = Name::parse(host)
        {
            return Err(Failure::Usage(anyhow!("--direct {name:?} is no name or address: {error}")));
        }
        all.extend(name.strip_prefix('.').map(str::to_owned));
        all.push(name.clone());
    }
    Ok(all)
}

/// What a policy says is reached without the proxy.
pub(crate) fn direct_of(policy: &Path) -> Result<Vec<IpNet>, Failure> {
    let text = Source::File(policy.to_owned()).read().map_err(Failure::Usage)?;
    let config = config::load(&text, None).map_err(Failure::invalid)?;
    Ok(config.direct)
}

/// A policy's own exceptions. Networks are left out, as half of all clients read none.
pub(crate) fn addresses(direct: &[IpNet]) -> Vec<String> {
    let mut all = Vec::new();
    for net in direct {
        if net.prefix_len() < net.max_prefix_len() {
            stderr::say(format_args!(
                "the network {net} is left out of NO_PROXY, where many clients read no networks; name its addresses"
            ));
        } else {
            all.push(net.addr().to_string());
        }
    }
    all
}
