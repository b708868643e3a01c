//! Replacement of regions on this replica, as the state has decided: of one by its children, of several by one child.
//!
//! A replica that applies the log late can find a region removed. Its rows are in files of the children then, which
//! begin without any in memory.

use std::io;
use std::sync::Arc;

use tidewater_common::ids::{RegionId, Sequence};
use tidewater_region_engine::region::{DivideError, SealedParent};
use tidewater_region_engine::{EngineError, Region, RegionSpec};

use super::ReplicaState;
use crate::group::hosted::HostedRegion;
use crate::group::state::RegionState;

impl ReplicaState {
    /// Replaces a region by its children, as the state has them. They begin with its rows in memory, and with its
    /// files if this replica has read the seal; otherwise they load them in the background.
    pub fn divide(&self, parent: RegionId, children: &[RegionId]) -> io::Result<()> {
        let states = self.states(children);
        let divided = match self.sealed(parent) {
            None => None,
            Some(sealed) => {
                let specs = states.iter().map(spec).collect();
                let regions = unless_removed(sealed.region.divide(sealed.flushed, specs))?;
                for region in regions.iter().flatten() {
                    region.show_files_of(&[&sealed.region]);
                }
                regions
            }
        };
        self.host_children(states, divided)?;
        self.regions.set_children(parent, children.to_vec());
        Ok(())
    }

    /// Replaces regions, in key order, by one child, as the state has it. All of their rows are in files.
    pub fn merge(&self, parents: &[RegionId], child: RegionId) -> io::Result<()> {
        let states = self.states(&[child]);
        let sealed: Option<Vec<SealedParent>> = parents.iter().map(|id| self.sealed(*id)).collect();
        let merged = match (sealed, states.first()) {
            (Some(sealed), Some(state)) => {
                let merged = unless_removed(Region::merge(&sealed, spec(state)))?;
                if let Some(region) = &merged {
                    let of: Vec<&Region> = sealed.iter().map(|of| of.region.as_ref()).collect();
                    region.show_files_of(&of);
                }
                merged.map(|region| vec![region])
            }
            _ => None,
        };
        self.host_children(states, merged)?;
        for parent in parents {
            self.regions.set_children(*parent, vec![child]);
        }
        Ok(())
    }

    fn states(&self, regions: &[RegionId]) -> Vec<RegionState> {
        let state = self.state.read();
        regions.iter().filter_map(|id| state.regions.get(id).cloned()).collect()
    }

    /// Returns a region whose manifest has recorded all decisions: this replica may not have read it.
    fn sealed(&self, id: RegionId) -> Option<SealedParent> {
        let region = self.regions.get(id)?.region;
        let flushed = self.state.read().regions.get(&id).map(|region| region.flushed);
        region.drop_recorded_obligations(Sequence(u64::MAX));
        Some(SealedParent { region, flushed: flushed.unwrap_or(Sequence(0)) })
    }

    /// Adds children with the regions in which they begin, or with new ones.
    fn host_children(
        &self,
        states: Vec<RegionState>,
        begun: Option<Vec<Arc<Region>>>,
    ) -> io::Result<()> {
        let Some(regions) = begun else {
            for RegionState { descriptor, base, flushed, parents, .. } in states {
                self.host(descriptor, base, flushed, parents)?;
            }
            return Ok(());
        };
        for (state, region) in states.into_iter().zip(regions) {
            self.regions.insert(HostedRegion::new(state.descriptor, region));
        }
        Ok(())
    }
}

fn spec(child: &RegionState) -> RegionSpec {
    RegionSpec { parents: child.parents.clone(), ..child.descriptor.spec() }
}

/// Returns the result of a replacement; `None`: a region is removed or closed.
fn unless_removed<T>(replaced: Result<T, DivideError>) -> io::Result<Option<T>> {
    match replaced {
        Err(DivideError::Engine(EngineError::Removed { .. } | EngineError::Closed { .. })) => {
            Ok(None)
        }
        other => other.map(Some).map_err(io::Error::other),
    }
}
