//! Hooks made from lists of configurations that come with a request. A configuration that comes again,
//! in whatever list, gets the same hook: what it has queued, and how often it failed, is not forgotten
//! in between.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::error::HookSetupError;
use super::kinds::{HookHome, HookKinds, HookSpec};
use super::plugins::{HookRegistration, Plugins};
use super::shield::{HookStatus, ShieldedHook};
use super::suspension::HookLimits;

/// Hooks that are kept; of more, those go that were not asked for the longest.
const MAX_CACHED: usize = 1_024;
/// Hooks of one list: as many as a catalog may have.
pub const MAX_HOOKS: usize = 256;
/// A hook that nobody has asked for so long, and that has nothing queued, goes.
const IDLE_LIFETIME: Duration = Duration::from_secs(10 * 60);
/// So does one that has something queued, after this: its receiver is gone, and perhaps it was removed.
const IDLE_LIFETIME_WITH_BACKLOG: Duration = Duration::from_secs(60 * 60);

/// See the module's head.
#[derive(Debug)]
pub struct HookSets {
    kinds: HookKinds,
    home: HookHome,
    limits: HookLimits,
    /// The one asked for last at the end.
    kept: Mutex<Vec<CachedHook>>,
}

#[derive(Debug, Clone)]
struct CachedHook {
    spec: HookSpec,
    hook: Arc<ShieldedHook>,
    asked: Instant,
}

impl HookSets {
    /// Hooks of these kinds, made for this node.
    pub fn new(kinds: HookKinds, home: HookHome, limits: HookLimits) -> Self {
        Self { kinds, home, limits, kept: Mutex::default() }
    }

    /// The hooks of a list, and no others.
    ///
    /// # Errors
    /// [`HookSetupError`] for the first that cannot be made, or when there are more than
    /// [`MAX_HOOKS`]. Nothing is kept then that was not before.
    pub fn get(&self, specs: &[HookSpec], now: Instant) -> Result<Plugins, HookSetupError> {
        if let Some(excess) = specs.get(MAX_HOOKS) {
            let name = excess.name.clone();
            return Err(HookSetupError::TooMany { name, most: MAX_HOOKS });
        }
        let mut kept = self.kept.lock();
        let plugins = Plugins::new(self.limits);
        let mut asked_for = Vec::with_capacity(specs.len());
        for spec in specs {
            let hook = match kept.iter().find(|one| one.spec == *spec) {
                Some(known) => known.hook.clone(),
                None => Arc::new(self.make(spec)?),
            };
            plugins.share(hook.clone())?;
            asked_for.push(CachedHook { spec: spec.clone(), hook, asked: now });
        }
        kept.retain(|one| !specs.contains(&one.spec));
        kept.extend(asked_for);
        let excess = kept.len().saturating_sub(MAX_CACHED);
        kept.drain(..excess);
        Ok(plugins)
    }

    /// Lets go of hooks that nobody has asked for in a long time.
    pub fn forget_unused(&self, now: Instant) {
        self.kept.lock().retain_mut(|one| {
            // A list that is in use has it as well.
            if Arc::strong_count(&one.hook) > 1 {
                one.asked = now;
            }
            let life = if one.hook.status().backlog > 0 {
                IDLE_LIFETIME_WITH_BACKLOG
            } else {
                IDLE_LIFETIME
            };
            now.saturating_duration_since(one.asked) < life
        });
    }

    /// Every hook that was made and is kept, with what made it.
    pub fn status(&self) -> Vec<(HookSpec, HookStatus)> {
        let kept = self.kept.lock().clone();
        kept.into_iter().map(|one| (one.spec, one.hook.status())).collect()
    }

    fn make(&self, spec: &HookSpec) -> Result<ShieldedHook, HookSetupError> {
        let plugin = HookRegistration {
            name: spec.name.clone(),
            kind: Some(spec.kind.clone()),
            table: None,
            paused: false,
            durable: false,
            hook: self.kinds.make(spec, self.home)?,
        };
        Ok(ShieldedHook::new(plugin, self.limits))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use serde_json::{Value, json};
    use tidewater_common::ids::NodeId;

    use super::*;
    use crate::hooks::{HookKind, HookState, RegionHook, RegionHookRef};

    /// Has so much queued as the number says.
    #[derive(Debug)]
    struct Silent(Arc<AtomicU64>);
    impl RegionHook for Silent {
        fn backlog(&self) -> u64 {
            self.0.load(Ordering::Relaxed)
        }
    }

    #[derive(Debug, Default)]
    struct Silence(Arc<AtomicU64>);
    impl HookKind for Silence {
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
            Ok(Arc::new(Silent(self.0.clone())))
        }
    }

    /// With what their hooks have queued.
    fn sets() -> (HookSets, Arc<AtomicU64>) {
        let (mut kinds, queued) = (HookKinds::default(), Arc::default());
        kinds.register(Arc::new(Silence(Arc::clone(&queued)))).unwrap();
        let home = HookHome { role: "compactor", node_id: NodeId(7) };
        (HookSets::new(kinds, home, HookLimits::default()), queued)
    }

    fn spec(name: &str, kind: &str, config: Value) -> HookSpec {
        let (name, kind) = (name.to_owned(), kind.to_owned());
        HookSpec { name, kind, config, durable: false, generation: 1 }
    }

    fn silent(name: &str) -> HookSpec {
        spec(name, "silent", json!({}))
    }

    /// Names, and which are paused.
    fn names(plugins: &Plugins) -> Vec<(String, bool)> {
        let paused = |one: &HookStatus| one.state == HookState::Paused;
        plugins.status().into_iter().map(|one| (one.name.clone(), paused(&one))).collect()
    }

    #[test]
    fn a_configuration_that_comes_again_gets_the_same_hook_in_whatever_list() {
        let (sets, _) = sets();
        let now = Instant::now();
        let get = |specs: &[HookSpec]| names(&sets.get(specs, now).unwrap());
        let (a, b) = (silent("a"), silent("b"));
        let (paused, active) = (("a".to_owned(), true), ("b".to_owned(), false));
        sets.get(&[a.clone(), b.clone()], now).unwrap().set_paused("a", true);
        assert_eq!(get(&[b.clone(), a.clone()]), [paused.clone(), active.clone()]);
        assert_eq!(get(std::slice::from_ref(&a)), [paused], "and no others");
        let other = HookSpec { generation: 2, ..a.clone() };
        assert_eq!(get(&[other, b]), [("a".to_owned(), false), active]);
        assert_eq!(sets.status().len(), 3);
        // It is made anew once others have pushed it out.
        for n in 0..MAX_CACHED {
            get(&[silent(&format!("{n}"))]);
        }
        assert_eq!(sets.status().len(), MAX_CACHED);
        assert_eq!(get(&[a]), [("a".to_owned(), false)]);
    }

    #[test]
    fn a_hook_goes_that_nobody_asks_for_but_not_what_it_has_queued() {
        let (sets, queued) = sets();
        let begun = Instant::now();
        let list = sets.get(&[silent("a")], begun).unwrap();
        sets.forget_unused(begun + 9 * IDLE_LIFETIME);
        assert_eq!(sets.status().len(), 1, "a region that is open has it");
        drop(list);
        queued.store(1, Ordering::Relaxed);
        sets.forget_unused(begun + 9 * IDLE_LIFETIME + IDLE_LIFETIME);
        assert_eq!(sets.status().len(), 1);
        sets.forget_unused(begun + 9 * IDLE_LIFETIME + IDLE_LIFETIME_WITH_BACKLOG);
        assert_eq!(sets.status(), []);
        sets.get(&[silent("a")], begun).unwrap();
        queued.store(0, Ordering::Relaxed);
        sets.forget_unused(begun + IDLE_LIFETIME - Duration::from_secs(1));
        assert_eq!(sets.status().len(), 1);
        sets.forget_unused(begun + IDLE_LIFETIME);
        assert_eq!(sets.status(), []);
    }

    #[test]
    fn what_cannot_be_made_is_refused_with_its_name() {
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
        assert_eq!(sets.status(), [], "nothing is kept of what was refused");
    }
}
