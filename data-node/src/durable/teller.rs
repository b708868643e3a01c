//! The loop: lists cursors, begins turns, records their moves.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tidewater_common::ids::{GroupId, RegionId};
use tidewater_common::refusal::Refusal;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::book::CursorBook;
use super::cursor::{Cursor, Move};
use super::tracks::{Tracks, Versions};
use super::turn::{Turned, turn};
use crate::groups::Groups;
use crate::hooks::NodeHooks;

/// How often turns begin and moves are recorded: bounds what a node asks of the meta service.
const TICK: Duration = Duration::from_millis(250);
/// How often cursors are listed when nothing has changed here: tables come and go.
const LIST: Duration = Duration::from_secs(2);

/// Groups that this node leads, each with its term; and the durable hooks that there are.
type Part = (BTreeMap<GroupId, u64>, BTreeSet<(String, u64)>);

struct Teller<B> {
    groups: Arc<Groups>,
    hooks: Arc<NodeHooks>,
    book: B,
    tracks: Tracks,
    turns: JoinSet<(Cursor, Turned)>,
    /// For what the cursors were listed last, and when.
    listed: Option<(Part, Instant)>,
    heard: bool,
}

/// Tells durable hooks what becomes of the regions that this node leads, until the node closes.
pub async fn run<B: CursorBook>(
    groups: Arc<Groups>,
    hooks: Arc<NodeHooks>,
    book: B,
    closing: CancellationToken,
) {
    let mut teller = Teller {
        groups,
        hooks,
        book,
        tracks: Tracks::default(),
        turns: JoinSet::new(),
        listed: None,
        heard: true,
    };
    tokio::select! {
        () = closing.cancelled() => {}
        () = teller.turn() => {}
    }
}

impl<B: CursorBook> Teller<B> {
    async fn turn(&mut self) {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = tick.tick() => self.round().await,
                Some(ended) = self.turns.join_next() => {
                    match ended {
                        Ok((cursor, turned)) => self.ended(&cursor, turned),
                        Err(error) => {
                            // Which one it was is not known: all begin anew at their cursors.
                            warn!(%error, "a turn of a durable hook did not end");
                            self.tracks.clear();
                            self.listed = None;
                        }
                    }
                }
            }
        }
    }

    async fn round(&mut self) {
        let hooks = self.hooks.durable_hooks();
        let led: BTreeMap<GroupId, u64> = self
            .groups
            .all()
            .iter()
            .map(|replica| (replica.group(), replica.leadership()))
            .filter(|(_, leadership)| leadership.is_leader)
            .map(|(group, leadership)| (group, leadership.term))
            .collect();
        if hooks.is_empty() || led.is_empty() {
            self.tracks.clear();
            self.listed = None;
            self.hooks.set_lags(BTreeMap::new());
            return;
        }
        let part = (led, hooks);
        let outcome = self.with_the_book(&part).await;
        self.tell_of(&outcome);
        let versions = self.versions(&part.0);
        if outcome.is_ok() {
            self.begin(&versions);
        }
        self.hooks.set_lags(self.tracks.lags(&versions));
    }

    /// Records moves, and lists cursors when something has changed or it is time. Moves first: what
    /// is listed afterwards contains them.
    async fn with_the_book(&mut self, part: &Part) -> Result<(), Refusal> {
        let moves = self.tracks.moves();
        if !moves.is_empty() {
            let answer = self.book.advance(moves.clone()).await?;
            self.tracks.moved(&moves, answer);
        }
        let fresh =
            self.listed.as_ref().is_some_and(|(listed, at)| listed == part && at.elapsed() < LIST);
        if !fresh {
            let groups: Vec<GroupId> = part.0.keys().copied().collect();
            let listed = self.book.list(&groups).await?;
            self.tracks.list(listed);
            self.listed = Some((part.clone(), Instant::now()));
        }
        Ok(())
    }

    fn tell_of(&mut self, outcome: &Result<(), Refusal>) {
        match outcome {
            Ok(()) if !self.heard => info!("cursors of durable hooks are recorded again"),
            Ok(()) => {}
            Err(problem) if self.heard => {
                warn!(%problem, "cursors of durable hooks are not recorded: their calls wait");
            }
            Err(problem) => debug!(%problem, "cursors of durable hooks are not recorded"),
        }
        self.heard = outcome.is_ok();
    }

    fn versions(&self, led: &BTreeMap<GroupId, u64>) -> Versions {
        let replicas = led.keys().filter_map(|group| self.groups.get(*group).ok());
        let mut versions = Versions::new();
        for replica in replicas {
            for hosted in replica.shared.regions.all() {
                let id: RegionId = hosted.region.id();
                versions.insert(id, hosted.region.stats().manifest_version);
            }
        }
        versions
    }

    fn begin(&mut self, versions: &Versions) {
        let hooks = self.hooks.clone();
        let hook_of = |cursor: &Cursor| {
            let hook = hooks.durable(&cursor.key.1, cursor.generation)?;
            (!hook.is_paused()).then_some(hook)
        };
        let due = self.tracks.begin(versions, |cursor| hook_of(cursor).is_some(), Instant::now());
        for one in due {
            let Some(hook) = hook_of(&one.cursor) else {
                // Gone since it was found due.
                self.tracks.end(&one.cursor, None, false, Instant::now());
                continue;
            };
            let env = self.groups.context().env.clone();
            self.turns.spawn(async move {
                let turned = turn(&env, &one.cursor, one.dropped, &hook).await;
                (one.cursor, turned)
            });
        }
    }

    fn ended(&mut self, cursor: &Cursor, turned: Turned) {
        let (region, hook) = (&cursor.key.0, &cursor.key.1);
        let failed = turned.failed.is_some();
        let wait = self.tracks.end(cursor, turned.to, failed, Instant::now());
        if let (Some(problem), Some(wait)) = (turned.failed, wait) {
            warn!(%hook, %region, %problem, ?wait, "a durable hook waits for a region");
        }
        if let Some(Move::To(version, tidewater_proto::v1::CursorState::Lagged)) = turned.to {
            warn!(
                %hook, %region, %version,
                "what a durable hook has not been told of was cleaned: it begins with a snapshot"
            );
        }
    }
}
