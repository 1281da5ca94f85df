//! What is made good by looking at more: lost events, and watches that could not be had.

use std::collections::BTreeMap;

use super::Reconciler;
use crate::scan::Uncovered;
use crate::watch::event::Source;

/// So many directories that could not be watched are remembered until the next look; beyond that their roots are.
const FAILED: usize = 10_000;

impl Reconciler {
    /// Whether events were lost, and nothing was done about that yet.
    pub(crate) fn needs_repair(&self) -> bool {
        self.repair
    }

    /// Has everything looked at by the next look if events were lost.
    pub(crate) fn begin_repair(&mut self) {
        if self.repair {
            self.mark_all(Source::Repair);
        }
    }

    /// Whether a look for this reason was at everything, after the last event was lost.
    pub(super) fn repairs(&self, source: Source) -> bool {
        !self.repair && !matches!(source, Source::Event | Source::Poll)
    }

    /// Remembers what could not be watched.
    pub(super) fn fail(&mut self, failed: Vec<(Vec<u8>, Uncovered)>) {
        self.failed.extend(failed);
        if self.failed.len() > FAILED {
            let roots = self.failed.drain(..).filter_map(|(path, why)| Some((self.roots.of(&path)?.0.to_vec(), why)));
            self.failed = roots.collect::<BTreeMap<_, _>>().into_iter().collect();
        }
    }
}
