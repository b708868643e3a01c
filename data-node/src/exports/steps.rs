//! Identity and steps of an export, as objects below its prefix.

use bytes::Bytes;
use tidewater_common::ids::ClusterId;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::Reason;
use tidewater_source_kinds::Target;
use uuid::Uuid;

use super::layout::{
    IDENTITY, Identity, JsonObject, MAX_JSON_BYTES, Step, data_folder, decode, encode,
    parts_folder, step_object,
};
use super::target_error;

/// Names that one look at a folder returns at most.
const MAX_LISTED: usize = 100_000;

/// An export, and the place of its objects.
pub(super) struct ExportPlace {
    pub(super) cluster: ClusterId,
    pub(super) export: Uuid,
    pub(super) name: String,
    pub(super) table: String,
    pub(super) target: Target,
}

impl ExportPlace {
    /// Claims the prefix, which is empty, or finds that this export has it.
    ///
    /// # Errors
    /// [`Reason::ExportPrefixInUse`], [`Reason::ExportTargetUnavailable`].
    pub(super) async fn claim(&self) -> Result<(), Refusal> {
        if let Some(identity) = self.read::<Identity>(IDENTITY).await? {
            return self.check(&identity);
        }
        if let Some(name) = self.target.list("", 1).await.map_err(target_error)?.first() {
            let text = format!(
                "{} is not empty: it has {name}. Use another prefix, or remove its objects",
                self.target.url()
            );
            return Err(Refusal::new(Reason::ExportPrefixInUse, text));
        }
        let identity = Identity::new(self.cluster, self.export, &self.name, &self.table);
        let bytes = encoded(IDENTITY, &identity)?;
        if self.target.put_new(IDENTITY, bytes).await.map_err(target_error)? {
            return Ok(());
        }
        // Another call has written it since.
        match self.read::<Identity>(IDENTITY).await? {
            Some(identity) => self.check(&identity),
            None => Err(self.removed(IDENTITY)),
        }
    }

    /// Checks that the prefix belongs to this export.
    ///
    /// # Errors
    /// [`Reason::ExportPrefixInUse`], also if the object that shows it was removed.
    pub(super) async fn check_claimed(&self) -> Result<(), Refusal> {
        match self.read::<Identity>(IDENTITY).await? {
            Some(identity) => self.check(&identity),
            None => Err(self.removed(IDENTITY)),
        }
    }

    fn check(&self, found: &Identity) -> Result<(), Refusal> {
        if found.export == self.export && found.cluster == self.cluster.to_string() {
            return Ok(());
        }
        let text = format!(
            "{} is the prefix of export {:?} of table {:?} ({} of cluster {}): use another prefix, or remove its objects if that \
             export was dropped",
            self.target.url(),
            found.name,
            found.table,
            found.export,
            found.cluster
        );
        Err(Refusal::new(Reason::ExportPrefixInUse, text))
    }

    fn removed(&self, name: &str) -> Refusal {
        let text = format!(
            "{}/{name} was removed: drop the export, and create another one below an empty prefix",
            self.target.url()
        );
        Refusal::new(Reason::ExportPrefixInUse, text)
    }

    /// Writes the object of a step, or returns the one that exists.
    ///
    /// # Errors
    /// As of [`Self::check_claimed`].
    pub(super) async fn complete(&self, step: Step) -> Result<Step, Refusal> {
        self.check_claimed().await?;
        let name = step_object(step.step);
        let bytes = encoded(&name, &step)?;
        if self.target.put_new(&name, bytes).await.map_err(target_error)? {
            return Ok(step);
        }
        let existing = self.read::<Step>(&name).await?.ok_or_else(|| self.removed(&name))?;
        if existing.export != self.export || existing.step != step.step {
            let text = format!("{}/{name} is of export {}", self.target.url(), existing.export);
            return Err(Refusal::new(Reason::ExportPrefixInUse, text));
        }
        Ok(existing)
    }

    /// Removes the objects of a completed step that its object does not name: those of failed attempts, and of its parts.
    pub(super) async fn clean(&self, step: &Step) {
        for folder in [data_folder(step.step), parts_folder(step.step)] {
            let listed = match self.target.list(&folder, MAX_LISTED).await {
                Ok(listed) => listed,
                Err(problem) => {
                    tracing::debug!(%problem, %folder, "objects of a step not listed");
                    continue;
                }
            };
            let is_named = |name: &String| {
                step.files.binary_search_by(|file| file.path.as_str().cmp(name)).is_ok()
            };
            for name in listed.iter().filter(|name| !is_named(name)) {
                if let Err(problem) = self.target.delete(name).await {
                    tracing::debug!(%problem, %name, "object of a step not removed");
                }
            }
        }
    }

    /// Reads an object; `None`: it does not exist.
    ///
    /// # Errors
    /// [`Reason::ExportTargetUnavailable`], [`Reason::Corrupt`].
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
/// [`Reason::Internal`]: it is too large.
pub(super) fn encoded(name: &str, object: &impl JsonObject) -> Result<Bytes, Refusal> {
    encode(name, object).map_err(|error| Refusal::new(Reason::Internal, error.to_string()))
}

#[cfg(test)]
mod tests;
