//! Target of an export, and its claim.
//!
//! An export claims its target when it is created: an object there names the export. All later calls check the claim: they write
//! neither below the prefix of another export, nor to a directory that the data nodes do not share.

use bytes::Bytes;
use serde_json::Value;
use tidewater_common::ids::ClusterId;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{self, Reason};
use tidewater_source_kinds::{ExportTargets, Target, TargetError};
use uuid::Uuid;

use super::json::{JsonObject, MAX_JSON_BYTES, ObjectError, decode, encode};
use super::layout::{ExportIdentity, IDENTITY};
use super::own_prefix::OwnPrefix;

/// An export, and the configuration of its target, as a call names them.
#[derive(Debug)]
pub(super) struct UnopenedTarget {
    targets: ExportTargets,
    cluster: ClusterId,
    pub(super) export: Uuid,
    name: String,
    table: String,
    config: Value,
}

impl UnopenedTarget {
    /// Reads the target of a call, without I/O. `own`: prefix of the cluster's object store.
    ///
    /// # Errors
    /// [`Reason::InvalidArgument`]; [`Reason::ExportTargetUnavailable`] if the target is in the object store of the cluster or
    /// contains it.
    pub(super) fn new(
        targets: ExportTargets,
        own: &OwnPrefix,
        cluster: ClusterId,
        target: Option<v1::ExportTarget>,
    ) -> Result<Self, Refusal> {
        let invalid = |text: String| Refusal::new(Reason::InvalidArgument, text);
        let target = target.ok_or_else(|| invalid("the call names no target".to_owned()))?;
        let export = Uuid::from_slice(&target.export_id)
            .map_err(|_| invalid("the id of an export must be a UUID of 16 bytes".to_owned()))?;
        let config: Value = serde_json::from_str(&target.target)
            .map_err(|error| invalid(format!("the target of the export is not JSON: {error}")))?;
        ExportTargets::check(&config).map_err(invalid)?;
        own.check(&config)?;
        let v1::ExportTarget { name, table, .. } = target;
        Ok(Self { targets, cluster, export, name, table, config })
    }

    /// Opens the target. It may not be claimed.
    ///
    /// # Errors
    /// Those of [`target_error`].
    pub(super) async fn open(self) -> Result<OpenTarget, Refusal> {
        let target = self.targets.open(&self.config).await.map_err(target_error)?;
        let Self { cluster, export, name, table, .. } = self;
        Ok(OpenTarget { cluster, export, name, table, target })
    }
}

/// An export, and its opened target.
#[derive(Debug)]
pub(super) struct OpenTarget {
    pub(super) cluster: ClusterId,
    pub(super) export: Uuid,
    pub(super) name: String,
    pub(super) table: String,
    pub(super) target: Target,
}

impl OpenTarget {
    /// Claims the target, whose prefix must be empty, for an export that is being created. Without effect if this export has
    /// claimed it. The claim of a creation that has failed is replaced by one with the same name.
    ///
    /// # Errors
    /// [`Reason::ExportPrefixInUse`], also if an export with this id was dropped after its first step;
    /// [`Reason::ExportTargetUnavailable`].
    pub(super) async fn claim(&self) -> Result<(), Refusal> {
        let identity = ExportIdentity::new(self.cluster, self.export, &self.name, &self.table);
        let bytes = encoded(IDENTITY, &identity)?;
        match self.read::<ExportIdentity>(IDENTITY).await? {
            Some(found) if self.is_own(&found) => self.check_without_others().await?,
            Some(found) => {
                let is_replaced = found.cluster == self.cluster.to_string()
                    && found.name == self.name
                    && self.check_without_others().await.is_ok();
                if !is_replaced {
                    return Err(self.claimed_by(&found));
                }
                self.target.delete(IDENTITY).await.map_err(target_error)?;
                self.put_new(IDENTITY, bytes.clone()).await?;
                self.check_claimed().await?;
            }
            None => {
                self.check_empty().await?;
                // `false`: another call has created the object since, or the store has repeated the request of this one.
                self.put_new(IDENTITY, bytes.clone()).await?;
                self.check_claimed().await?;
            }
        }
        self.check_conditional_puts(bytes).await
    }

    /// Checks that this export has claimed the target.
    ///
    /// # Errors
    /// [`Reason::ExportPrefixInUse`], also without a claim.
    pub(super) async fn check_claimed(&self) -> Result<(), Refusal> {
        match self.read::<ExportIdentity>(IDENTITY).await? {
            Some(identity) if self.is_own(&identity) => Ok(()),
            Some(identity) => Err(self.claimed_by(&identity)),
            None => Err(self.unclaimed()),
        }
    }

    async fn check_empty(&self) -> Result<(), Refusal> {
        let listed = self.target.list("", 1).await.map_err(target_error)?;
        listed.first().map_or(Ok(()), |name| Err(self.not_empty(name)))
    }

    /// Checks that the claim is the only object.
    async fn check_without_others(&self) -> Result<(), Refusal> {
        let listed = self.target.list("", 2).await.map_err(target_error)?;
        let other = listed.iter().find(|name| *name != IDENTITY);
        other.map_or(Ok(()), |name| Err(self.not_empty(name)))
    }

    fn not_empty(&self, name: &str) -> Refusal {
        let text = format!(
            "{} is not empty: it has {name}. Use another prefix, or remove its objects",
            self.target.url()
        );
        Refusal::new(Reason::ExportPrefixInUse, text)
    }

    /// Checks that the store does not replace the object of the claim by a new one. A store that does would let two leaders
    /// write two objects for one step.
    async fn check_conditional_puts(&self, bytes: Bytes) -> Result<(), Refusal> {
        if !self.put_new(IDENTITY, bytes).await? {
            return Ok(());
        }
        if let Err(problem) = self.target.delete(IDENTITY).await {
            tracing::debug!(%problem, "claim of an unsuitable target not removed");
        }
        let text = format!(
            "{}: the store ignores conditional puts (If-None-Match: *), with which exports create their objects: use a store \
             that supports them",
            self.target.url()
        );
        Err(Refusal::new(Reason::ExportTargetUnavailable, text))
    }

    fn is_own(&self, found: &ExportIdentity) -> bool {
        found.export == self.export && found.cluster == self.cluster.to_string()
    }

    fn claimed_by(&self, found: &ExportIdentity) -> Refusal {
        let text = format!(
            "{} is the prefix of export {:?} of table {:?} ({} of cluster {}): use another prefix, or remove its objects if that \
             export was dropped",
            self.target.url(),
            found.name,
            found.table,
            found.export,
            found.cluster
        );
        Refusal::new(Reason::ExportPrefixInUse, text)
    }

    fn unclaimed(&self) -> Refusal {
        let url = self.target.url();
        let new = "drop the export, and create another one below an empty prefix";
        let text = if self.target.is_local() {
            format!(
                "{url}/{IDENTITY} does not exist: the directory is not shared by all data nodes, or the object was removed. \
                 Mount the same directory on all data nodes, or {new}"
            )
        } else {
            format!("{url}/{IDENTITY} was removed: {new}")
        };
        Refusal::new(Reason::ExportPrefixInUse, text)
    }

    /// Creates an object, and returns whether it did; `false`: an object has the name.
    ///
    /// # Errors
    /// Those of [`target_error`].
    pub(super) async fn put_new(&self, name: &str, bytes: Bytes) -> Result<bool, Refusal> {
        self.target.put_new(name, bytes).await.map_err(target_error)
    }

    /// Reads an object; `None`: it does not exist.
    ///
    /// # Errors
    /// Those of [`target_error`], and [`Reason::Corrupt`].
    pub(super) async fn read<T: JsonObject>(&self, name: &str) -> Result<Option<T>, Refusal> {
        let bytes = self.target.get(name, MAX_JSON_BYTES).await.map_err(target_error)?;
        let decoded = bytes.map(|bytes| decode(name, &bytes)).transpose();
        decoded.map_err(|error| {
            Refusal::new(Reason::Corrupt, format!("{}: {error}", self.target.url()))
        })
    }
}

/// Encodes an object for a target.
///
/// # Errors
/// [`Reason::MessageTooLarge`], [`Reason::Internal`].
pub(super) fn encoded(name: &str, object: &impl JsonObject) -> Result<Bytes, Refusal> {
    encode(name, object, MAX_JSON_BYTES).map_err(|error| {
        let reason = match &error {
            ObjectError::TooLarge { .. } => Reason::MessageTooLarge,
            ObjectError::NotEncoded { .. } | ObjectError::Unreadable { .. } => Reason::Internal,
        };
        Refusal::new(reason, error.to_string())
    })
}

/// Returns the RPC error of a target: [`Reason::ExportTargetUnavailable`], [`Reason::InvalidArgument`] or
/// [`Reason::Corrupt`].
pub(super) fn target_error(error: TargetError) -> Refusal {
    let reason = match &error {
        TargetError::Unavailable(_) | TargetError::NotPermitted(_) => {
            Reason::ExportTargetUnavailable
        }
        TargetError::BadConfig(_) => Reason::InvalidArgument,
        TargetError::Invalid(_) => Reason::Corrupt,
    };
    Refusal::new(reason, error.to_string())
}

#[cfg(test)]
mod tests;
