//! Hooks made from lists of configurations that come with a request. A list that comes again gets the
//! same hooks: what they have queued, and how often they failed, is not forgotten in between.

use std::sync::Arc;

use parking_lot::Mutex;

use super::error::PluginError;
use super::kinds::{HookHome, HookKinds, PluginSpec};
use super::plugins::{Plugin, Plugins};
use super::shield::HookStatus;
use super::suspension::HookLimits;

/// Lists whose hooks are kept; of more, those go that were not asked for the longest.
const MOST_SETS: usize = 64;
/// Hooks of one list.
pub const MOST_PLUGINS: usize = 64;

/// See the module's head.
#[derive(Debug)]
pub struct PluginSets {
    kinds: HookKinds,
    home: HookHome,
    limits: HookLimits,
    /// The one asked for last at the end.
    made: Mutex<Vec<Arc<Made>>>,
}

#[derive(Debug)]
struct Made {
    specs: Vec<PluginSpec>,
    plugins: Plugins,
}

impl PluginSets {
    /// Hooks of these kinds, made for this node.
    pub fn new(kinds: HookKinds, home: HookHome, limits: HookLimits) -> Self {
        Self { kinds, home, limits, made: Mutex::default() }
    }

    /// The hooks of a list, and no others.
    ///
    /// # Errors
    /// [`PluginError`] for the first that cannot be made, or when there are more than
    /// [`MOST_PLUGINS`].
    pub fn get(&self, specs: &[PluginSpec]) -> Result<Plugins, PluginError> {
        let mut made = self.made.lock();
        if let Some(at) = made.iter().position(|one| one.specs == specs) {
            let found = made.remove(at);
            made.push(found.clone());
            return Ok(found.plugins.clone());
        }
        if let Some(excess) = specs.get(MOST_PLUGINS) {
            let name = excess.name.clone();
            return Err(PluginError::TooMany { name, most: MOST_PLUGINS });
        }
        let plugins = Plugins::new(self.limits);
        for spec in specs {
            plugins.insert(Plugin {
                name: spec.name.clone(),
                kind: Some(spec.kind.clone()),
                table: None,
                paused: false,
                durable: false,
                hook: self.kinds.make(spec, self.home)?,
            })?;
        }
        if made.len() == MOST_SETS {
            made.remove(0);
        }
        made.push(Arc::new(Made { specs: specs.to_vec(), plugins: plugins.clone() }));
        Ok(plugins)
    }

    /// Every hook that was made and is kept, with what made it; one for each list that has it.
    pub fn status(&self) -> Vec<(PluginSpec, HookStatus)> {
        let made = self.made.lock().clone();
        let of = |one: &Arc<Made>| {
            let status = one.plugins.status();
            let spec = |name: &str| one.specs.iter().find(|spec| spec.name == name).cloned();
            status
                .into_iter()
                .filter_map(|status| Some((spec(&status.name)?, status)))
                .collect::<Vec<_>>()
        };
        made.iter().flat_map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use tidewater_common::ids::NodeId;

    use super::*;
    use crate::hooks::{HookKind, HookState, RegionHook, RegionHookRef};

    #[derive(Debug)]
    struct Silent;
    impl RegionHook for Silent {}
    impl HookKind for Silent {
        fn kind(&self) -> &'static str {
            "silent"
        }
        fn check(&self, config: &Value) -> Result<(), String> {
            match config.as_object() {
                Some(fields) if fields.is_empty() => Ok(()),
                _ => Err("it takes no settings".to_owned()),
            }
        }
        fn make(&self, _: &PluginSpec, _: HookHome) -> Result<RegionHookRef, String> {
            Ok(Arc::new(Silent))
        }
    }

    fn sets() -> PluginSets {
        let mut kinds = HookKinds::default();
        kinds.register(Arc::new(Silent)).unwrap();
        let home = HookHome { role: "compactor", node_id: NodeId(7) };
        PluginSets::new(kinds, home, HookLimits::default())
    }

    fn spec(name: &str, kind: &str, config: Value) -> PluginSpec {
        let (name, kind) = (name.to_owned(), kind.to_owned());
        PluginSpec { name, kind, config, durable: false, generation: 1 }
    }

    #[test]
    fn a_list_that_comes_again_gets_the_same_hooks() {
        let sets = sets();
        let (a, b) = (spec("a", "silent", json!({})), spec("b", "silent", json!({})));
        let both = sets.get(&[a.clone(), b.clone()]).unwrap();
        both.set_paused("a", true);
        let names = |plugins: &Plugins| -> Vec<(String, bool)> {
            let paused = |one: &HookStatus| one.state == HookState::Paused;
            plugins.status().into_iter().map(|one| (one.name.clone(), paused(&one))).collect()
        };
        let expected = vec![("a".to_owned(), true), ("b".to_owned(), false)];
        assert_eq!(names(&sets.get(&[a.clone(), b.clone()]).unwrap()), expected);
        assert_eq!(names(&sets.get(std::slice::from_ref(&a)).unwrap()), [("a".to_owned(), false)]);
        let other = PluginSpec { generation: 2, ..a.clone() };
        assert_eq!(names(&sets.get(&[other, b]).unwrap())[0], ("a".to_owned(), false));
        assert_eq!(sets.status().len(), 5);
        // It is made anew once others have pushed it out.
        for n in 0..MOST_SETS {
            sets.get(&[spec(&format!("{n}"), "silent", json!({}))]).unwrap();
        }
        assert_eq!(sets.status().len(), MOST_SETS);
        assert_eq!(names(&sets.get(&[a]).unwrap()), [("a".to_owned(), false)]);
    }

    #[test]
    fn what_cannot_be_made_is_refused_with_its_name() {
        let sets = sets();
        let good = spec("a", "silent", json!({}));
        let refused = |specs: &[PluginSpec]| sets.get(specs).unwrap_err().to_string();
        let unknown = refused(&[good.clone(), spec("mine", "loud", json!({}))]);
        assert!(unknown.contains("mine") && unknown.contains("loud"), "{unknown}");
        let bad = refused(&[spec("mine", "silent", json!({"volume": 3}))]);
        assert!(bad.contains("mine") && bad.contains("no settings"), "{bad}");
        assert!(refused(&[good.clone(), good.clone()]).contains("named a "));
        let many: Vec<PluginSpec> =
            (0..=MOST_PLUGINS).map(|n| spec(&format!("p{n}"), "silent", json!({}))).collect();
        assert!(refused(&many).contains("p64 "));
        assert_eq!(sets.status(), [], "nothing is kept of what was refused");
    }
}
