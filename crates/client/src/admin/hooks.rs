//! Hooks by configuration.

use std::time::Duration;

use tidewater_common::ids::GroupId;
use tidewater_proto::v1::{self, HookStart};

use crate::client::Client;
use crate::core::Repeat;
use crate::error::ClientError;
use crate::router::timed;

/// Adding a hook waits for the nodes to call it.
const LONGEST: Duration = Duration::from_secs(30);

/// A hook to be added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewHook {
    /// Unique in the cluster.
    pub name: String,
    /// Which kind makes it.
    pub kind: String,
    /// A JSON object, as the kind takes it.
    pub config: String,
    /// The only table that it sees; `None`: all.
    pub table: Option<String>,
    /// Told of every version of the manifests, beginning here; `None`: of what happens while the
    /// nodes live.
    pub durable: Option<HookFrom>,
}

/// Where a durable hook begins with the regions that there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HookFrom {
    /// With what is committed from here on.
    Now,
    /// With all live files, then everything after.
    Start,
    /// With this version of each manifest.
    Version(u64),
}

impl Client {
    /// Adds a hook; returns when the nodes that are up call it. Safe to lose the answer of: repeats
    /// carry one request id.
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
            .call(GroupId::META, &what, Repeat::Idempotent, LONGEST, |channel, timeout| {
                let (mut client, request) = (router.hook_admin(channel), request.clone());
                async move { client.add_hook(timed(request, timeout)).await }
            })
            .await?;
        Ok(())
    }

    /// Has a hook left out, or called again.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with `HookNotFound` and others.
    pub async fn set_hook_paused(&self, name: &str, paused: bool) -> Result<(), ClientError> {
        let what = format!("{} hook {name:?}", if paused { "pausing" } else { "resuming" });
        let request = v1::SetHookPausedRequest { name: name.to_owned(), paused };
        let router = &self.core.router;
        self.core
            .call(GroupId::META, &what, Repeat::Idempotent, LONGEST, |channel, timeout| {
                let (mut client, request) = (router.hook_admin(channel), request.clone());
                async move { client.set_hook_paused(timed(request, timeout)).await }
            })
            .await?;
        Ok(())
    }

    /// Removes a hook. Safe to lose the answer of, as with [`add_hook`](Self::add_hook).
    ///
    /// # Errors
    /// [`ClientError::Refused`] with `HookNotFound` and others.
    pub async fn remove_hook(&self, name: &str) -> Result<(), ClientError> {
        let what = format!("removing hook {name:?}");
        let request_id = self.options().ids.next().to_string();
        let request = v1::RemoveHookRequest { request_id, name: name.to_owned() };
        let router = &self.core.router;
        self.core
            .call(GroupId::META, &what, Repeat::Idempotent, LONGEST, |channel, timeout| {
                let (mut client, request) = (router.hook_admin(channel), request.clone());
                async move { client.remove_hook(timed(request, timeout)).await }
            })
            .await?;
        Ok(())
    }

    /// All hooks by configuration, by name, with what the nodes say of them.
    ///
    /// # Errors
    /// The meta service cannot be reached or has no leader.
    pub async fn hooks(&self) -> Result<Vec<v1::HookInfo>, ClientError> {
        let router = &self.core.router;
        let longest = self.options().attempt_timeout;
        let answer = self
            .core
            .call(GroupId::META, "hooks", Repeat::Read, longest, |channel, timeout| {
                let mut client = router.hook_admin(channel);
                async move { client.list_hooks(timed(v1::ListHooksRequest {}, timeout)).await }
            })
            .await?;
        Ok(answer.hooks)
    }
}
