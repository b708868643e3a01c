use std::collections::VecDeque;

use futures::stream::{self, BoxStream};
use parking_lot::Mutex;
use tidewater_common::ids::{ClusterId, Revision};
use tokio::task::JoinHandle;
use tonic::Status;

use super::*;

const OURS: &str = "018f3c1e-0000-7000-8000-000000000001";
const THEIRS: &str = "018f3c1e-0000-7000-8000-000000000002";

fn snapshot(revision: u64) -> v1::CatalogSnapshot {
    let cluster_id = OURS.into();
    v1::CatalogSnapshot { cluster_id, incarnation: 1, revision, ..Default::default() }
}

fn delta(revision: u64) -> v1::CatalogDelta {
    v1::CatalogDelta { revision, ..Default::default() }
}

fn page(revision: u64, deltas: &[u64]) -> v1::GetCatalogChangesResponse {
    let deltas = deltas.iter().map(|revision| delta(*revision)).collect();
    v1::GetCatalogChangesResponse { revision, deltas, snapshot_needed: false }
}

fn refused(reason: Reason) -> FailedAttempt {
    let refusal = Refusal::new(reason, "scripted");
    FailedAttempt { refusal, effect: Effect::None, silent: false }
}

/// A source with prepared answers. Without one, a watch never opens, and a read fails.
#[derive(Default)]
struct ScriptedSource {
    /// Events of each watch. A watch stays open after its events, unless the last one is an error.
    watches: Mutex<VecDeque<Vec<Result<Event, Status>>>>,
    snapshots: Mutex<VecDeque<v1::CatalogSnapshot>>,
    changes: Mutex<VecDeque<Result<v1::GetCatalogChangesResponse, FailedAttempt>>>,
    /// Revisions from which watches were opened.
    opened: Mutex<Vec<u64>>,
    /// Revisions since which changes were read.
    read: Mutex<Vec<u64>>,
}

impl CatalogSource for ScriptedSource {
    type Search = ();
    type Events = BoxStream<'static, Result<v1::WatchEvent, Status>>;

    fn search(&self) {}

    fn wait(&self, (): &mut (), _: &FailedAttempt) -> Duration {
        Duration::from_millis(1)
    }

    fn watch_wait(&self, _: u32, _: &FailedAttempt) -> Duration {
        Duration::from_millis(1)
    }

    async fn watch(
        &self,
        _: &Catalog,
        (): &mut (),
        request: v1::WatchRequest,
    ) -> Result<Self::Events, FailedAttempt> {
        self.opened.lock().push(request.from_revision);
        let events = self.watches.lock().pop_front();
        let Some(events) = events else { return std::future::pending().await };
        let events = events
            .into_iter()
            .map(|event| event.map(|event| v1::WatchEvent { event: Some(event) }));
        Ok(stream::iter(events).chain(stream::pending()).boxed())
    }

    async fn read_snapshot(
        &self,
        _: &Catalog,
        (): &mut (),
    ) -> Result<v1::CatalogSnapshot, FailedAttempt> {
        self.snapshots.lock().pop_front().ok_or_else(|| refused(Reason::Unavailable))
    }

    async fn read_changes(
        &self,
        _: &Catalog,
        (): &mut (),
        request: v1::GetCatalogChangesRequest,
    ) -> Result<v1::GetCatalogChangesResponse, FailedAttempt> {
        self.read.lock().push(request.revision);
        let answer = self.changes.lock().pop_front();
        answer.unwrap_or_else(|| Err(refused(Reason::Unavailable)))
    }
}

/// A watcher that runs, of a catalog at revision 10.
struct Watching {
    source: Arc<ScriptedSource>,
    published: watch::Receiver<PublishedCatalog>,
    requests: Arc<RefreshRequests>,
    task: JoinHandle<()>,
}

fn watching(source: ScriptedSource) -> Watching {
    let source = Arc::new(source);
    let requests = Arc::new(RefreshRequests::default());
    let catalog = Catalog::from_snapshot(&snapshot(10)).unwrap();
    let (watcher, published) = CatalogWatcher::new(source.clone(), catalog, requests.clone());
    Watching { source, published, requests, task: tokio::spawn(watcher.run()) }
}

/// A watcher that feeds an engine, of a catalog at revision 10 and version 5.
fn watching_with_engine(source: ScriptedSource) -> (Watching, Arc<RouteEngine>) {
    let source = Arc::new(source);
    let requests = Arc::new(RefreshRequests::default());
    let catalog = Catalog::from_snapshot(&routed(10, 5)).unwrap();
    let (watcher, published) = CatalogWatcher::new(source.clone(), catalog, requests.clone());
    let engine = Arc::new(RouteEngine::new());
    let task = tokio::spawn(watcher.with_engine(engine.clone()).run());
    (Watching { source, published, requests, task }, engine)
}

/// A snapshot with one route, whose id is the version.
fn routed(revision: u64, version: u64) -> v1::CatalogSnapshot {
    let routes = vec![route(version)];
    v1::CatalogSnapshot { catalog_version: version, routes, ..snapshot(revision) }
}

/// The change to the snapshot with this version.
fn rerouted(revision: u64, version: u64) -> v1::CatalogDelta {
    v1::CatalogDelta {
        previous_catalog_version: version - 1,
        catalog_version: version,
        route_upserts: vec![route(version)],
        route_deletes: vec![version - 1],
        ..delta(revision)
    }
}

fn route(id: u64) -> v1::Route {
    let start = vec![0, 0, 0, 1].into();
    v1::Route { route_id: id, start, group_id: 1, ..v1::Route::default() }
}

/// Version of an engine, and the id of its route.
fn at(engine: &RouteEngine) -> (u64, Option<u64>) {
    let route = engine.get_route(&[0, 0, 0, 1, 7]);
    (engine.version().get(), route.map(|route| route.descriptor().route_id.get()))
}

fn watches(events: Vec<Vec<Result<Event, Status>>>) -> ScriptedSource {
    ScriptedSource { watches: Mutex::new(events.into()), ..ScriptedSource::default() }
}

impl Watching {
    async fn until(&mut self, reached: impl FnMut(&PublishedCatalog) -> bool) {
        let arrived = self.published.wait_for(reached);
        tokio::time::timeout(Duration::from_secs(600), arrived).await.unwrap().unwrap();
    }

    async fn until_revision(&mut self, revision: u64) {
        self.until(|now| now.catalog.revision() == Revision(revision)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn watch_publishes_snapshots_and_deltas() {
    let stale = Event::Snapshot(snapshot(11));
    let events = vec![
        Ok(Event::Delta(delta(11))),
        Ok(Event::Delta(delta(12))),
        Ok(Event::Delta(delta(12))),
        Ok(stale),
        Ok(Event::CurrentRevision(12)),
        Ok(Event::Snapshot(snapshot(15))),
        Ok(Event::Delta(delta(16))),
    ];
    let mut watching = watching(watches(vec![events]));
    watching.until_revision(16).await;
    assert_eq!(*watching.source.opened.lock(), [10]);
    assert!(watching.source.read.lock().is_empty(), "the watch has delivered everything");
    assert_eq!(watching.requests.reads().snapshots, 1);
}

#[tokio::test(start_paused = true)]
async fn missing_delta_leads_to_a_read_of_changes() {
    let source = watches(vec![vec![Ok(Event::Delta(delta(12)))]]);
    source.changes.lock().push_back(Ok(page(12, &[11, 12])));
    let mut watching = watching(source);
    watching.until_revision(12).await;
    assert_eq!(*watching.source.read.lock(), [10]);
    assert_eq!(*watching.source.opened.lock(), [10], "the watch stays open");
}

#[tokio::test(start_paused = true)]
async fn source_without_the_changes_is_read_as_a_whole() {
    for answer in [
        Ok(v1::GetCatalogChangesResponse { snapshot_needed: true, ..page(20, &[]) }),
        Ok(page(20, &[15])),
        Err(refused(Reason::Unsupported)),
        Err(refused(Reason::WrongCluster)),
    ] {
        let source = Arc::new(ScriptedSource::default());
        source.changes.lock().push_back(answer);
        source.snapshots.lock().push_back(snapshot(20));
        let requests = Arc::new(RefreshRequests::default());
        let catalog = Catalog::from_snapshot(&snapshot(10)).unwrap();
        let (watcher, published) = CatalogWatcher::new(source, catalog, requests.clone());
        let request = requests.add();
        watcher.serve_requests(&mut ()).await;
        assert_eq!(published.borrow().catalog.revision(), Revision(20));
        assert_eq!(published.borrow().served, request);
        let reads = requests.reads();
        assert_eq!((reads.snapshots, reads.changes), (2, 1));
        watcher.serve_requests(&mut ()).await;
        assert_eq!(requests.reads(), reads, "the request is served");
    }
}

#[tokio::test(start_paused = true)]
async fn broken_watch_is_opened_again_at_its_revision() {
    let source = watches(vec![
        vec![Ok(Event::Delta(delta(11))), Err(Status::unavailable("reset"))],
        vec![Ok(Event::Delta(delta(12)))],
        // After 30 s without an event.
        vec![Ok(Event::Delta(delta(13)))],
    ]);
    let mut watching = watching(source);
    watching.until_revision(13).await;
    assert_eq!(*watching.source.opened.lock(), [10, 11, 12]);
}

#[tokio::test(start_paused = true)]
async fn source_is_read_while_watches_break() {
    let broken = || vec![Err(Status::unavailable("reset"))];
    let source = watches(vec![broken(), broken(), broken()]);
    source.changes.lock().push_back(Ok(page(11, &[11])));
    let mut watching = watching(source);
    watching.until_revision(11).await;
    assert!(watching.source.opened.lock().len() >= 3);
    assert_eq!(*watching.source.read.lock(), [10]);
}

#[tokio::test(start_paused = true)]
async fn restored_catalog_replaces_a_newer_one() {
    let restored = v1::CatalogSnapshot { incarnation: 2, ..snapshot(3) };
    let mut watching = watching(watches(vec![vec![Ok(Event::Snapshot(restored))]]));
    watching.until_revision(3).await;
    assert_eq!(watching.published.borrow().catalog.incarnation().get(), 2);
}

#[tokio::test(start_paused = true)]
async fn watcher_ends_when_another_cluster_answers() {
    let other = v1::CatalogSnapshot { cluster_id: THEIRS.into(), ..snapshot(99) };
    let mut watching = watching(watches(vec![vec![Ok(Event::Snapshot(other))]]));
    let clusters: (ClusterId, ClusterId) = (OURS.parse().unwrap(), THEIRS.parse().unwrap());
    watching.until(|now| now.other == Some(clusters)).await;
    watching.task.await.unwrap();
    assert_eq!(watching.published.borrow().catalog.revision(), Revision(10));
}

#[tokio::test(start_paused = true)]
async fn invalid_snapshot_reopens_the_watch() {
    let invalid = v1::CatalogSnapshot { cluster_id: "x".into(), ..snapshot(11) };
    let source = watches(vec![
        vec![Ok(Event::Snapshot(invalid)), Ok(Event::Delta(delta(11)))],
        vec![Ok(Event::Snapshot(snapshot(12)))],
    ]);
    let mut watching = watching(source);
    watching.until_revision(12).await;
    assert_eq!(*watching.source.opened.lock(), [10, 10]);
}

#[tokio::test(start_paused = true)]
async fn engine_follows_the_published_catalog() {
    let unrelated =
        v1::CatalogDelta { previous_catalog_version: 6, catalog_version: 6, ..delta(12) };
    let source = watches(vec![vec![
        Ok(Event::Delta(rerouted(11, 6))),
        Ok(Event::Delta(unrelated)),
        // A gap: the changes are read.
        Ok(Event::Delta(rerouted(15, 9))),
        Ok(Event::Snapshot(routed(20, 12))),
    ]]);
    source.snapshots.lock().push_back(routed(10, 5));
    let deltas = vec![rerouted(13, 7), rerouted(14, 8), rerouted(15, 9)];
    let page = v1::GetCatalogChangesResponse { revision: 15, deltas, snapshot_needed: false };
    source.changes.lock().push_back(Ok(page));
    let (mut watching, engine) = watching_with_engine(source);
    for (revision, version) in [(11, 6), (12, 6), (15, 9), (20, 12)] {
        watching.until(|now| now.catalog.revision().get() >= revision).await;
        let (reached, route) = at(&engine);
        assert!(reached >= version && route == Some(reached), "{reached} at {revision}");
    }
    assert_eq!(at(&engine), (12, Some(12)));
    assert_eq!(watching.requests.reads().snapshots, 2, "the first one, and that of the engine");
}

#[tokio::test(start_paused = true)]
async fn engine_catches_up_after_a_failed_read() {
    // The first read fails, since no snapshot is prepared, and so the delta does not fit.
    let broken = vec![Ok(Event::Delta(rerouted(11, 6))), Err(Status::unavailable("reset"))];
    // After 30 s without an event the next watch opens.
    let events = vec![Ok(Event::CurrentRevision(11))];
    let source = watches(vec![broken, events.clone(), events]);
    let (mut watching, engine) = watching_with_engine(source);
    watching.until(|now| now.catalog.revision().get() == 11).await;
    assert_eq!(at(&engine), (0, None));
    watching.source.snapshots.lock().push_back(routed(11, 6));
    let caught_up = async {
        while at(&engine) != (6, Some(6)) {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(600), caught_up).await.unwrap();
    assert_eq!(watching.requests.reads().snapshots, 3);
}
