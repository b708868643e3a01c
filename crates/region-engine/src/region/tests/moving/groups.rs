//! Two groups and a region that moves between them: the logs of the groups, the procedure of the move, the store. Data
//! files have no rows: the groups record the rows of each object, and a row is identified by its sequence.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tidewater_common::clock::Clock;
use tidewater_common::ids::{FileId, GroupId, JobId, OwnerEpoch, Sequence, Term};
use tidewater_common::keys::KeyRange;
use tidewater_common::schema::TableOptions;
use uuid::Uuid;

use crate::env::RegionEnv;
use crate::file_meta::FileMeta;
use crate::manifest::samples::{DIR, GROUP, env, file, file_id, schema};
use crate::manifest::{ActionKind, Author, Change, Edit, ManifestContext, Void};
use crate::storage::testing::FaultyStore;
use crate::{EngineError, Region, RegionSpec};

/// One of the groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    First,
    Second,
}

impl Place {
    pub(super) fn group(self) -> GroupId {
        match self {
            Self::First => GROUP,
            Self::Second => GroupId(GROUP.get() + 1),
        }
    }

    pub(super) fn other(self) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Second => Self::First,
        }
    }
}

/// State of the region in the log of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Serving {
    #[default]
    Absent,
    Prepared(u64),
    Arriving(u64),
    Active,
    Departing(u64),
}

/// Step of the procedure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Step {
    #[default]
    Hold,
    Fence,
    Receive,
    Release,
    Activate,
    Abandon,
}

/// Log of a group, as applied.
#[derive(Debug, Default)]
struct Log {
    leader: u64,
    serving: Serving,
    move_epoch: u64,
    /// Greatest number of a move that has ended here.
    ended: u64,
    /// Sequences of the rows that this group has acknowledged.
    rows: BTreeSet<u64>,
}

#[derive(Debug, Default)]
struct State {
    first: Log,
    second: Log,
    last: u64,
    /// Number and step of the procedure, and whether the second group has the region when it begins.
    procedure: (u64, Step, bool),
}

impl State {
    fn log(&mut self, place: Place) -> &mut Log {
        match place {
            Place::First => &mut self.first,
            Place::Second => &mut self.second,
        }
    }
}

/// A clock that advances with every reading.
#[derive(Debug, Default)]
struct Time(AtomicU64);

impl Clock for Time {
    fn now_ms(&self) -> u64 {
        1_000_000 + self.0.fetch_add(1, Ordering::Relaxed)
    }
}

/// The groups, and the store.
#[derive(Clone)]
pub(super) struct Groups {
    store: FaultyStore,
    time: Arc<Time>,
    checkpoint_every: u64,
    state: Arc<Mutex<State>>,
    /// Rows of the objects.
    contents: Arc<Mutex<BTreeMap<FileId, BTreeSet<u64>>>>,
}

impl Groups {
    /// The first group serves the region.
    pub(super) fn new(checkpoint_every: u64) -> Self {
        let mut state = State { procedure: (1, Step::Hold, false), ..State::default() };
        state.first.serving = Serving::Active;
        Self {
            store: FaultyStore::new().stepped(),
            time: Arc::default(),
            checkpoint_every,
            state: Arc::new(Mutex::new(state)),
            contents: Arc::default(),
        }
    }

    pub(super) fn env(&self) -> RegionEnv {
        let mut env = env(self.store.storage());
        env.clock = self.time.clone();
        env.options.manifest.checkpoint_every = self.checkpoint_every;
        env
    }

    pub(super) fn now(&self) -> u64 {
        self.time.now_ms()
    }

    /// The region as a replica begins with it.
    pub(super) fn region(&self) -> Arc<Region> {
        let spec = RegionSpec {
            region_id: DIR.region_id,
            table_id: DIR.table_id,
            incarnation: DIR.incarnation,
            schema: schema(1),
            options: TableOptions::upsert(),
            range: KeyRange::whole(),
            parents: Vec::new(),
        };
        Region::new(self.env(), spec, Sequence(0), Sequence(0)).unwrap()
    }
}

/// The logs.
impl Groups {
    pub(super) fn elect(&self, place: Place, term: u64) {
        let mut state = self.state.lock();
        let log = state.log(place);
        log.leader = log.leader.max(term);
    }

    pub(super) fn term(&self, place: Place) -> u64 {
        self.state.lock().log(place).leader
    }

    pub(super) fn epoch(&self, place: Place, term: u64) -> OwnerEpoch {
        OwnerEpoch { move_epoch: self.state.lock().log(place).move_epoch, term: Term(term) }
    }

    pub(super) fn serving(&self, place: Place) -> Serving {
        self.state.lock().log(place).serving
    }

    pub(super) fn prepare(&self, place: Place, number: u64) {
        let mut state = self.state.lock();
        let log = state.log(place);
        let is_earlier = match log.serving {
            Serving::Absent => log.ended < number,
            Serving::Prepared(earlier) => earlier < number,
            _ => false,
        };
        if is_earlier {
            log.serving = Serving::Prepared(number);
        }
    }

    /// Returns whether the region is fenced for the move of this number.
    pub(super) fn fence(&self, place: Place, number: u64) -> bool {
        let mut state = self.state.lock();
        let log = state.log(place);
        if log.serving == Serving::Active && log.move_epoch < number {
            log.serving = Serving::Departing(number);
        }
        log.serving == Serving::Departing(number)
    }

    /// Returns the greatest sequence of a fenced region, whose rows are flushed.
    pub(super) fn departing(&self, place: Place, number: u64) -> Option<Sequence> {
        let mut state = self.state.lock();
        let log = state.log(place);
        let last = log.rows.last().copied().unwrap_or_default();
        (log.serving == Serving::Departing(number)).then_some(Sequence(last))
    }

    /// Ends a move whose manifest the group has fenced again.
    pub(super) fn keep(&self, place: Place, number: u64) {
        let mut state = self.state.lock();
        let log = state.log(place);
        // Also of a region that was not fenced: a fence of this move that is delayed has no effect.
        if [Serving::Departing(number), Serving::Active].contains(&log.serving) {
            log.serving = Serving::Active;
            log.move_epoch = log.move_epoch.max(number);
        }
    }

    pub(super) fn has_received(&self, place: Place, number: u64) -> bool {
        self.state.lock().log(place).move_epoch >= number
    }

    pub(super) fn receive(&self, place: Place, number: u64) {
        let mut state = self.state.lock();
        let other = state.log(place.other()).serving;
        let log = state.log(place);
        if log.serving == Serving::Prepared(number) {
            assert_eq!(other, Serving::Departing(number), "both groups own the region");
            log.serving = Serving::Arriving(number);
            log.move_epoch = number;
        }
    }

    pub(super) fn release(&self, place: Place, number: u64) {
        let mut state = self.state.lock();
        let log = state.log(place);
        if log.serving == Serving::Departing(number) {
            log.serving = Serving::Absent;
            log.ended = number;
        }
    }

    pub(super) fn activate(&self, place: Place, number: u64) {
        let mut state = self.state.lock();
        let log = state.log(place);
        if log.serving == Serving::Arriving(number) {
            log.serving = Serving::Active;
        }
    }

    /// Acknowledges a row, if a group takes it.
    pub(super) fn write(&self) {
        let mut state = self.state.lock();
        let serving = [Place::First, Place::Second].map(|place| state.log(place).serving);
        assert_ne!(serving, [Serving::Active; 2], "both groups serve the region");
        let at = match serving {
            [Serving::Active, _] => Place::First,
            [_, Serving::Active] => Place::Second,
            _ => return,
        };
        state.last += 10;
        let row = state.last;
        state.log(at).rows.insert(row);
    }
}

/// The procedure.
impl Groups {
    pub(super) fn procedure(&self) -> (u64, Step, Place) {
        let (number, step, from_second) = self.state.lock().procedure;
        (number, step, if from_second { Place::Second } else { Place::First })
    }

    /// Completes a step, unless another leader has.
    pub(super) fn complete(&self, at: (u64, Step), next: Step) {
        let mut state = self.state.lock();
        let (number, step, from_second) = state.procedure;
        if (number, step) != at {
            return;
        }
        state.procedure = match (step, next) {
            (Step::Activate, _) => (number + 1, Step::Hold, !from_second),
            (Step::Abandon, _) => (number + 1, Step::Hold, from_second),
            (_, next) => (number, next, from_second),
        };
    }
}

/// Work on the region.
impl Groups {
    /// Writes an object with these rows, which no manifest references yet.
    async fn write_object(&self, floor_ms: u64, rows: &BTreeSet<u64>) -> FileMeta {
        let now = self.now();
        let id = file_id(now.max(floor_ms), now);
        self.contents.lock().insert(id, rows.clone());
        let bytes = bytes::Bytes::from_static(b"rows");
        self.store.storage().put(&DIR.data(id), bytes).await.unwrap();
        let [least, greatest] = [rows.first(), rows.last()].map(|row| Sequence(*row.unwrap()));
        FileMeta {
            file_id: id,
            stored_min_sequence: least,
            stored_max_sequence: greatest,
            ..file(1)
        }
    }

    /// Flushes the rows of a group that no file has.
    pub(super) async fn flush(&self, place: Place, region: &Region) -> Result<(), EngineError> {
        loop {
            let manifest = region.manifest.state();
            let rows: BTreeSet<u64> = {
                let mut state = self.state.lock();
                state.log(place).rows.range(manifest.flushed.get() + 1..).copied().collect()
            };
            let Some(last) = rows.last() else { return Ok(()) };
            let add = vec![self.write_object(manifest.gc_floor_ms, &rows).await];
            let edit = Edit { add, flushed: Some(Sequence(*last)), ..Edit::default() };
            let own = region.contents.lock().phase.check_owner(region.id())?;
            let change = Change::new(Author::Owner(own), vec![ActionKind::Edit(edit)]);
            match region.note_fence(region.manifest.update_manifest(change).await) {
                // The second: another actor in the name of the same leader.
                Err(EngineError::Refused {
                    reason: Void::BelowFloor { .. } | Void::AlreadyFlushed { .. },
                    ..
                }) => {}
                committed => return committed.map(drop),
            }
        }
    }

    /// Replaces a file by another one, as a job does.
    pub(super) async fn compact(&self) {
        let manifest = ManifestContext::new(self.env(), DIR);
        manifest.refresh().await.unwrap();
        let Some(input) = manifest.state().files().next().cloned() else { return };
        let rows = self.contents.lock()[&input.file_id].clone();
        let output = self.write_object(0, &rows).await;
        let edit = Edit { add: vec![output], remove: vec![input.reference()], ..Edit::default() };
        let job = Author::Job(JobId(Uuid::from_u128(u128::from(self.now()))));
        let change = Change::new(job, vec![ActionKind::Edit(edit)]);
        match manifest.update_manifest(change).await {
            Ok(_)
            | Err(EngineError::Refused {
                reason: Void::InputsGone { .. } | Void::BelowFloor { .. },
                ..
            }) => {}
            Err(error) => panic!("compaction: {error}"),
        }
    }

    /// Verifies that one group serves the region, can flush it, and that each acknowledged row is in one file.
    pub(super) async fn verify_end(self) {
        let all = [Place::First, Place::Second];
        let active = all.into_iter().filter(|place| self.serving(*place) == Serving::Active);
        let [place] = active.collect::<Vec<_>>()[..] else { panic!("{:?}", self.state.lock()) };
        let region = self.region();
        let own = self.epoch(place, 100);
        region.take_ownership(own, place.group()).await.unwrap();
        self.flush(place, &region).await.unwrap();
        let mut shown: Vec<u64> = Vec::new();
        let contents = self.contents.lock();
        for file in region.manifest.state().files() {
            shown.extend(&contents[&file.file_id]);
        }
        shown.sort_unstable();
        let mut state = self.state.lock();
        let rows: BTreeSet<u64> =
            all.iter().flat_map(|place| state.log(*place).rows.clone()).collect();
        assert_eq!(shown, Vec::from_iter(rows));
    }
}
