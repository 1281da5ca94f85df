//! How much a change matters. Pure.

use egret_inotify_fim::fingerprint::{Fingerprint, Flags, HashState, Kind, Xattrs};
use egret_inotify_fim::view::{Attribute, Change, Difference};

use crate::config::files::Severity;

/// Set-user-ID and set-group-ID.
const SET_ID: u16 = 0o6000;
/// Execution by anybody.
const EXECUTE: u16 = 0o111;
/// Writing by everybody.
const WRITE_BY_ALL: u16 = 0o002;

/// Growth of what may grow, or another time and nothing else: nobody need be moved.
pub(crate) fn is_trivial(difference: &Difference) -> bool {
    let grown = [Attribute::Size, Attribute::Mtime, Attribute::Hash];
    match difference.change {
        Change::Appended => difference.attributes().iter().all(|attribute| grown.contains(attribute)),
        Change::Attributes => difference.attributes() == [Attribute::Mtime],
        _ => false,
    }
}

/// The severity of a difference at a path whose changes matter at least `least`.
pub(crate) fn of(difference: &Difference, least: Severity) -> Severity {
    let (old, new) = (difference.old.as_deref(), difference.new.as_deref());
    if is_trivial(difference) {
        return Severity::Low;
    }
    let grave = difference.change == Change::Type
        || new.is_some_and(|new| grants(old, new))
        || loses_sight(old, new)
        || runs_otherwise(difference, old, new);
    if grave { least.max(Severity::High) } else { least }
}

/// Whether somebody may do more than before: set-ID bits, capabilities, access lists, another owner, writing by all, or a
/// flag gone that held it fast.
fn grants(old: Option<&Fingerprint>, new: &Fingerprint) -> bool {
    let bits = |print: &Fingerprint| if print.kind == Kind::File { print.mode & (SET_ID | WRITE_BY_ALL) } else { 0 };
    if bits(new) & !old.map_or(0, bits) != 0 {
        return true;
    }
    let none = Xattrs::default();
    let xattrs = old.map_or(&none, |old| &old.xattrs);
    let gained_xattr = new.xattrs.iter().any(|xattr| !xattrs.contains(xattr));
    let let_go = |old: &Fingerprint| {
        let held = |flags: Flags| (flags.immutable, flags.append);
        (old.uid, old.gid) != (new.uid, new.gid) || held(old.flags) != held(new.flags) && !new.flags.immutable
    };
    gained_xattr || old.is_some_and(let_go)
}

/// Whether content that could be told by its hash cannot be any more.
fn loses_sight(old: Option<&Fingerprint>, new: Option<&Fingerprint>) -> bool {
    let told = |print: &Fingerprint| matches!(print.hash, HashState::Done(_));
    let hidden = |print: &Fingerprint| matches!(print.hash, HashState::Unreadable(_) | HashState::Unstable | HashState::TooLarge);
    old.is_some_and(told) && new.is_some_and(hidden)
}

/// Whether something can be run now that could not be run so before.
fn runs_otherwise(difference: &Difference, old: Option<&Fingerprint>, new: Option<&Fingerprint>) -> bool {
    let runs = |print: Option<&Fingerprint>| print.is_some_and(|print| print.kind == Kind::File && print.mode & EXECUTE != 0);
    match difference.change {
        Change::Created | Change::Modified | Change::Moved { .. } => runs(new),
        _ => runs(new) && !runs(old),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use egret_inotify_fim::fingerprint::Xattr;
    use egret_inotify_fim::manifest;

    use super::*;

    /// A plain file, by a line of a manifest.
    fn file(act: impl FnOnce(&mut Fingerprint)) -> Fingerprint {
        let line = format!("/f file 0644 1:1 1 1.000000000 sha256:{}", "00".repeat(32));
        let view = manifest::read(format!("egret-manifest 1\n{line}\nend 1\n").as_bytes()).unwrap();
        let mut print = view.entries.values().next().unwrap().as_ref().clone();
        act(&mut print);
        print
    }

    fn difference(change: Change, old: Option<Fingerprint>, new: Option<Fingerprint>) -> Difference {
        Difference { path: b"/f"[..].into(), change, old: old.map(Arc::new), new: new.map(Arc::new) }
    }

    fn changed(act: impl FnOnce(&mut Fingerprint)) -> Severity {
        of(&difference(Change::Attributes, Some(file(|_| {})), Some(file(act))), Severity::Medium)
    }

    #[test]
    fn what_grants_or_hides_or_runs_is_grave() {
        assert_eq!(changed(|print| print.mode = 0o4644), Severity::High);
        assert_eq!(changed(|print| print.mode = 0o646), Severity::High);
        assert_eq!(changed(|print| print.mode = 0o755), Severity::High);
        assert_eq!(changed(|print| print.uid = 0), Severity::High);
        assert_eq!(changed(|print| print.hash = HashState::Unreadable(13)), Severity::High);
        assert_eq!(changed(|print| print.hash = HashState::TooLarge), Severity::High);
        for which in Xattr::ALL {
            assert_eq!(changed(|print| print.xattrs = [(which, [1].into())].into()), Severity::High);
        }
        assert_eq!(changed(|print| print.mode = 0o600), Severity::Medium);
        let program = || file(|print| print.mode = 0o755);
        assert_eq!(of(&difference(Change::Created, None, Some(program())), Severity::Low), Severity::High);
        assert_eq!(of(&difference(Change::Created, None, Some(file(|_| {}))), Severity::Low), Severity::Low);
        assert_eq!(of(&difference(Change::Deleted, Some(program()), None), Severity::Medium), Severity::Medium);
    }

    #[test]
    fn growth_is_trivial_only_alone() {
        let grown = |mode| {
            let new = file(|print| (print.size, print.mode, print.hash) = (9, mode, HashState::Done([1; 32])));
            difference(Change::Appended, Some(file(|_| {})), Some(new))
        };
        assert_eq!(of(&grown(0o644), Severity::High), Severity::Low);
        assert!(!is_trivial(&grown(0o4777)));
        assert_eq!(of(&grown(0o4777), Severity::Medium), Severity::High);
    }
}
