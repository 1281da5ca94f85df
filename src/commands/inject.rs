//! `egret inject`: a task definition from stdin to stdout, with egret in it, or without.

use std::io::Read as _;

use anyhow::{Context as _, anyhow};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{env, print};
use crate::cli::{Failure, InjectArgs, Outcome};
use crate::config;
use crate::config::source::{Source, from_names};
use crate::inject::{self, Delivery, InjectError, Options};
use crate::learn::unified;
use crate::stderr;
use crate::variables::Runtime;

/// The longest text in octets.
const MAX_TEXT: u64 = 8 * 1024 * 1024;
/// Beyond this a policy is packed: parameters of the platforms end at 4 KiB, and so do some forms in their consoles.
const MAX_PLAIN: usize = 4096;

/// Reads, changes, prints; nothing is printed where anything is wrong.
pub(crate) fn inject(args: &InjectArgs) -> Outcome {
    let text = stdin()?;
    let changed = if args.remove { inject::remove(&text, args.format).map_err(refused)? } else { added(&text, args)? };
    if args.diff { print(&unified("task definition", &text, &changed)) } else { print(&changed) }
}

fn refused(error: InjectError) -> Failure {
    Failure::Usage(error.into())
}

fn added(text: &str, args: &InjectArgs) -> Result<String, Failure> {
    let options = options(args)?;
    let injected = inject::add(text, args.format, &options).map_err(refused)?;
    injected.warnings.iter().for_each(|warning| stderr::say(format_args!("warning: {warning}")));
    Ok(injected.text)
}

fn stdin() -> Result<String, Failure> {
    let mut bytes = Vec::new();
    std::io::stdin()
        .lock()
        .take(MAX_TEXT + 1)
        .read_to_end(&mut bytes)
        .context("cannot read stdin")
        .map_err(Failure::Environment)?;
    if bytes.len() as u64 > MAX_TEXT {
        return Err(Failure::Usage(anyhow!("stdin is longer than 8 MiB, and no task definition")));
    }
    String::from_utf8(bytes).map_err(|_| Failure::Usage(anyhow!("stdin is no UTF-8; give the task definition as text")))
}

fn options(args: &InjectArgs) -> Result<Options, Failure> {
    let usage = |message: &str| Failure::Usage(anyhow!("{message}"));
    // A variable that is exported and empty says nothing.
    let image = args.image.clone().filter(|image| !image.trim().is_empty());
    let image = image.ok_or_else(|| usage("--image is missing: the image of egret, best by its digest (NAME@sha256:…)"))?;
    let policy = delivery(args)?;
    if policy == Delivery::None && args.mode().is_none() && !args.policy_in_image {
        return Err(usage(
            "no policy is given: --policy FILE, --policy-secret, --policy-volume, --allow NAMES, or --policy-in-image;\n\
             to observe first, give --mode audit alone",
        ));
    }
    let mut direct =
        args.policy.as_deref().map(env::direct_of).transpose()?.map(|nets| env::addresses(&nets)).unwrap_or_default();
    direct.extend(env::names(&args.direct)?);
    let entrypoints = args.entrypoint.iter().map(|given| entrypoint(given)).collect::<Result<_, _>>()?;
    Ok(Options {
        image,
        name: args.name.clone(),
        containers: args.container.clone(),
        listen: args.listen,
        admin: args.admin,
        runtimes: if args.runtime.is_empty() { vec![Runtime::Node] } else { args.runtime.clone() },
        direct,
        policy,
        mode: args.mode(),
        replace: args.replace,
        wrap: args.wrap,
        entrypoints,
    })
}

fn delivery(args: &InjectArgs) -> Result<Delivery, Failure> {
    if let Some(path) = &args.policy {
        let text = Source::File(path.clone()).read().map_err(Failure::Usage)?;
        // A policy that egret would not start with has no place in a task.
        config::load(&text, None).map_err(Failure::invalid)?;
        return Ok(Delivery::Text(if text.yaml.len() > MAX_PLAIN { packed(&text.yaml)? } else { text.yaml }));
    }
    if let Some(names) = &args.allow {
        let text = Source::Text("--allow", from_names(names)).read().map_err(Failure::Usage)?;
        config::load(&text, None).map_err(Failure::invalid)?;
    }
    let given = args.policy_secret.clone().map(Delivery::Secret).or_else(|| args.policy_volume.clone().map(Delivery::Volume));
    Ok(given.or_else(|| args.allow.clone().map(Delivery::Allow)).unwrap_or(Delivery::None))
}

/// `gz:` and base64, which `run` unpacks.
fn packed(yaml: &str) -> Result<String, Failure> {
    use std::io::Write as _;
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    let bytes = gzip.write_all(yaml.as_bytes()).and_then(|()| gzip.finish()).context("the policy cannot be packed");
    Ok(format!("gz:{}", STANDARD.encode(bytes.map_err(Failure::Environment)?)))
}

/// `NAME=["/app", "--flag"]`
fn entrypoint(given: &str) -> Result<(String, Vec<String>), Failure> {
    let (name, words) = given.split_once('=').unwrap_or((given, ""));
    match serde_json::from_str::<Vec<String>>(words) {
        Ok(words) if !words.is_empty() && !name.is_empty() => Ok((name.to_owned(), words)),
        _ => {
            Err(Failure::Usage(anyhow!("--entrypoint {given:?} is not NAME=[\"/app\", \"--flag\"]: a container and a JSON list")))
        }
    }
}
