//! Hooks created from lists of configurations in requests. Equal configurations share one hook
//! across lists and requests, so that its queue and its failures are kept in between.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::error::HookSetupError;
use super::kinds::{HookHome, HookKinds, HookSpec};
use super::plugins::Plugins;
use super::registration::HookRegistration;
use super::shield::{HookStatus, ShieldedHook};
use super::suspension::{HookLimits, SuspensionCallback};

/// Maximum number of cached hooks; above it, the least recently used are dropped.
const MAX_CACHED: usize = 1_024;
/// Maximum number of hooks in one list, the same as in a catalog.
pub const MAX_HOOKS: usize = 256;
/// Time after which an unused hook without backlog is dropped.
const IDLE_LIFETIME: Duration = Duration::from_secs(10 * 60);
/// Time after which an unused hook with a backlog is dropped: its receiver is down, and perhaps the
/// hook was removed.
const IDLE_LIFETIME_WITH_BACKLOG: Duration = Duration::from_secs(60 * 60);

/// Cache of hooks created from configurations.
#[derive(Debug)]
pub struct HookSets {
    kinds: HookKinds,
    home: HookHome,
    limits: HookLimits,
    on_suspension: Option<Arc<dyn SuspensionCallback>>,
    /// The most recently used at the end.
    cached: Mutex<Vec<CachedHook>>,
}

#[derive(Debug, Clone)]
struct CachedHook {
    spec: HookSpec,
    hook: Arc<ShieldedHook>,
    last_used: Instant,
}

impl HookSets {
    /// Creates an empty cache of hooks of these kinds for this node.
    pub fn new(kinds: HookKinds, home: HookHome, limits: HookLimits) -> Self {
        Self { kinds, home, limits, on_suspension: None, cached: Mutex::default() }
    }

    /// Reports the suspensions of hooks that are created from now on to a callback.
    #[must_use]
    pub fn with_callback(self, callback: Arc<dyn SuspensionCallback>) -> Self {
        Self { on_suspension: Some(callback), ..self }
    }

    /// Returns a registry with exactly the hooks of a list.
    ///
    /// # Errors
    /// [`HookSetupError`] for the first hook that cannot be created, or when the list has more than
    /// [`MAX_HOOKS`]. The cache is unchanged then.
    pub fn get(&self, specs: &[HookSpec], now: Instant) -> Result<Plugins, HookSetupError> {
        if let Some(excess) = specs.get(MAX_HOOKS) {
            let name = excess.name.clone();
            return Err(HookSetupError::TooMany { name, limit: MAX_HOOKS });
        }
        let mut cached = self.cached.lock();
        let plugins = Plugins::new(self.limits);
        let mut used = Vec::with_capacity(specs.len());
        for spec in specs {
            let hook = match cached.iter().find(|hook| hook.spec == *spec) {
                Some(known) => known.hook.clone(),
                None => Arc::new(self.make(spec)?),
            };
            plugins.share(hook.clone())?;
            used.push(CachedHook { spec: spec.clone(), hook, last_used: now });
        }
        cached.retain(|hook| !specs.contains(&hook.spec));
        cached.extend(used);
        let excess = cached.len().saturating_sub(MAX_CACHED);
        cached.drain(..excess);
        Ok(plugins)
    }

    /// Drops hooks that have been unused for their idle lifetime.
    pub fn forget_unused(&self, now: Instant) {
        self.cached.lock().retain_mut(|cached| {
            // A registry that is in use also holds the hook.
            if Arc::strong_count(&cached.hook) > 1 {
                cached.last_used = now;
            }
            let lifetime = if cached.hook.status().backlog > 0 {
                IDLE_LIFETIME_WITH_BACKLOG
            } else {
                IDLE_LIFETIME
            };
            now.saturating_duration_since(cached.last_used) < lifetime
        });
    }

    /// Returns every cached hook with its configuration.
    pub fn status(&self) -> Vec<(HookSpec, HookStatus)> {
        let cached = self.cached.lock().clone();
        cached.into_iter().map(|cached| (cached.spec, cached.hook.status())).collect()
    }

    fn make(&self, spec: &HookSpec) -> Result<ShieldedHook, HookSetupError> {
        let registration = HookRegistration {
            name: spec.name.clone(),
            kind: Some(spec.kind.clone()),
            table: None,
            paused: false,
            durable: false,
            hook: self.kinds.make(spec, self.home)?,
        };
        let hook = ShieldedHook::new(registration, self.limits);
        Ok(hook.with_callback(self.on_suspension.clone()))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use serde_json::{Value, json};
    use tidewater_common::ids::NodeId;

    use super::*;
    use crate::hooks::{HookKind, HookState, RegionHook, RegionHookRef};

    /// Reports a backlog of this number.
    #[derive(Debug)]
    struct SilentHook(Arc<AtomicU64>);
    impl RegionHook for SilentHook {
        fn backlog(&self) -> u64 {
            self.0.load(Ordering::Relaxed)
        }
    }

    #[derive(Debug, Default)]
    struct SilentKind(Arc<AtomicU64>);
    impl HookKind for SilentKind {
        fn kind(&self) -> &'static str {
            "silent"
        }
        fn check(&self, config: &Value) -> Result<(), String> {
            match config.as_object() {
                Some(fields) if fields.is_empty() => Ok(()),
                _ => Err("it takes no settings".to_owned()),
            }
        }
        fn make(&self, _: &HookSpec, _: HookHome) -> Result<RegionHookRef, String> {
            Ok(Arc::new(SilentHook(self.0.clone())))
        }
    }

    /// Returns sets, and the backlog that their hooks report.
    fn sets() -> (HookSets, Arc<AtomicU64>) {
        let mut kinds = HookKinds::default();
        let queued = Arc::default();
        kinds.register(Arc::new(SilentKind(Arc::clone(&queued)))).unwrap();
        let home = HookHome { role: "compactor", node_id: NodeId(7) };
        (HookSets::new(kinds, home, HookLimits::default()), queued)
    }

    fn spec(name: &str, kind: &str, config: Value) -> HookSpec {
        HookSpec {
            name: name.to_owned(),
            kind: kind.to_owned(),
            config,
            durable: false,
            generation: 1,
        }
    }

    fn silent(name: &str) -> HookSpec {
        spec(name, "silent", json!({}))
    }

    /// Returns names, each with `true` if the hook is paused.
    fn names(plugins: &Plugins) -> Vec<(String, bool)> {
        let is_paused = |status: &HookStatus| status.state == HookState::Paused;
        plugins
            .status()
            .into_iter()
            .map(|status| (status.name.clone(), is_paused(&status)))
            .collect()
    }

    #[test]
    fn equal_configurations_share_a_hook_across_lists() {
        let (sets, _) = sets();
        let now = Instant::now();
        let get = |specs: &[HookSpec]| names(&sets.get(specs, now).unwrap());
        let a = silent("a");
        let b = silent("b");
        let paused = ("a".to_owned(), true);
        let active = ("b".to_owned(), false);
        sets.get(&[a.clone(), b.clone()], now).unwrap().set_paused("a", true);
        assert_eq!(get(&[b.clone(), a.clone()]), [paused.clone(), active.clone()]);
        assert_eq!(get(std::slice::from_ref(&a)), [paused], "and no others");
        let other = HookSpec { generation: 2, ..a.clone() };
        assert_eq!(get(&[other, b]), [("a".to_owned(), false), active]);
        assert_eq!(sets.status().len(), 3);
        // It is created again once others have evicted it.
        for n in 0..MAX_CACHED {
            get(&[silent(&format!("{n}"))]);
        }
        assert_eq!(sets.status().len(), MAX_CACHED);
        assert_eq!(get(&[a]), [("a".to_owned(), false)]);
    }

    #[test]
    fn unused_hook_is_dropped_unless_it_has_a_backlog() {
        let (sets, queued) = sets();
        let start = Instant::now();
        let list = sets.get(&[silent("a")], start).unwrap();
        sets.forget_unused(start + 9 * IDLE_LIFETIME);
        assert_eq!(sets.status().len(), 1, "an open region uses it");
        drop(list);
        queued.store(1, Ordering::Relaxed);
        sets.forget_unused(start + 9 * IDLE_LIFETIME + IDLE_LIFETIME);
        assert_eq!(sets.status().len(), 1);
        sets.forget_unused(start + 9 * IDLE_LIFETIME + IDLE_LIFETIME_WITH_BACKLOG);
        assert_eq!(sets.status(), []);
        sets.get(&[silent("a")], start).unwrap();
        queued.store(0, Ordering::Relaxed);
        sets.forget_unused(start + IDLE_LIFETIME - Duration::from_secs(1));
        assert_eq!(sets.status().len(), 1);
        sets.forget_unused(start + IDLE_LIFETIME);
        assert_eq!(sets.status(), []);
    }

    #[test]
    fn invalid_hook_is_refused_with_its_name() {
        let (sets, _) = sets();
        let good = silent("a");
        let refused = |specs: &[HookSpec]| sets.get(specs, Instant::now()).unwrap_err().to_string();
        let unknown = refused(&[good.clone(), spec("mine", "loud", json!({}))]);
        assert!(unknown.contains("mine") && unknown.contains("loud"), "{unknown}");
        let bad = refused(&[spec("mine", "silent", json!({"volume": 3}))]);
        assert!(bad.contains("mine") && bad.contains("no settings"), "{bad}");
        assert!(refused(&[good.clone(), good.clone()]).contains("named a "));
        let many: Vec<HookSpec> = (0..=MAX_HOOKS).map(|n| silent(&format!("p{n}"))).collect();
        assert!(refused(&many).contains("p256 "));
        assert_eq!(sets.status(), [], "refused hooks are not cached");
    }
}
