//! `egret files verify` and `diff`: what differs from a manifest.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::anyhow;
use egret_inotify_fim::escape::escape;
use egret_inotify_fim::fingerprint::Fingerprint;
use egret_inotify_fim::roots::{How, Roots};
use egret_inotify_fim::scan::{Options, Read, Scan, Uncovered, scan};
use egret_inotify_fim::view::{Change, Difference, View, compare};
use egret_proxy::now;

use super::output::own;
use super::told::Told;
use super::{load, trees};
use crate::cli::files::{DiffArgs, VerifyArgs};
use crate::cli::{Failure, Outcome};
use crate::config;
use crate::config::source::{self, Source};
use crate::files::trusted::Trusted;
use crate::stderr;

/// ENOENT: of a root that it is gone, which is a difference and no gap.
const GONE: Uncovered = Uncovered::Unreadable(2);

/// Exit 0 if everything is as the manifest says or was approved; 1 if not, or if some of it could not be looked at.
pub(super) fn verify(args: &VerifyArgs) -> Outcome {
    let with = match &args.manifest {
        Some(manifest) => With { manifest: manifest.clone(), key: args.key.clone(), expected: args.expected.clone() },
        None => With::of_policy(args)?,
    };
    let trusted = load(&with.manifest, with.key.as_deref(), with.expected.as_deref())?;
    let largest = largest(&trusted.view);
    let roots = trees::of_manifest(&trusted.view, &args.ignore, largest).map_err(Failure::Usage)?;
    let read = reading(args.stat_only, &trusted.view);
    let most = Options::default().most.max(trusted.view.entries.len().saturating_mul(2));
    let mut found = scan(&roots, &trusted.view, &Options { read, most, ..Options::default() });
    found.carry(&trusted.view);
    let differences = differences(&with, &trusted, &roots, &found.view);
    let uncovered = gaps(&trusted.view, found);
    let told = Told { manifest: &with.manifest, trusted: &trusted, differences, uncovered, read };
    told.print(args.output)
}

/// What files are compared with, and who must have signed it.
struct With {
    manifest: PathBuf,
    key: Option<String>,
    expected: Option<PathBuf>,
}

impl With {
    /// What a running egret would compare them with. A key that is given goes before the policy's.
    fn of_policy(args: &VerifyArgs) -> Result<Self, Failure> {
        let advice = "name a MANIFEST, or a policy that names its baseline by --policy FILE";
        let source = Source::find(args.policy.as_deref(), source::variable, false, advice).map_err(Failure::Usage)?;
        let text = source.read().map_err(Failure::Usage)?;
        let files = config::load(&text, None).map_err(Failure::invalid)?.files;
        let baseline = files.as_ref().and_then(|files| files.baseline.clone());
        let (Some(files), Some(manifest)) = (files, baseline) else {
            let why = anyhow!("{} names no baseline: name a MANIFEST, or write `files.baseline:`", text.origin);
            return Err(Failure::Usage(why));
        };
        // Approved changes that are not there yet approve of nothing.
        let expected = files.expected.map(PathBuf::from).filter(|expected| expected.exists());
        Ok(Self { manifest: manifest.into(), key: args.key.clone().or(files.key), expected })
    }
}

/// With inode numbers and the kernel's own times at hand, whatever they do not prove is read still.
fn reading(stat_only: bool, known: &View) -> Read {
    let is_local = || known.entries.values().any(|print| print.inode.is_some());
    match stat_only {
        false => Read::All,
        true if is_local() => Read::Changed,
        true => Read::Nothing,
    }
}

/// Files up to this size are read: what is larger than all in the manifest is another file by its size.
fn largest(view: &View) -> u64 {
    let sizes = view.entries.values().map(|print: &std::sync::Arc<Fingerprint>| print.size);
    sizes.max().unwrap_or_default().max(How::default().largest)
}

/// All that differs, and whether it was approved. The manifest itself and what belongs to it may lie among the files.
fn differences(with: &With, trusted: &Trusted, roots: &Roots, there: &View) -> Vec<(Difference, bool)> {
    let own: Vec<Vec<u8>> =
        [Some(&with.manifest), with.expected.as_ref()].into_iter().flatten().flat_map(|file| own(file)).collect();
    let is_own = |found: &Difference| found.change == Change::Created && own.iter().any(|path| **path == *found.path);
    let (own, found): (Vec<_>, Vec<_>) = roots.differences(&trusted.view, there).into_iter().partition(is_own);
    for difference in own {
        stderr::say(format_args!("{} is left out: it is what the files are compared with", escape(&difference.path)));
    }
    let now = now().0;
    if let Some(expected) = trusted.expected.as_ref().filter(|expected| !expected.is_in_force(now)) {
        let when = if now < expected.until { "yet" } else { "any more" };
        stderr::say(format_args!("what was expected to change is not approved {when}"));
    }
    let expected = trusted.expected.as_ref();
    let allowed = |found: &Difference| expected.is_some_and(|expected| expected.allows(found, now));
    found.into_iter().map(|found| (allowed(&found), found)).map(|(allowed, found)| (found, allowed)).collect()
}

/// What could not be looked at. What was asked to be left out is no gap, nor is the kernel's own state where the manifest
/// has nothing.
fn gaps(known: &View, found: Scan) -> BTreeMap<Vec<u8>, Uncovered> {
    let is_gap = |path: &[u8], why: Uncovered| match why {
        Uncovered::Excluded => false,
        Uncovered::Kernel => known.tree(path).any(|(below, _)| **below != *path),
        why => why != GONE,
    };
    found.uncovered.into_iter().filter(|(path, why)| is_gap(path, *why)).collect()
}

/// Exit 0 if two manifests say the same, 1 if not.
pub(super) fn diff(args: &DiffArgs) -> Outcome {
    let key = args.key.as_deref();
    let (old, new) = (load(&args.old, key, None)?, load(&args.new, key, None)?);
    let differences = compare(&old.view, &new.view).into_iter().map(|difference| (difference, false)).collect();
    let told = Told { manifest: &args.old, trusted: &old, differences, uncovered: BTreeMap::new(), read: Read::All };
    told.print(args.output)
}
