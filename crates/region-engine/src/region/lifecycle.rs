//! Notification of hooks about the lifecycle of a region: opened, closed, dropped, role changed.
//!
//! A region changes its phase where it must not wait, for example under a lock. The events are queued
//! there, and delivered in order as soon as a caller may wait.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tidewater_common::ids::OwnerEpoch;

use super::{Contents, Phase, Region, RegionSpec};
use crate::file_meta::FileMeta;
use crate::hooks::{RegionHooks, RegionRole, SstFileInfo};

/// Maximum number of queued events; older ones are dropped.
const MAX_QUEUED_EVENTS: usize = 256;

/// Event in the lifecycle of a region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LifecycleEvent {
    Opened,
    Closed,
    Dropped,
    RoleChanged { old: RegionRole, new: RegionRole, epoch: OwnerEpoch },
}

/// Queue of lifecycle events; notifies hooks in order.
#[derive(Debug)]
pub(super) struct LifecycleNotifier {
    hooks: RegionHooks,
    queue: Mutex<VecDeque<(LifecycleEvent, Arc<RegionSpec>)>>,
    delivering: tokio::sync::Mutex<()>,
}

impl Region {
    /// Returns the current spec: identity, and schema, options and range as of the manifest.
    pub(crate) fn metadata(&self) -> Arc<RegionSpec> {
        Arc::new(self.spec.as_of(&self.manifest.state()))
    }

    /// Notifies hooks of data files that a flush has written and is about to commit. Returns the files'
    /// manifest entries. Must not be called with the manifest lock held.
    pub(super) async fn notify_files_written(&self, written: Vec<SstFileInfo>) -> Vec<FileMeta> {
        let files = written.iter().map(|file| file.meta.clone()).collect();
        self.hooks.sst_files_written(self.metadata(), written.into()).await;
        files
    }

    /// Sets the phase and queues the resulting lifecycle events. The phase is not changed anywhere else.
    pub(super) fn set_phase(&self, contents: &mut Contents, phase: Phase) {
        let events = lifecycle_events(contents.phase, phase);
        contents.phase = phase;
        if !events.is_empty() {
            self.notifier.enqueue(events, self.metadata());
        }
    }
}

impl LifecycleNotifier {
    pub(super) fn new(hooks: RegionHooks) -> Self {
        Self { hooks, queue: Mutex::default(), delivering: tokio::sync::Mutex::new(()) }
    }

    fn enqueue(&self, events: Vec<LifecycleEvent>, metadata: Arc<RegionSpec>) {
        let mut queue = self.queue.lock();
        queue.extend(events.into_iter().map(|event| (event, metadata.clone())));
        let excess = queue.len().saturating_sub(MAX_QUEUED_EVENTS);
        queue.drain(..excess);
    }

    /// Delivers all queued events. Returns immediately if another task is delivering: a hook that uses
    /// the region must not wait for itself.
    pub(super) async fn deliver(&self) {
        while !self.queue.lock().is_empty() {
            let Ok(_delivering) = self.delivering.try_lock() else { return };
            loop {
                let next = self.queue.lock().pop_front();
                let Some((event, metadata)) = next else { break };
                self.notify(event, metadata).await;
            }
        }
    }

    /// Delivers all queued events in a background task, for callers that must not wait.
    pub(super) fn deliver_in_background(self: &Arc<Self>) {
        if self.queue.lock().is_empty() {
            return;
        }
        // Without a runtime the process is shutting down, and its hooks with it.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let notifier = self.clone();
            runtime.spawn(async move { notifier.deliver().await });
        }
    }

    async fn notify(&self, event: LifecycleEvent, metadata: Arc<RegionSpec>) {
        match event {
            LifecycleEvent::Opened => self.hooks.opened(metadata).await,
            LifecycleEvent::Closed => self.hooks.closed(metadata).await,
            LifecycleEvent::Dropped => self.hooks.dropped(metadata).await,
            LifecycleEvent::RoleChanged { old, new, epoch } => {
                self.hooks.role_changed(old, new, epoch).await;
            }
        }
    }
}

/// Returns the lifecycle events of a phase change.
fn lifecycle_events(before: Phase, after: Phase) -> Vec<LifecycleEvent> {
    match (role(before), role(after)) {
        (None, Some(role)) => {
            let mut events = vec![LifecycleEvent::Opened];
            if let (RegionRole::Leader, epoch) = role {
                events.push(role_changed(RegionRole::Follower, RegionRole::Leader, epoch));
            }
            events
        }
        (Some(_), None) if after == Phase::Removed => vec![LifecycleEvent::Dropped],
        (Some(_), None) => vec![LifecycleEvent::Closed],
        (Some((old, _)), Some((new, epoch))) if old != new => vec![role_changed(old, new, epoch)],
        (Some(_), Some(_)) | (None, None) => Vec::new(),
    }
}

fn role_changed(old: RegionRole, new: RegionRole, epoch: OwnerEpoch) -> LifecycleEvent {
    LifecycleEvent::RoleChanged { old, new, epoch }
}

/// Returns the role in a phase, with the owner's epoch as far as it is known; `None` if the region is
/// not active.
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
    fn phase_changes_map_to_lifecycle_events() {
        use LifecycleEvent::{Closed, Dropped, Opened};
        use Phase::{Fenced, Following, Loading, Owning, Removed};
        use RegionRole::{Follower, Leader};
        let epoch = |term| OwnerEpoch { move_epoch: 0, term: Term(term) };
        let one = epoch(1);
        let two = epoch(2);
        let cases = [
            (Loading, Following, vec![Opened]),
            (Loading, Owning(one), vec![Opened, role_changed(Follower, Leader, one)]),
            (Loading, Removed, vec![]),
            (Loading, Phase::Closed, vec![]),
            (Following, Following, vec![]),
            (Following, Owning(one), vec![role_changed(Follower, Leader, one)]),
            (Following, Fenced(two), vec![]),
            (Owning(one), Owning(two), vec![]),
            (Owning(one), Fenced(two), vec![role_changed(Leader, Follower, two)]),
            (Fenced(one), Owning(two), vec![role_changed(Follower, Leader, two)]),
            (Owning(one), Removed, vec![Dropped]),
            (Following, Removed, vec![Dropped]),
            (Owning(one), Phase::Closed, vec![Closed]),
            (Removed, Phase::Closed, vec![]),
            (Phase::Closed, Phase::Closed, vec![]),
        ];
        for (before, after, expected) in cases {
            assert_eq!(lifecycle_events(before, after), expected, "{before:?} to {after:?}");
        }
    }
}
