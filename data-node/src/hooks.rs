//! Configured hooks of the catalog: created on this node, put into the registry that its regions call,
//! and reported to the meta service. The registry also receives the names of tables, for events.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tidewater_common::ids::TableId;
use tidewater_proto::v1::{self, watch_event::Event};
use tidewater_region_engine::hooks::{
    self, DurableHook, HookHome, HookKinds, HookRegistration, HookSetupError, HookSpec,
};
use tidewater_region_engine::{Plugins, RegionHookRef};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::meters;

/// Interval of attempts to create hooks that could not be created.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);

/// Creates broken hooks as soon as it is possible, until the node closes.
pub async fn retry_broken(hooks: Arc<NodeHooks>, closing: CancellationToken) {
    while closing.run_until_cancelled(sleep(RETRY_INTERVAL)).await.is_some() {
        let hooks = hooks.clone();
        // A file system that hangs delays only the next attempt.
        let retried = tokio::task::spawn_blocking(move || hooks.retry_broken());
        if let Some(Err(problem)) = closing.run_until_cancelled(retried).await {
            warn!(%problem, "failed to create broken hooks again");
        }
    }
}

/// Keeps the registry of hooks in line with the catalog.
#[derive(Debug)]
pub struct NodeHooks {
    kinds: HookKinds,
    home: HookHome,
    plugins: Plugins,
    known: Mutex<BTreeMap<String, CatalogHook>>,
    /// Undelivered manifest versions of durable hooks, by name.
    lags: Mutex<BTreeMap<String, u64>>,
}

/// Hook of the catalog, and its state on this node.
#[derive(Debug)]
struct CatalogHook {
    hook: v1::Hook,
    /// Error of its creation on this node.
    broken: Option<HookSetupError>,
}

/// Change of the registry that brings one hook in line with the catalog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HookChange {
    None,
    Create,
    Recreate,
    SetPaused(bool),
}

/// Returns the change for a hook. Each configuration has its own generation: the name alone does not
/// identify it.
fn hook_change(current: Option<&v1::Hook>, target: &v1::Hook) -> HookChange {
    match current {
        None => HookChange::Create,
        Some(current) if current.generation != target.generation => HookChange::Recreate,
        Some(current) if current.paused != target.paused => HookChange::SetPaused(target.paused),
        Some(_) => HookChange::None,
    }
}

impl NodeHooks {
    /// Starts without hooks. `plugins`: the registry that the node's regions call.
    pub fn new(kinds: HookKinds, home: HookHome, plugins: Plugins) -> Self {
        Self { kinds, home, plugins, known: Mutex::default(), lags: Mutex::default() }
    }

    /// Applies an event of the catalog watch.
    pub fn follow(&self, event: &Event) {
        match event {
            Event::Snapshot(snapshot) => {
                let tables = snapshot.tables.iter().map(|table| TableId(table.table_id)).collect();
                self.plugins.retain_table_names(&tables);
                self.set_table_names(&snapshot.tables);
                let names: BTreeSet<&str> =
                    snapshot.hooks.iter().map(|hook| hook.name.as_str()).collect();
                let mut known = self.known.lock();
                let removed: Vec<String> =
                    known.keys().filter(|name| !names.contains(name.as_str())).cloned().collect();
                for name in removed {
                    self.remove(&mut known, &name);
                }
                for hook in &snapshot.hooks {
                    self.put(&mut known, hook);
                }
            }
            Event::Delta(delta) => {
                for table in &delta.table_deletes {
                    self.plugins.set_table_name(TableId(*table), None);
                }
                self.set_table_names(&delta.table_upserts);
                let mut known = self.known.lock();
                for name in &delta.hook_deletes {
                    self.remove(&mut known, name);
                }
                for hook in &delta.hook_upserts {
                    self.put(&mut known, hook);
                }
            }
            Event::CurrentRevision(_) => {}
        }
    }

    /// Tries again to create the hooks that could not be created: a file that they need may exist by now.
    /// Blocking.
    pub fn retry_broken(&self) {
        let broken: Vec<v1::Hook> = {
            let known = self.known.lock();
            let broken = known.values().filter(|known| known.broken.is_some());
            broken.map(|known| known.hook.clone()).collect()
        };
        for hook in broken {
            // Without the lock: a file system may be slow.
            let created = spec(&hook).and_then(|spec| self.kinds.make(&spec, self.home));
            let mut known = self.known.lock();
            let Some(current) = known.get_mut(&hook.name) else { continue };
            if current.hook.generation != hook.generation || current.broken.is_none() {
                continue;
            }
            let registered = created.and_then(|created| self.insert(&current.hook, created));
            if registered.is_ok() {
                info!(hook = %hook.name, kind = %hook.kind, "hook created");
            }
            current.broken = registered.err();
        }
    }

    fn set_table_names(&self, tables: &[v1::Table]) {
        for table in tables {
            self.plugins.set_table_name(TableId(table.table_id), Some(&table.name));
        }
    }

    /// Returns the name of a table of the catalog.
    pub fn table_name(&self, table: TableId) -> Option<Arc<str>> {
        self.plugins.table_name(table)
    }

    /// Returns the status of every hook of the catalog on this node.
    pub fn reports(&self) -> Vec<v1::HookReport> {
        let status: BTreeMap<String, hooks::HookStatus> =
            self.plugins.status().into_iter().map(|hook| (hook.name.clone(), hook)).collect();
        let lags = self.lags.lock().clone();
        let known = self.known.lock();
        let with_lag = |known: &CatalogHook| {
            let mut report = report(known, status.get(&known.hook.name));
            if known.hook.durable {
                report.backlog = lags.get(&known.hook.name).copied().unwrap_or(0);
            }
            report
        };
        known.values().map(with_lag).collect()
    }

    /// Returns the durable hooks of the catalog with their generations, including those that could not
    /// be created on this node.
    pub fn durable_hooks(&self) -> BTreeSet<(String, u64)> {
        let known = self.known.lock();
        let durable = known.values().map(|known| &known.hook).filter(|hook| hook.durable);
        durable.map(|hook| (hook.name.clone(), hook.generation)).collect()
    }

    /// Returns a durable hook if the catalog has it in this generation and it could be created on this
    /// node.
    pub fn durable(&self, name: &str, generation: u64) -> Option<DurableHook> {
        let known = self.known.lock();
        let hook = known.get(name)?;
        if hook.hook.generation != generation || hook.broken.is_some() {
            return None;
        }
        self.plugins.durable(name)
    }

    /// Returns the hooks that a compactor has to call for a table: those that are not durable, not
    /// paused, and could be created on this node.
    pub fn hook_specs(&self, table: TableId) -> Vec<HookSpec> {
        let known = self.known.lock();
        let is_called = |known: &&CatalogHook| {
            let hook = &known.hook;
            let sees_table = hook.table_id == 0 || TableId(hook.table_id) == table;
            sees_table && known.broken.is_none() && !hook.paused && !hook.durable
        };
        // The configuration of a hook that was created is readable.
        known.values().filter(is_called).filter_map(|known| spec(&known.hook).ok()).collect()
    }

    /// Sets the number of undelivered manifest versions of durable hooks, by name.
    pub fn set_lags(&self, lags: BTreeMap<String, u64>) {
        let mut known = self.lags.lock();
        for name in known.keys().filter(|name| !lags.contains_key(*name)) {
            meters::set_hook_lag(name, 0);
        }
        for (name, versions) in &lags {
            meters::set_hook_lag(name, *versions);
        }
        *known = lags;
    }

    fn put(&self, known: &mut BTreeMap<String, CatalogHook>, hook: &v1::Hook) {
        match hook_change(known.get(&hook.name).map(|known| &known.hook), hook) {
            HookChange::None => {}
            HookChange::Create => self.create(known, hook),
            HookChange::Recreate => {
                self.remove(known, &hook.name);
                self.create(known, hook);
            }
            HookChange::SetPaused(paused) => {
                if let Some(known) = known.get_mut(&hook.name) {
                    known.hook.paused = paused;
                    if known.broken.is_none() {
                        self.plugins.set_paused(&hook.name, paused);
                    }
                }
            }
        }
    }

    fn create(&self, known: &mut BTreeMap<String, CatalogHook>, hook: &v1::Hook) {
        let broken = self.register(hook).err();
        match &broken {
            None => info!(hook = %hook.name, kind = %hook.kind, "hook created"),
            Some(problem) => {
                warn!(hook = %hook.name, %problem, "failed to create hook; it is not called on this node")
            }
        }
        known.insert(hook.name.clone(), CatalogHook { hook: hook.clone(), broken });
    }

    fn register(&self, hook: &v1::Hook) -> Result<(), HookSetupError> {
        let created = self.kinds.make(&spec(hook)?, self.home)?;
        self.insert(hook, created)
    }

    fn insert(&self, hook: &v1::Hook, created: RegionHookRef) -> Result<(), HookSetupError> {
        self.plugins.insert(HookRegistration {
            name: hook.name.clone(),
            kind: Some(hook.kind.clone()),
            table: (hook.table_id != 0).then_some(TableId(hook.table_id)),
            paused: hook.paused,
            durable: hook.durable,
            hook: created,
        })
    }

    fn remove(&self, known: &mut BTreeMap<String, CatalogHook>, name: &str) {
        let Some(removed) = known.remove(name) else { return };
        // The name of a broken hook may belong to a hook that the embedding program registered.
        if removed.broken.is_none() {
            self.plugins.remove(name);
            info!(hook = name, "hook removed");
        }
    }
}

fn spec(hook: &v1::Hook) -> Result<HookSpec, HookSetupError> {
    let bad = |error: serde_json::Error| HookSetupError::BadConfig {
        name: hook.name.clone(),
        kind: hook.kind.clone(),
        detail: error.to_string(),
    };
    Ok(HookSpec {
        name: hook.name.clone(),
        kind: hook.kind.clone(),
        config: serde_json::from_str(&hook.config).map_err(bad)?,
        durable: hook.durable,
        generation: hook.generation,
    })
}

fn report(known: &CatalogHook, status: Option<&hooks::HookStatus>) -> v1::HookReport {
    let name = known.hook.name.clone();
    let generation = known.hook.generation;
    let broken = |problem: String| v1::HookReport {
        name: name.clone(),
        generation,
        state: v1::HookState::Broken.into(),
        last_error: problem,
        ..v1::HookReport::default()
    };
    match (&known.broken, status) {
        (Some(problem), _) => broken(problem.to_string()),
        (None, None) => broken("the hook is not registered".to_owned()),
        (None, Some(status)) => v1::HookReport {
            name: name.clone(),
            generation,
            state: match status.state {
                hooks::HookState::Active => v1::HookState::Active,
                hooks::HookState::Paused => v1::HookState::Paused,
                hooks::HookState::Suspended => v1::HookState::Suspended,
            }
            .into(),
            calls: status.calls,
            failures: status.failures,
            skipped: status.skipped,
            backlog: status.backlog,
            last_error: status.last_error.clone().unwrap_or_default(),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tidewater_common::ids::NodeId;
    use tidewater_hook_kinds::HookAccess;

    use super::*;

    fn hook(name: &str, generation: u64) -> v1::Hook {
        v1::Hook {
            name: name.into(),
            kind: "jsonl".into(),
            config: r#"{"path":"/tmp/x"}"#.into(),
            table_id: 0,
            paused: false,
            generation,
            durable: false,
        }
    }

    fn node() -> (NodeHooks, Plugins) {
        let plugins = Plugins::default();
        let home = HookHome { role: "data", node_id: NodeId(101) };
        let access = HookAccess::new(Some(Path::new("/tmp")), None, false, &[]).unwrap();
        let kinds = tidewater_hook_kinds::builtin(access);
        (NodeHooks::new(kinds, home, plugins.clone()), plugins)
    }

    fn snapshot(hooks: Vec<v1::Hook>) -> Event {
        Event::Snapshot(v1::CatalogSnapshot { hooks, ..Default::default() })
    }

    fn states(node: &NodeHooks) -> Vec<(String, v1::HookState)> {
        node.reports().iter().map(|hook| (hook.name.clone(), hook.state())).collect()
    }

    fn names(plugins: &Plugins) -> Vec<String> {
        plugins.status().into_iter().map(|hook| hook.name).collect()
    }

    #[test]
    fn registry_follows_the_catalog() {
        let (node, plugins) = node();
        node.follow(&snapshot(vec![hook("a", 1), hook("b", 2)]));
        assert_eq!(names(&plugins), ["a", "b"]);
        let delta = v1::CatalogDelta {
            hook_upserts: vec![v1::Hook { paused: true, ..hook("b", 2) }, hook("c", 3)],
            hook_deletes: vec!["a".into()],
            ..Default::default()
        };
        node.follow(&Event::Delta(delta));
        assert_eq!(names(&plugins), ["b", "c"]);
        assert_eq!(plugins.status()[0].state, hooks::HookState::Paused);
        // A snapshot removes the hooks that it does not list, without a delta.
        node.follow(&snapshot(vec![hook("b", 2)]));
        assert_eq!(names(&plugins), ["b"]);
        assert_eq!(plugins.status()[0].state, hooks::HookState::Active);
    }

    #[test]
    fn hook_with_another_generation_is_another_hook() {
        let (node, plugins) = node();
        node.follow(&snapshot(vec![hook("a", 1)]));
        let other = v1::Hook { table_id: 7, ..hook("a", 5) };
        node.follow(&snapshot(vec![other]));
        assert_eq!(plugins.status()[0].table, Some(TableId(7)));
        assert_eq!(node.reports()[0].generation, 5);
    }

    #[test]
    fn broken_hook_is_reported_and_replaces_no_other() {
        let (node, plugins) = node();
        let unknown = v1::Hook { kind: "other".into(), ..hook("a", 1) };
        let malformed = v1::Hook { config: "{".into(), ..hook("b", 1) };
        node.follow(&snapshot(vec![unknown, malformed, hook("c", 1)]));
        use v1::HookState::{Active, Broken};
        assert_eq!(
            states(&node),
            [("a".to_owned(), Broken), ("b".to_owned(), Broken), ("c".to_owned(), Active)]
        );
        assert!(node.reports()[0].last_error.contains("unknown kind"));
        // A hook that the program registered under the name stays when the broken one is removed.
        let own = hooks::HookRegistration { name: "d".into(), ..own_hook() };
        plugins.insert(own).unwrap();
        node.follow(&snapshot(vec![hook("d", 9)]));
        assert_eq!(states(&node), [("d".to_owned(), Broken)]);
        node.follow(&snapshot(vec![]));
        assert_eq!(names(&plugins), ["d"]);
    }

    #[tokio::test]
    async fn broken_hook_is_created_when_its_file_appears() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let plugins = Plugins::default();
        let home = HookHome { role: "data", node_id: NodeId(101) };
        let access = HookAccess::new(None, Some(&root), true, &[]).unwrap();
        let kinds = tidewater_hook_kinds::builtin(access);
        let node = NodeHooks::new(kinds, home, plugins.clone());
        let secret = root.join("later/secret");
        let config = serde_json::json!({ "url": "http://127.0.0.1:1/", "secret_file": secret });
        let webhook = |name: &str, durable| v1::Hook {
            kind: "webhook".into(),
            config: config.to_string(),
            durable,
            ..hook(name, 1)
        };
        let unknown = v1::Hook { kind: "other".into(), ..hook("c", 1) };
        node.follow(&snapshot(vec![webhook("a", true), webhook("b", false), unknown]));
        use v1::HookState::{Active, Broken};
        let of =
            |state| [("a".to_owned(), state), ("b".to_owned(), state), ("c".to_owned(), Broken)];
        node.retry_broken();
        assert_eq!(states(&node), of(Broken));
        assert!(node.durable("a", 1).is_none() && node.hook_specs(TableId(1)).is_empty());
        std::fs::create_dir(root.join("later")).unwrap();
        std::fs::write(&secret, "key").unwrap();
        node.retry_broken();
        assert_eq!(states(&node), of(Active));
        assert!(node.durable("a", 1).is_some());
        assert_eq!(node.hook_specs(TableId(1)).len(), 1);
        node.follow(&snapshot(vec![]));
        node.retry_broken();
        assert_eq!(names(&plugins), [""; 0]);
    }

    #[test]
    fn durable_hooks_have_a_generation_and_a_lag() {
        let (node, plugins) = node();
        let durable = v1::Hook { durable: true, ..hook("a", 3) };
        let broken =
            v1::Hook { kind: "other".into(), ..v1::Hook { durable: true, ..hook("b", 4) } };
        node.follow(&snapshot(vec![durable, broken, hook("c", 5)]));
        assert_eq!(node.durable_hooks(), BTreeSet::from([("a".into(), 3), ("b".into(), 4)]));
        assert!(node.durable("a", 3).is_some() && plugins.durable("a").is_some());
        for (name, generation) in [("a", 2), ("b", 4), ("c", 5), ("d", 3)] {
            assert!(node.durable(name, generation).is_none(), "{name}");
        }
        node.set_lags(BTreeMap::from([("a".into(), 7), ("c".into(), 9)]));
        let backlogs: Vec<u64> = node.reports().iter().map(|hook| hook.backlog).collect();
        assert_eq!(backlogs, [7, 0, 0]);
    }

    #[test]
    fn table_names_follow_the_catalog() {
        let (node, plugins) = node();
        let table =
            |table_id, name: &str| v1::Table { table_id, name: name.into(), ..Default::default() };
        let tables = vec![table(3, "flights"), table(4, "hosts")];
        node.follow(&Event::Snapshot(v1::CatalogSnapshot { tables, ..Default::default() }));
        let name = |id| plugins.table_name(TableId(id)).map(|name| name.to_string());
        let text = |text: &str| Some(text.to_owned());
        assert_eq!((name(3), name(4), name(5)), (text("flights"), text("hosts"), None));
        let delta = v1::CatalogDelta {
            table_upserts: vec![table(5, "new")],
            table_deletes: vec![4],
            ..Default::default()
        };
        node.follow(&Event::Delta(delta));
        assert_eq!((name(3), name(4), name(5)), (text("flights"), None, text("new")));
        let tables = vec![table(5, "new")];
        node.follow(&Event::Snapshot(v1::CatalogSnapshot { tables, ..Default::default() }));
        assert_eq!((name(3), node.table_name(TableId(5)).as_deref()), (None, Some("new")));
    }

    fn own_hook() -> hooks::HookRegistration {
        #[derive(Debug)]
        struct Own;
        impl hooks::RegionHook for Own {}
        let hook: hooks::RegionHookRef = std::sync::Arc::new(Own);
        hook.into()
    }
}
