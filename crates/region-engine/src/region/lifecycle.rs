//! What hooks are told of a region's life: opened, closed, dropped, another role.
//!
//! A region changes its state at moments when nobody may wait. What is to be told is queued there,
//! and delivered in order as soon as somebody may.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tidewater_common::ids::OwnerEpoch;

use super::{Contents, Phase, Region, RegionSpec};
use crate::file_meta::FileMeta;
use crate::hooks::{RegionHooks, RegionRole, SstFileInfo};

/// States that are told at most this much later: older ones are left out.
const MOST_WAITING: usize = 256;

/// One thing to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Announcement {
    Opened,
    Closed,
    Dropped,
    Role { old: RegionRole, new: RegionRole, epoch: OwnerEpoch },
}

/// Tells hooks in the order in which it was queued.
#[derive(Debug)]
pub(super) struct Announcer {
    hooks: RegionHooks,
    waiting: Mutex<VecDeque<(Announcement, Arc<RegionSpec>)>>,
    delivering: tokio::sync::Mutex<()>,
}

impl Region {
    /// What the region is now: identity, and schema, options and range as the manifest has them.
    pub(crate) fn metadata(&self) -> Arc<RegionSpec> {
        Arc::new(self.spec.as_of(&self.manifest.state()))
    }

    /// Data files were written and are about to be committed by a flush: tells the hooks, and gives
    /// back what the manifest will say. Never call it with the write lock held.
    pub(super) async fn files_written(&self, written: Vec<SstFileInfo>) -> Vec<FileMeta> {
        let files = written.iter().map(|file| file.meta.clone()).collect();
        self.hooks.sst_files_written(self.metadata(), written.into()).await;
        files
    }

    /// The one place where the phase changes.
    pub(super) fn enter(&self, contents: &mut Contents, phase: Phase) {
        let news = announcements(contents.phase, phase);
        contents.phase = phase;
        if !news.is_empty() {
            self.announcer.queue(news, self.metadata());
        }
    }
}

impl Announcer {
    pub(super) fn new(hooks: RegionHooks) -> Self {
        Self { hooks, waiting: Mutex::default(), delivering: tokio::sync::Mutex::new(()) }
    }

    fn queue(&self, news: Vec<Announcement>, metadata: Arc<RegionSpec>) {
        let mut waiting = self.waiting.lock();
        waiting.extend(news.into_iter().map(|one| (one, metadata.clone())));
        let excess = waiting.len().saturating_sub(MOST_WAITING);
        waiting.drain(..excess);
    }

    /// Tells what is queued. Returns at once when somebody else is at it: a hook that uses the
    /// region must not wait for itself.
    pub(super) async fn deliver(&self) {
        while !self.waiting.lock().is_empty() {
            let Ok(_delivering) = self.delivering.try_lock() else { return };
            loop {
                let next = self.waiting.lock().pop_front();
                let Some((one, metadata)) = next else { break };
                self.tell(one, metadata).await;
            }
        }
    }

    /// Tells what is queued from where nobody may wait.
    pub(super) fn deliver_in_background(self: &Arc<Self>) {
        if self.waiting.lock().is_empty() {
            return;
        }
        // Without a runtime the process is ending: nobody is left to be told.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let announcer = self.clone();
            runtime.spawn(async move { announcer.deliver().await });
        }
    }

    async fn tell(&self, one: Announcement, metadata: Arc<RegionSpec>) {
        match one {
            Announcement::Opened => self.hooks.opened(metadata).await,
            Announcement::Closed => self.hooks.closed(metadata).await,
            Announcement::Dropped => self.hooks.dropped(metadata).await,
            Announcement::Role { old, new, epoch } => {
                self.hooks.role_changed(old, new, epoch).await;
            }
        }
    }
}

/// What a change of phase means to hooks.
fn announcements(before: Phase, after: Phase) -> Vec<Announcement> {
    match (role(before), role(after)) {
        (None, Some(role)) => {
            let mut news = vec![Announcement::Opened];
            if let (RegionRole::Leader, epoch) = role {
                news.push(changed(RegionRole::Follower, RegionRole::Leader, epoch));
            }
            news
        }
        (Some(_), None) if after == Phase::Removed => vec![Announcement::Dropped],
        (Some(_), None) => vec![Announcement::Closed],
        (Some((old, _)), Some((new, epoch))) if old != new => vec![changed(old, new, epoch)],
        (Some(_), Some(_)) | (None, None) => Vec::new(),
    }
}

fn changed(old: RegionRole, new: RegionRole, epoch: OwnerEpoch) -> Announcement {
    Announcement::Role { old, new, epoch }
}

/// The role in a phase, with the owner's epoch as far as it is known; `None` outside the active set.
fn role(phase: Phase) -> Option<(RegionRole, OwnerEpoch)> {
    match phase {
        Phase::Owning(own) => Some((RegionRole::Leader, own)),
        Phase::Fenced(later) => Some((RegionRole::Follower, later)),
        Phase::Following => Some((RegionRole::Follower, OwnerEpoch::default())),
        Phase::Loading | Phase::Removed | Phase::Closed => None,
    }
}

#[cfg(test)]
mod tests {
    use tidewater_common::ids::Term;

    use super::*;

    #[test]
    fn hooks_learn_what_a_change_of_phase_means() {
        use Announcement::{Closed, Dropped, Opened};
        use Phase::{Fenced, Following, Loading, Owning, Removed};
        use RegionRole::{Follower, Leader};
        let epoch = |term| OwnerEpoch { move_epoch: 0, term: Term(term) };
        let (one, two) = (epoch(1), epoch(2));
        let cases = [
            (Loading, Following, vec![Opened]),
            (Loading, Owning(one), vec![Opened, changed(Follower, Leader, one)]),
            (Loading, Removed, vec![]),
            (Loading, Phase::Closed, vec![]),
            (Following, Following, vec![]),
            (Following, Owning(one), vec![changed(Follower, Leader, one)]),
            (Following, Fenced(two), vec![]),
            (Owning(one), Owning(two), vec![]),
            (Owning(one), Fenced(two), vec![changed(Leader, Follower, two)]),
            (Fenced(one), Owning(two), vec![changed(Follower, Leader, two)]),
            (Owning(one), Removed, vec![Dropped]),
            (Following, Removed, vec![Dropped]),
            (Owning(one), Phase::Closed, vec![Closed]),
            (Removed, Phase::Closed, vec![]),
            (Phase::Closed, Phase::Closed, vec![]),
        ];
        for (before, after, expected) in cases {
            assert_eq!(announcements(before, after), expected, "{before:?} to {after:?}");
        }
    }
}
