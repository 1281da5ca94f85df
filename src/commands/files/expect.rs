//! `egret files expect`: the step from one manifest to another, as something to approve of.

use anyhow::{Context, anyhow};
use egret_inotify_fim::escape::escape;
use egret_inotify_fim::expected::Expected;
use egret_proxy::now;

use super::load;
use super::output::Output;
use crate::cli::files::ExpectArgs;
use crate::cli::{Failure, Outcome};
use crate::config;
use crate::replay::counted;
use crate::stderr;

/// Exit 0 with a set of changes; 1 without one if the manifests are equal, or do not say what content shall be there.
pub(super) fn expect(args: &ExpectArgs) -> Outcome {
    let until = instant("--until", &args.until)?;
    let from = args.from.as_deref().map(|from| instant("--from", from)).transpose()?;
    if until <= now().0 || from.is_some_and(|from| from >= until) {
        return Err(Failure::Usage(anyhow!("no change could be approved: --until must be later than now, and than --from")));
    }
    let output = Output::new(&args.to)?;
    let (old, new) = (load(&args.old, None, None)?, load(&args.new, None, None)?);
    let expected = Expected::between(&old.view, &new.view, from, until);
    if expected.entries.is_empty() {
        stderr::say(format_args!("nothing to expect: the manifests are equal"));
        return Err(Failure::Negative);
    }
    let unknown: Vec<String> = expected.without_content().map(|path| escape(path)).collect();
    if !unknown.is_empty() {
        stderr::say(format_args!("{} has no hash of what shall be there, so nobody can approve of it:", args.new.display()));
        unknown.iter().for_each(stderr::say);
        return Err(Failure::Negative);
    }
    output.write(&expected.write(), &counted(expected.entries.len() as u64, "expected change"))
}

fn instant(which: &str, text: &str) -> Result<i64, Failure> {
    let help = || format!("{which}: {text:?} is no date: write 2027-03-31 or 2027-03-31T12:00:00Z");
    config::instant(text).with_context(help).map(|time| time.0).map_err(Failure::Usage)
}
