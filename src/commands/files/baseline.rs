//! `egret files baseline`: what is there, as a manifest.

use std::collections::BTreeMap;
use std::num::NonZero;
use std::thread;

use anyhow::anyhow;
use egret_inotify_fim::escape::escape;
use egret_inotify_fim::fingerprint::HashState;
use egret_inotify_fim::manifest;
use egret_inotify_fim::roots::Roots;
use egret_inotify_fim::scan::{Options, Read, Scan, Uncovered, scan};
use egret_inotify_fim::view::View;

use super::output::Output;
use super::{counts, told, trees};
use crate::cli::files::BaselineArgs;
use crate::cli::{Failure, Outcome};
use crate::files::trusted;
use crate::stderr;

/// How many paths are named before the rest is counted.
const NAMED: usize = 100;

/// Exit 0 with a manifest that lacks nothing; 1 without one if something could not be read.
pub(super) fn baseline(args: &BaselineArgs) -> Outcome {
    let output = Output::new(&args.to)?;
    // At the build of an image size is no danger.
    let roots = trees::named(&args.roots, &args.ignore, u64::MAX).map_err(Failure::Usage)?;
    let mut found = scan(&roots, &View::default(), &options());
    leave_out(&mut found.view, output.own());
    tell_left_out(&found);
    let (missing, holes) = holes(&roots, &found);
    tell(&missing);
    tell(&holes);
    if !missing.is_empty() || !(holes.is_empty() || args.allow_unreadable) {
        stderr::say(format_args!(
            "no manifest is written, as it would say nothing of these: make them readable, leave them out with \
             --ignore, or write it without them with --allow-unreadable"
        ));
        return Err(Failure::Negative);
    }
    let view = if args.local { found.view } else { found.view.portable() };
    let text = manifest::write(&view);
    if text.len() as u64 > trusted::LONGEST {
        let most = trusted::LONGEST;
        return Err(Failure::Usage(anyhow!("the manifest would be longer than {most} octets: name fewer files")));
    }
    output.write(&text, &counts(&view))
}

fn options() -> Options {
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    Options { threads, most: usize::MAX, share: 100, read: Read::All }
}

/// What this command writes itself is no part of what it looks at.
fn leave_out(view: &mut View, own: Vec<Vec<u8>>) {
    for path in own {
        if view.entries.remove(path.as_slice()).is_some() {
            stderr::say(format_args!("{} is left out: this command writes it", escape(&path)));
        }
    }
}

fn tell_left_out(found: &Scan) {
    for (path, _) in found.uncovered.iter().filter(|(_, why)| **why == Uncovered::Kernel) {
        stderr::say(format_args!("{} is left out: it holds the kernel's state, not files", escape(path)));
    }
    if found.excluded > 0 {
        stderr::say(format_args!("{} left out by --ignore", crate::replay::counted(found.excluded, "file")));
    }
}

/// Roots that are not there, and what could not be read.
fn holes(roots: &Roots, found: &Scan) -> (BTreeMap<Vec<u8>, String>, BTreeMap<Vec<u8>, String>) {
    let asked = |why: &Uncovered| matches!(why, Uncovered::Excluded | Uncovered::Kernel);
    let uncovered = found.uncovered.iter().filter(|(_, why)| !asked(why));
    let uncovered = uncovered.map(|(path, why)| (path.clone(), told::uncovered(*why)));
    let unread = found.view.entries.iter().filter(|(_, print)| {
        matches!(print.hash, HashState::Unreadable(_) | HashState::Unstable | HashState::TooLarge | HashState::NotRead)
    });
    let all = uncovered.chain(unread.map(|(path, print)| (path.to_vec(), told::state(print.hash))));
    all.partition(|(path, _)| roots.begins_at(path) && !found.view.entries.contains_key(path.as_slice()))
}

fn tell(holes: &BTreeMap<Vec<u8>, String>) {
    for (path, why) in holes.iter().take(NAMED) {
        stderr::say(format_args!("{}: {why}", escape(path)));
    }
    if holes.len() > NAMED {
        stderr::say(format_args!("and {} more", holes.len() - NAMED));
    }
}
