//! What is told of a look: what came and went, what differs, since when, and who had it open.

use std::time::SystemTime;

use super::Reconciler;
use crate::beneath;
use crate::fingerprint::Kind;
use crate::view::{Difference, View, is_alike};
use crate::watch::Suspect;
use crate::watch::event::{Event, Source};
use crate::watch::marks::Marks;

impl Reconciler {
    /// What came and went, unless something else is told of its path, or it would have been left out.
    pub(super) fn tell_transient(&mut self, dirty: &Marks, old: &View, new: &View, tell: &mut dyn FnMut(Event)) {
        let marked = dirty.iter().filter(|(path, mark)| (mark.came || mark.vanished) && !dirty.is_canary(path));
        for (path, mark) in marked.filter(|(path, _)| !self.later.contains(path)) {
            let is_left_out = self.roots.of(path).is_some_and(|(_, how)| {
                mark.file && how.leaves_out(how.excludes(path), Kind::File, 0) || how.excludes_folder(path)
            });
            let is_gone = match (old.entries.get(path.as_slice()), new.entries.get(path.as_slice())) {
                (None, None) => !is_left_out || mark.vanished || !self.exists(path),
                // What was there before is back, and nothing tells that another file was there meanwhile.
                (Some(was), Some(is)) => mark.vanished && is_alike(was, is),
                _ => false,
            };
            if is_gone && is_left_out && !mark.runs {
                self.tally.excluded_transients += 1;
            } else if is_gone {
                tell(Event::Transient { path: path.clone(), suspects: self.witness.of(path, None) });
            }
        }
    }

    fn exists(&self, path: &[u8]) -> bool {
        self.roots.of(path).is_some_and(|(root, _)| beneath::point_at(root, path).is_ok())
    }

    /// Tells what differs; gives how much that is.
    pub(super) fn tell_changed(
        &mut self,
        dirty: &Marks,
        old: &View,
        new: &View,
        source: Source,
        tell: &mut dyn FnMut(Event),
    ) -> usize {
        let found = self.roots.differences(old, new);
        let count = found.len();
        for difference in found {
            let source = found_by(source, dirty, &difference.path);
            if source == Source::Full {
                self.found_by_reading();
            }
            let (suspects, since) = (self.suspects(&difference), self.since(source));
            tell(Event::Changed { difference: Box::new(difference), source, suspects, since });
        }
        let resting = &self.hot.resting;
        self.witness.forget(|path| resting.get(path).is_some());
        count
    }

    pub(super) fn suspects(&self, difference: &Difference) -> Vec<Suspect> {
        let prints = [&difference.old, &difference.new].into_iter().flatten();
        self.witness.of(&difference.path, prints.filter(|print| print.kind == Kind::File).filter_map(|print| print.inode))
    }

    /// Since when a difference may be there that such a comparison finds.
    fn since(&self, source: Source) -> Option<SystemTime> {
        match source {
            Source::Event | Source::Start => None,
            Source::Poll => self.polled.max(self.compared),
            Source::Schedule | Source::Repair | Source::End => self.compared,
            Source::Full => self.read,
        }
    }
}

/// What a difference was found by, in a look for this reason.
fn found_by(source: Source, dirty: &Marks, path: &[u8]) -> Source {
    match source {
        Source::Schedule | Source::Full | Source::Poll | Source::End if dirty.was_seen(path) => Source::Event,
        Source::Event if dirty.was_reread(path) => Source::Full,
        // Before all content is read, all is compared as on any other schedule.
        Source::Full => Source::Schedule,
        _ => source,
    }
}
