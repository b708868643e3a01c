//! One hook behind its shield: calls with a time limit, panics caught, results counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use metrics::counter;
use parking_lot::Mutex;
use tidewater_common::ids::{RegionId, TableId};
use tokio::time::{Instant, timeout};

use super::calls::HookEvent;
use super::error::HookError;
use super::plugins::HookRegistration;
use super::suspension::{CallAdmission, CallOutcome, HealthChange, HookHealth, HookLimits};

/// Whether a hook is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HookState {
    /// Called for every event.
    Active,
    /// Left out because somebody asked for it.
    Paused,
    /// Left out for a while because it failed too often in a row.
    Suspended,
}

/// A hook as operators see it; numbers are since it was registered here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookStatus {
    /// Its name.
    pub name: String,
    /// The kind that made it; `None` for hooks of the program itself.
    pub kind: Option<String>,
    /// The only table that it sees; `None`: all.
    pub table: Option<TableId>,
    /// Whether it is called.
    pub state: HookState,
    /// Calls made, failures included.
    pub calls: u64,
    /// Calls that returned an error, panicked, came too late, or were given up later.
    pub failures: u64,
    /// Events that it was not called for, being paused or suspended.
    pub skipped: u64,
    /// Calls taken whose effect has not reached its destination.
    pub backlog: u64,
    /// What went wrong last.
    pub last_error: Option<String>,
}

/// See the module's head.
#[derive(Debug)]
pub(super) struct ShieldedHook {
    pub(super) plugin: HookRegistration,
    limits: HookLimits,
    paused: AtomicBool,
    health: Mutex<HookHealth>,
    calls: AtomicU64,
    failures: AtomicU64,
    skipped: AtomicU64,
    last_error: Mutex<Option<String>>,
}

impl ShieldedHook {
    pub(super) fn new(plugin: HookRegistration, limits: HookLimits) -> Self {
        let paused = AtomicBool::new(plugin.paused);
        Self {
            plugin,
            limits,
            paused,
            health: Mutex::default(),
            calls: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            skipped: AtomicU64::new(0),
            last_error: Mutex::default(),
        }
    }

    pub(super) fn set_paused(&self, paused: bool) {
        self.paused.store(paused, Ordering::Relaxed);
    }

    /// Calls the hook, unless it is paused or suspended. The error is for those few events whose
    /// sender wants to know; it has been counted and logged.
    pub(super) async fn call(
        self: &Arc<Self>,
        region: RegionId,
        event: Arc<HookEvent>,
    ) -> Result<(), HookError> {
        let admission = match self.is_paused() {
            true => CallAdmission::Skip,
            false => self.health.lock().admit(event.name(), Instant::now(), &self.limits),
        };
        match admission {
            CallAdmission::Call => self.noted(region, event).await,
            CallAdmission::Probe => {
                let hook = Arc::clone(self);
                tokio::spawn(async move { hook.noted(region, event).await });
                Ok(())
            }
            CallAdmission::Skip => {
                self.skipped.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
        }
    }

    /// Whether it is left out because somebody asked for it.
    pub(super) fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Relaxed)
    }

    /// Calls the hook however it has behaved: for whoever waits after a failure, and then makes the
    /// same call again. Leaving the hook out would hold up what has not failed.
    pub(super) async fn insist(
        &self,
        region: RegionId,
        event: Arc<HookEvent>,
    ) -> Result<(), HookError> {
        let name = event.name();
        let (_, result) = self.shielded(region, event).await;
        self.count(region, name, &result);
        result
    }

    /// In a task of its own: a panic ends there, and a hook that blocks its thread does not keep the
    /// caller beyond the limit. The limit inside holds when the caller has gone away.
    async fn shielded(
        &self,
        region: RegionId,
        event: Arc<HookEvent>,
    ) -> (CallOutcome, Result<(), HookError>) {
        let limit = self.limits.time_limit;
        let late = || {
            (CallOutcome::TimedOut, Err(HookError::new(format_args!("no answer within {limit:?}"))))
        };
        let hook = Arc::clone(&self.plugin.hook);
        let mut task =
            tokio::spawn(async move { timeout(limit, event.deliver(hook.as_ref(), region)).await });
        match timeout(limit, &mut task).await {
            Ok(Ok(Ok(Ok(())))) => (CallOutcome::Succeeded, Ok(())),
            Ok(Ok(Ok(Err(error)))) => (CallOutcome::Failed, Err(error)),
            Ok(Ok(Err(_))) => late(),
            Ok(Err(error)) => {
                let error = HookError::new(match error.try_into_panic() {
                    Ok(panic) => format!("it panicked: {}", words(panic.as_ref())),
                    Err(error) => error.to_string(),
                });
                (CallOutcome::Failed, Err(error))
            }
            Err(_) => {
                task.abort();
                late()
            }
        }
    }

    fn count(&self, region: RegionId, event: &'static str, result: &Result<(), HookError>) {
        let hook = self.plugin.name.clone();
        self.calls.fetch_add(1, Ordering::Relaxed);
        counter!("tidewater_hook_calls_total", "hook" => hook.clone(), "event" => event)
            .increment(1);
        if let Err(error) = result {
            self.failures.fetch_add(1, Ordering::Relaxed);
            counter!("tidewater_hook_failures_total", "hook" => hook.clone(), "event" => event)
                .increment(1);
            *self.last_error.lock() = Some(error.to_string());
            tracing::warn!(%hook, %region, event, %error, "a hook failed; the engine goes on");
        }
    }

    /// Calls the hook, and takes note of how that went.
    async fn noted(&self, region: RegionId, event: Arc<HookEvent>) -> Result<(), HookError> {
        let name = event.name();
        let (ending, result) = self.shielded(region, event).await;
        self.count(region, name, &result);
        let hook = &self.plugin.name;
        let turn = self.health.lock().note(name, ending, Instant::now(), &self.limits);
        match turn {
            HealthChange::Unchanged => {}
            HealthChange::Suspended => {
                let pause = self.limits.suspension;
                tracing::error!(%hook, ?pause, "a hook failed too often in a row: it is suspended");
            }
            HealthChange::Resumed => tracing::info!(%hook, "a suspended hook works again"),
        }
        result
    }

    pub(super) fn status(&self) -> HookStatus {
        let state = if self.paused.load(Ordering::Relaxed) {
            HookState::Paused
        } else if self.health.lock().is_suspended() {
            HookState::Suspended
        } else {
            HookState::Active
        };
        HookStatus {
            name: self.plugin.name.clone(),
            kind: self.plugin.kind.clone(),
            table: self.plugin.table,
            state,
            calls: self.calls.load(Ordering::Relaxed),
            failures: self.failures.load(Ordering::Relaxed) + self.plugin.hook.lost(),
            skipped: self.skipped.load(Ordering::Relaxed),
            backlog: self.plugin.hook.backlog(),
            last_error: self.last_error.lock().clone(),
        }
    }
}

impl HookState {
    /// As operators read it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Paused => "paused",
            Self::Suspended => "suspended",
        }
    }
}

fn words(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without words")
}
