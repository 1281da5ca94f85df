//! `egret env`: the proxy variables for an app. Both cases, because clients read one or the other; an http:// URL even
//! for https, because that is how one speaks to the proxy; a NO_PROXY of plain names and addresses, because half of
//! all clients read nothing else.

use std::net::SocketAddr;

use serde_json::json;

use crate::cli::{EnvArgs, EnvOutput, Outcome};

/// Loopback, and the platform's credential addresses, which are fetched without a proxy.
const NO_PROXY: &str = "localhost,127.0.0.1,::1,169.254.170.2,169.254.170.23";

/// Prints the variables.
pub(crate) fn env(args: &EnvArgs) -> Outcome {
    let variables = variables(args.listen);
    match args.output {
        EnvOutput::Shell => variables.iter().for_each(|(name, value)| println!("export {name}='{value}'")),
        EnvOutput::Dotenv => variables.iter().for_each(|(name, value)| println!("{name}={value}")),
        EnvOutput::Json => {
            println!("{}", variables.iter().map(|(name, value)| (name.clone(), json!(value))).collect::<serde_json::Value>())
        }
        EnvOutput::Ecs => println!(
            "{}",
            variables.iter().map(|(name, value)| json!({ "name": name, "value": value })).collect::<serde_json::Value>()
        ),
    }
    Ok(())
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
