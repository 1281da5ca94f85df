//! The words for what may be told of a file, in the journal and by the commands alike.

use egret_inotify_fim::escape::{escape, hex};
use egret_inotify_fim::fingerprint::{Fingerprint, HashState, Stamp};
use egret_inotify_fim::view::{Attribute, Change};

/// How something differs.
pub(crate) fn change(change: &Change) -> &'static str {
    match change {
        Change::Created => "created",
        Change::Deleted => "deleted",
        Change::Modified => "modified",
        Change::Appended => "appended",
        Change::Attributes => "attributes",
        Change::Type => "type",
        Change::Effective => "effective",
        Change::Moved { .. } => "moved",
    }
}

/// What differs.
pub(crate) fn attribute(attribute: Attribute) -> &'static str {
    match attribute {
        Attribute::Kind => "type",
        Attribute::Mode => "mode",
        Attribute::Uid => "uid",
        Attribute::Gid => "gid",
        Attribute::Size => "size",
        Attribute::Mtime => "mtime",
        Attribute::Flags => "flags",
        Attribute::Target => "target",
        Attribute::Xattrs => "xattrs",
        Attribute::Hash => "hash",
        Attribute::HashState => "hash_state",
        Attribute::Links => "links",
        Attribute::LeadsTo => "leads_to",
    }
}

/// Whether there is a hash, and why not.
pub(crate) fn state(state: HashState) -> &'static str {
    match state {
        HashState::Done(_) => "done",
        HashState::TooLarge => "too_large",
        HashState::Unstable => "unstable",
        HashState::Unreadable(_) => "unreadable",
        HashState::NotRead => "not_read",
        HashState::NotRegular => "not_regular",
    }
}

/// The state of the content; of a link, of what it leads to.
pub(crate) fn content(print: &Fingerprint) -> HashState {
    print.leads_to.as_ref().map_or(print.hash, |end| end.hash)
}

/// The hash of the content, or the last that was known; of a link, of what it leads to.
pub(crate) fn hash(print: &Fingerprint) -> Option<String> {
    let known = content(print).done().or(print.last.as_deref().copied());
    known.map(|hash| hex(&hash))
}

/// The value of an attribute; `None` if there is none, or it is told otherwise: type and hashes.
pub(crate) fn value(attribute: Attribute, print: &Fingerprint) -> Option<String> {
    let value = match attribute {
        Attribute::Mode => format!("{:04o}", print.mode),
        Attribute::Uid => print.uid.to_string(),
        Attribute::Gid => print.gid.to_string(),
        Attribute::Size => print.size.to_string(),
        Attribute::Mtime => return time(print.mtime),
        Attribute::Flags => flags(print),
        Attribute::Target => escape(print.target.as_deref()?),
        Attribute::Xattrs => xattrs(print),
        Attribute::HashState => state(content(print)).to_owned(),
        Attribute::Links => print.inode?.links.to_string(),
        Attribute::Hash | Attribute::LeadsTo | Attribute::Kind => return None,
    };
    Some(value)
}

/// No time where none counts, as of directories.
fn time(stamp: Stamp) -> Option<String> {
    let nanos = i32::try_from(stamp.nanos).ok().filter(|_| stamp != Stamp::default())?;
    Some(jiff::Timestamp::new(stamp.seconds, nanos).map_or_else(|_| stamp.to_string(), |time| time.to_string()))
}

fn flags(print: &Fingerprint) -> String {
    let set = [("immutable", print.flags.immutable), ("append", print.flags.append)];
    set.iter().filter_map(|(word, set)| set.then_some(*word)).collect::<Vec<_>>().join(",")
}

/// Each attribute with its value in hexadecimal.
fn xattrs(print: &Fingerprint) -> String {
    print.xattrs.iter().map(|(which, value)| format!("{}={}", which.name(), hex(value))).collect::<Vec<_>>().join(" ")
}
