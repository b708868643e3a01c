//! Calls that add, pause, resume, remove and list configured hooks.

use std::time::Duration;

use tidewater_common::ids::GroupId;
use tidewater_proto::v1::{self, HookStart};
use tidewater_rpc::timed;

use crate::client::Client;
use crate::core::Repeat;
use crate::error::ClientError;

/// Timeout of an attempt to change a hook. Adding a hook waits until the nodes call it.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(30);

/// Parameters of a new hook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewHook {
    /// Name, unique in the cluster.
    pub name: String,
    /// Hook kind.
    pub kind: String,
    /// Configuration of the kind, as a JSON object.
    pub config: String,
    /// Table that the hook observes; `None`: all tables.
    pub table: Option<String>,
    /// First manifest version that a durable hook receives; it then receives every version. `None`: the hook is
    /// not durable and receives events only while the nodes run.
    pub durable: Option<HookFrom>,
}

/// Start position of a durable hook in existing regions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HookFrom {
    /// The next commit of each region.
    Now,
    /// All live files, followed by every later version.
    Start,
    /// This version of each region's manifest.
    Version(u64),
}

impl Client {
    /// Adds a hook; returns when the nodes that are up call it. A lost response is harmless, because retries
    /// carry the same request id.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with `HookExists`, `TableNotFound`, `VersionGone`, `InvalidArgument`
    /// and others; [`ClientError::OutcomeUnknown`] when it may still be added.
    pub async fn add_hook(&self, hook: NewHook) -> Result<(), ClientError> {
        let what = format!("adding hook {:?}", hook.name);
        let (start, version) = match hook.durable {
            None | Some(HookFrom::Now) => (HookStart::Now, 0),
            Some(HookFrom::Start) => (HookStart::Snapshot, 0),
            Some(HookFrom::Version(version)) => (HookStart::Version, version),
        };
        let request = v1::AddHookRequest {
            request_id: self.options().ids.next().to_string(),
            name: hook.name,
            kind: hook.kind,
            config: hook.config,
            table: hook.table.unwrap_or_default(),
            durable: hook.durable.is_some(),
            start: start.into(),
            version,
        };
        let router = &self.core.router;
        self.core
            .call(GroupId::META, &what, Repeat::Idempotent, CHANGE_TIMEOUT, |channel, timeout| {
                let mut client = router.hook_admin(channel);
                let request = request.clone();
                async move { client.add_hook(timed(request, timeout)).await }
            })
            .await?;
        Ok(())
    }

    /// Pauses or resumes a hook.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with `HookNotFound` and others.
    pub async fn set_hook_paused(&self, name: &str, paused: bool) -> Result<(), ClientError> {
        let what = format!("{} hook {name:?}", if paused { "pausing" } else { "resuming" });
        let request = v1::SetHookPausedRequest { name: name.to_owned(), paused };
        let router = &self.core.router;
        self.core
            .call(GroupId::META, &what, Repeat::Idempotent, CHANGE_TIMEOUT, |channel, timeout| {
                let mut client = router.hook_admin(channel);
                let request = request.clone();
                async move { client.set_hook_paused(timed(request, timeout)).await }
            })
            .await?;
        Ok(())
    }

    /// Removes a hook. A lost response is harmless, as with [`add_hook`](Self::add_hook).
    ///
    /// # Errors
    /// [`ClientError::Refused`] with `HookNotFound` and others.
    pub async fn remove_hook(&self, name: &str) -> Result<(), ClientError> {
        let what = format!("removing hook {name:?}");
        let request_id = self.options().ids.next().to_string();
        let request = v1::RemoveHookRequest { request_id, name: name.to_owned() };
        let router = &self.core.router;
        self.core
            .call(GroupId::META, &what, Repeat::Idempotent, CHANGE_TIMEOUT, |channel, timeout| {
                let mut client = router.hook_admin(channel);
                let request = request.clone();
                async move { client.remove_hook(timed(request, timeout)).await }
            })
            .await?;
        Ok(())
    }

    /// Returns all configured hooks in order of name, with their status on the nodes.
    ///
    /// # Errors
    /// The meta service cannot be reached or has no leader.
    pub async fn hooks(&self) -> Result<Vec<v1::HookInfo>, ClientError> {
        let router = &self.core.router;
        let longest = self.options().attempt_timeout;
        let response = self
            .core
            .call(GroupId::META, "hooks", Repeat::Read, longest, |channel, timeout| {
                let mut client = router.hook_admin(channel);
                async move { client.list_hooks(timed(v1::ListHooksRequest {}, timeout)).await }
            })
            .await?;
        Ok(response.hooks)
    }
}
