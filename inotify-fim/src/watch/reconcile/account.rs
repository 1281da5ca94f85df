//! What the ledger says of what was done.

use super::Reconciler;
use crate::ledger::{LISTED, Ledger, WEIGHTS, reason, weight};

impl Reconciler {
    /// What the ledger says of all this.
    pub(crate) fn write(&mut self, ledger: &mut Ledger) {
        self.tally.write(&self.view, ledger);
        ledger.inotify = self.armed.has_inotify();
        (ledger.watched, ledger.budget) = (self.armed.len(), self.armed.most());
        ledger.gap_since = self.gap.map(|(_, start)| start);
        ledger.hot = self.hot.resting.len();
        ledger.unread = self.later.len();
        ledger.reading = self.reading();
        ledger.hidden_processes = self.witness.hidden;
        let (covered, proven) = (self.coverage.is_fresh(), self.proofs.is_fresh());
        if covered || proven {
            self.write_lists(ledger);
        }
    }

    /// What takes longer to write, and changes less often.
    pub(crate) fn write_lists(&self, ledger: &mut Ledger) {
        ledger.mounts = self.proofs.list();
        ledger.polled = self.polled_trees().count();
        let all = || self.coverage.iter().chain(self.proofs.polled()).chain(self.proofs.unread());
        let by_weight = (0..WEIGHTS).flat_map(|class| all().filter(move |(_, why)| weight(*why) == class));
        ledger.uncovered = by_weight.take(LISTED).map(|(path, why)| (path.clone(), why)).collect();
        ledger.reasons.clear();
        all().for_each(|(_, why)| *ledger.reasons.entry(reason(why)).or_default() += 1);
    }
}
