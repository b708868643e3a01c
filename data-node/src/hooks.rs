//! Hooks by configuration, as the catalog has them: made here, put into the registry that the
//! regions of this node call, and reported on.

use std::collections::{BTreeMap, BTreeSet};

use parking_lot::Mutex;
use tidewater_common::ids::TableId;
use tidewater_proto::v1::{self, watch_event::Event};
use tidewater_region_engine::Plugins;
use tidewater_region_engine::hooks::{
    self, DurableHook, HookHome, HookKinds, HookRegistration, HookSetupError, HookSpec,
};
use tracing::{info, warn};

use crate::meters;

/// Keeps the registry as the catalog wants it.
#[derive(Debug)]
pub struct NodeHooks {
    kinds: HookKinds,
    home: HookHome,
    plugins: Plugins,
    known: Mutex<BTreeMap<String, Known>>,
    /// Versions that durable hooks have not been told of, by name.
    lags: Mutex<BTreeMap<String, u64>>,
}

/// A hook of the catalog.
#[derive(Debug)]
struct Known {
    hook: v1::Hook,
    /// Why it could not be made.
    broken: Option<HookSetupError>,
}

/// What is to be done so that one hook is as the catalog wants it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Keep,
    Make,
    Remake,
    Pause(bool),
}

/// Another configuration has another generation: names alone say nothing.
fn step(known: Option<&v1::Hook>, wanted: &v1::Hook) -> Step {
    match known {
        None => Step::Make,
        Some(known) if known.generation != wanted.generation => Step::Remake,
        Some(known) if known.paused != wanted.paused => Step::Pause(wanted.paused),
        Some(_) => Step::Keep,
    }
}

impl NodeHooks {
    /// None yet. `plugins` is what the node's regions call.
    pub fn new(kinds: HookKinds, home: HookHome, plugins: Plugins) -> Self {
        Self { kinds, home, plugins, known: Mutex::default(), lags: Mutex::default() }
    }

    /// Takes in what the catalog watch brings.
    pub fn follow(&self, event: &Event) {
        match event {
            Event::Snapshot(snapshot) => {
                let wanted: BTreeSet<&str> =
                    snapshot.hooks.iter().map(|hook| hook.name.as_str()).collect();
                let mut known = self.known.lock();
                let gone: Vec<String> =
                    known.keys().filter(|name| !wanted.contains(name.as_str())).cloned().collect();
                for name in gone {
                    self.remove(&mut known, &name);
                }
                for hook in &snapshot.hooks {
                    self.put(&mut known, hook);
                }
            }
            Event::Delta(delta) => {
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

    /// Every hook of the catalog, as it does here.
    pub fn reports(&self) -> Vec<v1::HookReport> {
        let status: BTreeMap<String, hooks::HookStatus> =
            self.plugins.status().into_iter().map(|one| (one.name.clone(), one)).collect();
        let lags = self.lags.lock().clone();
        let known = self.known.lock();
        let with_lag = |one: &Known| {
            let mut report = report(one, status.get(&one.hook.name));
            if one.hook.durable {
                report.backlog = lags.get(&one.hook.name).copied().unwrap_or(0);
            }
            report
        };
        known.values().map(with_lag).collect()
    }

    /// The durable hooks of the catalog, with their generations; also those that cannot be made here.
    pub fn durable_hooks(&self) -> BTreeSet<(String, u64)> {
        let known = self.known.lock();
        let durable = known.values().filter(|one| one.hook.durable);
        durable.map(|one| (one.hook.name.clone(), one.hook.generation)).collect()
    }

    /// A durable hook, if it is known and could be made here.
    pub fn durable(&self, name: &str, generation: u64) -> Option<DurableHook> {
        let known = self.known.lock();
        let one = known.get(name)?;
        if one.hook.generation != generation || one.broken.is_some() {
            return None;
        }
        self.plugins.durable(name)
    }

    /// The hooks that a compactor is to call for a table: those that are called as things happen, and
    /// could be made here.
    pub fn plugin_specs(&self, table: TableId) -> Vec<HookSpec> {
        let known = self.known.lock();
        let called = |one: &&Known| {
            let sees = one.hook.table_id == 0 || TableId(one.hook.table_id) == table;
            sees && one.broken.is_none() && !one.hook.paused && !one.hook.durable
        };
        // What was made has a configuration that can be read.
        known.values().filter(called).filter_map(|one| spec(&one.hook).ok()).collect()
    }

    /// Notes how many versions durable hooks have not been told of.
    pub fn set_lags(&self, lags: BTreeMap<String, u64>) {
        let mut known = self.lags.lock();
        for name in known.keys().filter(|name| !lags.contains_key(*name)) {
            meters::hook_lag(name, 0);
        }
        for (name, versions) in &lags {
            meters::hook_lag(name, *versions);
        }
        *known = lags;
    }

    fn put(&self, known: &mut BTreeMap<String, Known>, hook: &v1::Hook) {
        match step(known.get(&hook.name).map(|known| &known.hook), hook) {
            Step::Keep => {}
            Step::Make => self.make(known, hook),
            Step::Remake => {
                self.remove(known, &hook.name);
                self.make(known, hook);
            }
            Step::Pause(paused) => {
                if let Some(known) = known.get_mut(&hook.name) {
                    known.hook.paused = paused;
                    if known.broken.is_none() {
                        self.plugins.set_paused(&hook.name, paused);
                    }
                }
            }
        }
    }

    fn make(&self, known: &mut BTreeMap<String, Known>, hook: &v1::Hook) {
        let broken = self.register(hook).err();
        match &broken {
            None => info!(hook = %hook.name, kind = %hook.kind, "a hook is called from here on"),
            Some(problem) => warn!(hook = %hook.name, %problem, "a hook cannot be called here"),
        }
        known.insert(hook.name.clone(), Known { hook: hook.clone(), broken });
    }

    fn register(&self, hook: &v1::Hook) -> Result<(), HookSetupError> {
        let spec = spec(hook)?;
        let made = self.kinds.make(&spec, self.home)?;
        self.plugins.insert(HookRegistration {
            name: spec.name,
            kind: Some(spec.kind),
            table: (hook.table_id != 0).then_some(TableId(hook.table_id)),
            paused: hook.paused,
            durable: hook.durable,
            hook: made,
        })
    }

    fn remove(&self, known: &mut BTreeMap<String, Known>, name: &str) {
        let Some(gone) = known.remove(name) else { return };
        // A broken one may have lost its name to a hook of the program itself.
        if gone.broken.is_none() {
            self.plugins.remove(name);
            info!(hook = name, "a hook is not called any more");
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

fn report(known: &Known, status: Option<&hooks::HookStatus>) -> v1::HookReport {
    let (name, generation) = (known.hook.name.clone(), known.hook.generation);
    let broken = |problem: String| v1::HookReport {
        name: name.clone(),
        generation,
        state: v1::HookState::Broken.into(),
        last_error: problem,
        ..v1::HookReport::default()
    };
    match (&known.broken, status) {
        (Some(problem), _) => broken(problem.to_string()),
        (None, None) => broken("it is not registered".to_owned()),
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
    use tidewater_common::ids::NodeId;

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
        (NodeHooks::new(tidewater_hook_kinds::builtin(), home, plugins.clone()), plugins)
    }

    fn snapshot(hooks: Vec<v1::Hook>) -> Event {
        Event::Snapshot(v1::CatalogSnapshot { hooks, ..Default::default() })
    }

    fn states(node: &NodeHooks) -> Vec<(String, v1::HookState)> {
        node.reports().iter().map(|one| (one.name.clone(), one.state())).collect()
    }

    fn names(plugins: &Plugins) -> Vec<String> {
        plugins.status().into_iter().map(|one| one.name).collect()
    }

    #[test]
    fn the_registry_follows_the_catalog() {
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
        // What a snapshot does not have is gone, though no delta said so.
        node.follow(&snapshot(vec![hook("b", 2)]));
        assert_eq!(names(&plugins), ["b"]);
        assert_eq!(plugins.status()[0].state, hooks::HookState::Active);
    }

    #[test]
    fn the_same_name_with_another_generation_is_another_hook() {
        let (node, plugins) = node();
        node.follow(&snapshot(vec![hook("a", 1)]));
        let other = v1::Hook { table_id: 7, ..hook("a", 5) };
        node.follow(&snapshot(vec![other]));
        assert_eq!(plugins.status()[0].table, Some(TableId(7)));
        assert_eq!(node.reports()[0].generation, 5);
    }

    #[test]
    fn what_cannot_be_made_is_reported_and_takes_nobodys_place() {
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
        // A hook of the program itself that has the name stays when the broken one goes.
        let own = hooks::HookRegistration { name: "d".into(), ..own_hook() };
        plugins.insert(own).unwrap();
        node.follow(&snapshot(vec![hook("d", 9)]));
        assert_eq!(states(&node), [("d".to_owned(), Broken)]);
        node.follow(&snapshot(vec![]));
        assert_eq!(names(&plugins), ["d"]);
    }

    #[test]
    fn a_durable_hook_is_found_by_name_and_generation_and_reports_its_lag() {
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
        let backlogs: Vec<u64> = node.reports().iter().map(|one| one.backlog).collect();
        assert_eq!(backlogs, [7, 0, 0]);
    }

    fn own_hook() -> hooks::HookRegistration {
        #[derive(Debug)]
        struct Own;
        impl hooks::RegionHook for Own {}
        let hook: hooks::RegionHookRef = std::sync::Arc::new(Own);
        hook.into()
    }
}
