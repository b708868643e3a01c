//! Hooks by configuration.

use std::time::Duration;

use tidewater_common::ids::GroupId;
use tidewater_proto::v1;

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
}

impl Client {
    /// Adds a hook; returns when the nodes that are up call it. Safe to lose the answer of: repeats
    /// carry one request id.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with `HookExists`, `TableNotFound`, `InvalidArgument` and others;
    /// [`ClientError::OutcomeUnknown`] when it may still be added.
    pub async fn add_hook(&self, hook: NewHook) -> Result<(), ClientError> {
        let what = format!("adding hook {:?}", hook.name);
        let request = v1::AddHookRequest {
            request_id: self.options().ids.next().to_string(),
            name: hook.name,
            kind: hook.kind,
            config: hook.config,
            table: hook.table.unwrap_or_default(),
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
