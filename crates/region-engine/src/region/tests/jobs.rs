//! M1: jobs of random histories that are carried out elsewhere, late, twice, or not to their end.

use std::sync::Arc;

use tidewater_common::ids::Epoch;
use tokio::task::JoinSet;

use super::elsewhere::{Elsewhere, Gate, Silent, committed_as, planned};
use super::steps::Place;
use super::world::*;
use crate::EngineError;
use crate::compaction::commit::commit;
use crate::compaction::{Attempt, CommittedCompaction, CompactionJob, Compactor, Scope};
use crate::file_meta::FileMeta;
use crate::manifest::{ManifestContext, Void};
use crate::region::Settled;

/// A job whose files are written and in no manifest. One that is forgotten has died.
pub(super) type Begun = Option<Merged>;

#[derive(Debug)]
pub(super) enum Merged {
    Here(Box<CompactionJob>, Vec<FileMeta>),
    /// The compactor sleeps.
    Elsewhere(Arc<Gate>, JoinSet<Result<CommittedCompaction, EngineError>>),
}

pub(super) async fn begin(world: &World, scope: Scope, place: Place) -> Begun {
    match place {
        Place::Here => {
            world.region.load().await.unwrap();
            let planned = world.region.claim(scope, Epoch(0)).unwrap()?;
            let job = Box::new(planned.job().clone());
            drop(planned);
            let compactor = Compactor::new(world.env());
            let written = compactor.merge(&job, &Attempt::default()).await.unwrap();
            let outputs: Vec<_> = written.into_iter().map(|file| file.meta).collect();
            Some(Merged::Here(job, outputs))
        }
        Place::Elsewhere => {
            let planned = planned(world, scope).await?;
            let gate = Gate::new();
            let elsewhere = Elsewhere::of(world, gate.clone(), planned.plan()).await;
            let mut running = JoinSet::new();
            running.spawn(async move { elsewhere.run(&Attempt::default()).await });
            tokio::select! {
                () = gate.reached() => Some(Merged::Elsewhere(gate, running)),
                // No row was left, so no hook was told of files.
                ended = running.join_next() => {
                    assert_eq!(ended.unwrap().unwrap().unwrap().outputs.len(), 0);
                    world.region.load().await.unwrap();
                    None
                }
            }
        }
    }
}

pub(super) async fn commit_late(world: &World, begun: Begun) {
    let Some(merged) = begun else { return };
    let result = match merged {
        Merged::Here(job, outputs) => {
            let manifest = ManifestContext::new(world.env(), job.dir);
            let result = commit(&manifest, &job, &outputs).await;
            if let Ok(version) = &result {
                // A late or double report changes nothing.
                let again = commit(&manifest, &job, &outputs).await;
                assert_eq!(again.unwrap_or(*version), *version);
            }
            result.map(drop)
        }
        Merged::Elsewhere(gate, mut running) => {
            gate.open();
            running.join_next().await.unwrap().unwrap().map(drop)
        }
    };
    match result {
        Ok(()) => drop(world.region.load().await.unwrap()),
        // The latter where garbage was collected meanwhile.
        Err(EngineError::Refused {
            reason: Void::InputsGone { .. } | Void::BelowFloor { .. },
            ..
        }) => {}
        Err(other) => panic!("{other}"),
    }
}

/// Of two compactors one commits, and the other one finds out.
pub(super) async fn twice(world: &World, scope: Scope) {
    let Some(planned) = planned(world, scope).await else { return };
    let one = Elsewhere::of(world, Arc::new(Silent), planned.plan()).await;
    let two = Elsewhere::of(world, Arc::new(Silent), planned.plan()).await;
    let attempts = [Attempt::default(), Attempt::default()];
    let ended = tokio::join!(one.run(&attempts[0]), two.run(&attempts[1]));
    let (committed, late) = match ended {
        (Ok(committed), Err(late)) | (Err(late), Ok(committed)) => (committed, late),
        other => panic!("{other:?}"),
    };
    let gone = matches!(late, EngineError::Refused { reason: Void::InputsGone { .. }, .. });
    assert!(gone, "{late}");
    let settled = planned.settle().await.unwrap();
    assert_eq!(settled, committed_as(&committed));
}

/// Whatever the compactor answers, the owner finds that in the manifest.
pub(super) async fn cancelled(world: &World, scope: Scope, wakes: u8) {
    let Some(planned) = planned(world, scope).await else { return };
    let elsewhere = Elsewhere::of(world, Arc::new(Silent), planned.plan()).await;
    let attempt = Attempt::default();
    let token = attempt.cancel.clone();
    let stop = async {
        for _ in 0..wakes {
            tokio::task::yield_now().await;
        }
        token.cancel();
    };
    let (ended, ()) = tokio::join!(elsewhere.run(&attempt), stop);
    let expected = match ended {
        Ok(committed) => committed_as(&committed),
        Err(EngineError::Cancelled { .. }) => Settled::Open,
        Err(other) => panic!("{other}"),
    };
    assert_eq!(planned.settle().await.unwrap(), expected);
}
