//! Decisions that each kind of procedure makes.

use bytes::Bytes;
use tidewater_common::feature_level::FeatureLevel;
use tidewater_common::ids::{GroupId, RegionId, TableId};
use tidewater_proto::v1::{self, Reason};

use crate::catalog::{CatalogChange, MetaState, OutcomeKind, Procedure, TableLock};
use crate::commands::CommandError;

/// Facts of a kind of procedure.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KindFacts {
    /// Its stored number, of [`v1::ProcedureKind`].
    pub(crate) number: u32,
    /// Its name for operators, a verb such as "truncate".
    pub(crate) name: &'static str,
    /// Past participle of the operation, for messages such as "table t is being truncated".
    pub(crate) verb: &'static str,
    /// Feature level that a cluster needs for it.
    pub(crate) level: FeatureLevel,
    /// Kind of the outcomes that releases without procedures have recorded for the same request.
    pub(crate) earlier_outcome: Option<OutcomeKind>,
}

/// One kind of procedure.
pub(crate) trait ProcedureKind: Sync {
    /// Facts that do not depend on the state.
    fn facts(&self) -> KindFacts;

    /// Returns the part of the arguments that a repeated request must have again.
    ///
    /// # Errors
    /// The arguments are malformed.
    fn identity(&self, arguments: &Bytes) -> Result<Bytes, CommandError> {
        Ok(arguments.clone())
    }

    /// Decides on the begin of a procedure.
    ///
    /// # Errors
    /// The arguments are invalid, or contradict the state. The caller checks the locks.
    fn begin(&self, state: &MetaState, arguments: Bytes) -> Result<ProcedureBegin, CommandError>;

    /// Decides on a repeated request while the procedure runs. `None`: nothing changes.
    ///
    /// # Errors
    /// The arguments are malformed.
    fn repeated(
        &self,
        _state: &MetaState,
        _procedure: &Procedure,
        _arguments: Bytes,
    ) -> Result<Option<Procedure>, CommandError> {
        Ok(None)
    }

    /// Returns the change of its table that data nodes see at this step: they carry out its calls only then. Its
    /// number is that of the procedure. `None`: the table's state permits the calls, or there are none.
    fn published(&self, _procedure: &Procedure) -> Option<v1::TableChange> {
        None
    }

    /// Returns the change of a route that data nodes see at this step, as [`ProcedureKind::published`].
    fn published_route(&self, _procedure: &Procedure) -> Option<v1::RouteChange> {
        None
    }

    /// Returns the regions that have a part in the procedure's step, each once.
    fn regions(&self, state: &MetaState, procedure: &Procedure) -> Vec<StepRegion>;

    /// Returns the call for a region's part of the step; `None`: the state contradicts the procedure.
    fn call(&self, state: &MetaState, procedure: &Procedure, at: StepRegion) -> Option<RegionCall>;

    /// Returns whether the step is completed by a request, not by its regions.
    fn is_waiting(&self, _procedure: &Procedure) -> bool {
        false
    }

    /// Returns whether the step takes as long as its data is large: that it lasts is no problem as long as it does not fail.
    fn takes_long(&self, _procedure: &Procedure) -> bool {
        false
    }

    /// Returns whether the step fails whenever it is attempted, after a region's part has failed with this reason.
    fn cannot_succeed(&self, _procedure: &Procedure, _reason: Reason) -> bool {
        false
    }

    /// Decides what follows when the procedure's step is completed.
    ///
    /// # Errors
    /// The plan of the procedure is damaged.
    fn completed(
        &self,
        state: &MetaState,
        procedure: &Procedure,
    ) -> Result<AfterStep, CommandError>;

    /// Decides what follows when a request completes a step that waits for one, with its result, and the plan from then on;
    /// `None`: the plan stays.
    ///
    /// # Errors
    /// The result is malformed or contradicts the state, or the plan of the procedure is damaged.
    fn requested(
        &self,
        state: &MetaState,
        procedure: &Procedure,
        _result: &Bytes,
    ) -> Result<(AfterStep, Option<Bytes>), CommandError> {
        Ok((self.completed(state, procedure)?, None))
    }

    /// Decides what follows when the procedure is abandoned at its step; `None`: it is past its point of no return.
    fn abandoned(&self, state: &MetaState, procedure: &Procedure) -> Option<AfterStep>;

    /// Decides what follows when a region's group has abandoned the procedure at its step; `None`: the procedure ends.
    fn superseded(&self, state: &MetaState, procedure: &Procedure) -> Option<AfterStep> {
        self.abandoned(state, procedure)
    }

    /// Returns the change of other rows when the procedure ends at its step because a region's group has abandoned it.
    fn change_when_superseded(&self, _state: &MetaState, _procedure: &Procedure) -> CatalogChange {
        CatalogChange::default()
    }

    /// Returns whether a drop of its table ends the procedure. Otherwise the drop is refused.
    fn ends_with_table(&self, procedure: &Procedure) -> bool;
}

/// Begin of a procedure.
#[derive(Debug)]
pub(crate) struct ProcedureBegin {
    /// Its table, which exists or is created by the change.
    pub(crate) table: TableId,
    /// Locks on tables.
    pub(crate) locks: Vec<TableLock>,
    /// Locked routes.
    pub(crate) routes: Vec<RegionId>,
    /// The operations that hold conflicting locks end: the kind has checked that they can.
    pub(crate) has_precedence: bool,
    /// Those that are procedures.
    pub(crate) ended: Vec<Procedure>,
    /// Replicated time at which it is abandoned.
    pub(crate) deadline_ms: Option<u64>,
    /// Decisions for later steps, a message of the kind.
    pub(crate) plan: Bytes,
    /// Change of the catalog. The caller adds the procedure, and its number to the table.
    pub(crate) change: CatalogChange,
}

impl ProcedureBegin {
    /// Returns the begin of a procedure that changes nothing yet.
    pub(crate) fn new(table: TableId, locks: Vec<TableLock>) -> Self {
        Self {
            table,
            locks,
            routes: Vec::new(),
            has_precedence: false,
            ended: Vec::new(),
            deadline_ms: None,
            plan: Bytes::new(),
            change: CatalogChange::default(),
        }
    }
}

/// Region with a part in a step, and the group whose leader is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StepRegion {
    pub(crate) region: RegionId,
    pub(crate) group: GroupId,
}

/// Call to the leader of a region's group. Each can be repeated.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum RegionCall {
    /// Opens the region.
    Open(v1::OpenRegionRequest),
    /// Opens the region with the files of another one.
    Clone(Box<RegionClone>),
    /// Changes schema and options of the region.
    Alter(v1::AlterRegionRequest),
    /// Deletes all rows of the region.
    Truncate(v1::TruncateRegionRequest),
    /// Opens a staging area in the region.
    OpenArea(v1::OpenAreaRequest),
    /// Merges the region's staging area into its rows.
    MergeStaged(v1::MergeRegionRequest),
    /// Publishes or abandons the region's staging area.
    CloseArea(v1::CloseAreaRequest),
    /// Prepares the region for its split, merge or move, or abandons that.
    Hold(v1::HoldRegionRequest),
    /// Replaces the region by its children.
    Split(v1::SplitRegionRequest),
    /// Replaces the region and the one after it by one.
    Merge(v1::MergeRegionsRequest),
    /// Ends the region that its children have replaced.
    Close(v1::CloseRegionRequest),
    /// Prepares the group for a region that is moved to it.
    Prepare(v1::PrepareRegionRequest),
    /// Takes the region over from another group.
    Receive(Box<RegionReceipt>),
    /// Ends the region's service by a group that no longer owns it.
    Release(v1::ReleaseRegionRequest),
    /// Begins the region's service by the group that has received it.
    Activate(v1::ActivateRegionRequest),
    /// Serves the region as before its move. The target group forgets it, if it has a leader.
    AbandonMove(v1::HoldRegionRequest, v1::ReleaseRegionRequest),
    /// Removes the region; one that does not exist is removed.
    Drop(v1::DropRegionRequest),
}

/// Clone of a region: the source is flushed, the region is opened above the source's sequences, and it adopts the
/// source's files by reference.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RegionClone {
    /// The region that is cloned.
    pub(crate) source: StepRegion,
    /// Opening of the new region. Its base follows from the flush.
    pub(crate) open: v1::OpenRegionRequest,
    /// Adoption of the files.
    pub(crate) copy: v1::CopyRegionRequest,
}

/// Receipt of a region that another group has fenced.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RegionReceipt {
    /// Question for the region's state in the other group.
    pub(crate) departing: v1::GetDepartingRegionRequest,
    /// Receipt; the state follows from the answer.
    pub(crate) receive: v1::ReceiveRegionRequest,
}

/// Decision at the end of a step.
#[derive(Debug)]
pub(crate) enum AfterStep {
    /// The next step.
    Step {
        /// Its number.
        step: u32,
        /// Change of the catalog.
        change: CatalogChange,
    },
    /// The end.
    End(CatalogChange),
}
