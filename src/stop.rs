//! Why egret is to end when neither a signal nor its command ends it: the journal, the file watch or the flow watch says so.

use tokio::sync::watch;

/// A reason to stop, or none yet. The first one stays; clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stop(watch::Sender<Option<String>>);

impl Stop {
    /// Gives a reason, unless there is one.
    pub(crate) fn say(&self, why: impl FnOnce() -> String) {
        self.0.send_if_modified(|first| {
            let is_first = first.is_none();
            first.get_or_insert_with(why);
            is_first
        });
    }

    pub(crate) fn why(&self) -> Option<String> {
        self.0.borrow().clone()
    }

    /// Waits for a reason.
    pub(crate) fn said(&self) -> impl Future<Output = String> + use<> {
        let mut reason = self.0.subscribe();
        async move {
            let why = reason.wait_for(Option::is_some).await.ok().and_then(|why| why.clone());
            // Without one, nobody is left who could give it.
            if let Some(why) = why { why } else { std::future::pending().await }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_reason_stays_and_everyone_hears_it() {
        let stop = Stop::default();
        let (before, clone) = (stop.said(), stop.clone());
        assert_eq!(stop.why(), None);
        clone.say(|| "first".to_owned());
        stop.say(|| unreachable!("there is a reason"));
        assert_eq!(clone.why().as_deref(), Some("first"));
        assert_eq!((before.await, stop.said().await), ("first".to_owned(), "first".to_owned()));
    }
}
