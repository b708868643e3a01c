//! One hook behind its shield: calls with a time limit, panics caught, results counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use tidewater_common::ids::{RegionId, TableId};
use tokio::time::{Instant, timeout};

use super::error::HookError;
use super::event::RegionEvent;
use super::registration::HookRegistration;
use super::suspension::{
    CallAdmission, CallOutcome, HealthChange, HookHealth, HookLimits, SuspensionCallback,
};
use crate::meters;

/// State of a hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HookState {
    /// Called for every event.
    Active,
    /// Skipped because an operator paused it.
    Paused,
    /// Skipped for a while because it failed too often in a row.
    Suspended,
}

/// Status of a hook for operators; counters start at its registration in this process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookStatus {
    /// Its name.
    pub name: String,
    /// The kind that created it; `None` for hooks of the program itself.
    pub kind: Option<String>,
    /// The only table that it sees; `None`: all.
    pub table: Option<TableId>,
    /// State of the hook.
    pub state: HookState,
    /// Calls, failures included.
    pub calls: u64,
    /// Calls that returned an error, panicked, timed out, or were dropped later.
    pub failures: u64,
    /// Events for which it was not called because it was paused or suspended.
    pub skipped: u64,
    /// Accepted calls whose effect has not reached its destination.
    pub backlog: u64,
    /// The last error.
    pub last_error: Option<String>,
}

/// A hook with its counters, its pause and its suspension.
#[derive(Debug)]
pub(super) struct ShieldedHook {
    pub(super) registration: HookRegistration,
    limits: HookLimits,
    paused: AtomicBool,
    health: Mutex<HookHealth>,
    on_suspension: Option<Arc<dyn SuspensionCallback>>,
    calls: AtomicU64,
    failures: AtomicU64,
    skipped: AtomicU64,
    last_error: Mutex<Option<String>>,
}

impl ShieldedHook {
    pub(super) fn new(registration: HookRegistration, limits: HookLimits) -> Self {
        let paused = AtomicBool::new(registration.paused);
        Self {
            registration,
            limits,
            paused,
            health: Mutex::default(),
            on_suspension: None,
            calls: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            skipped: AtomicU64::new(0),
            last_error: Mutex::default(),
        }
    }

    /// Sets the callback of suspensions.
    pub(super) fn with_callback(self, callback: Option<Arc<dyn SuspensionCallback>>) -> Self {
        Self { on_suspension: callback, ..self }
    }

    pub(super) fn set_paused(&self, paused: bool) {
        self.paused.store(paused, Ordering::Relaxed);
    }

    /// Calls the hook, unless it is paused or suspended. Only a few events return the error to
    /// their sender; it has been counted and logged.
    pub(super) async fn call(self: &Arc<Self>, event: Arc<RegionEvent>) -> Result<(), HookError> {
        let admission = if self.is_paused() {
            CallAdmission::Skip
        } else {
            self.health.lock().admit(event.event.name(), Instant::now(), &self.limits)
        };
        match admission {
            CallAdmission::Call => self.call_and_record(event).await,
            CallAdmission::Probe => {
                let hook = Arc::clone(self);
                tokio::spawn(async move { hook.call_and_record(event).await });
                Ok(())
            }
            CallAdmission::Skip => {
                self.skipped.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
        }
    }

    /// Returns `true` if an operator has paused the hook.
    pub(super) fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Relaxed)
    }

    /// Calls the hook without regard to earlier failures: for a caller that backs off after a
    /// failure and then repeats the same call. Suspending the hook would delay calls that have not
    /// failed.
    pub(super) async fn call_ignoring_suspension(
        &self,
        event: Arc<RegionEvent>,
    ) -> Result<(), HookError> {
        let (region, name) = (event.region(), event.event.name());
        let (_, result) = self.call_with_limit(event).await;
        self.record_result(region, name, &result);
        result
    }

    /// Calls the hook in a task of its own: a panic ends there, and a hook that blocks its thread
    /// does not delay the caller beyond the limit. The inner limit applies if the caller is
    /// cancelled.
    async fn call_with_limit(
        &self,
        event: Arc<RegionEvent>,
    ) -> (CallOutcome, Result<(), HookError>) {
        let limit = self.limits.time_limit;
        let timed_out = || {
            (CallOutcome::TimedOut, Err(HookError::new(format_args!("no answer within {limit:?}"))))
        };
        let hook = Arc::clone(&self.registration.hook);
        let mut task = tokio::spawn(async move { timeout(limit, hook.on_event(&event)).await });
        match timeout(limit, &mut task).await {
            Ok(Ok(Ok(Ok(())))) => (CallOutcome::Succeeded, Ok(())),
            Ok(Ok(Ok(Err(error)))) => (CallOutcome::Failed, Err(error)),
            Ok(Ok(Err(_))) => timed_out(),
            Ok(Err(error)) => {
                let error = HookError::new(match error.try_into_panic() {
                    Ok(panic) => format!("it panicked: {}", panic_text(panic.as_ref())),
                    Err(error) => error.to_string(),
                });
                (CallOutcome::Failed, Err(error))
            }
            Err(_) => {
                task.abort();
                timed_out()
            }
        }
    }

    fn record_result(&self, region: RegionId, event: &'static str, result: &Result<(), HookError>) {
        let hook = &self.registration.name;
        self.calls.fetch_add(1, Ordering::Relaxed);
        meters::record_hook_call(hook, event);
        if let Err(error) = result {
            self.failures.fetch_add(1, Ordering::Relaxed);
            meters::record_hook_failure(hook, event);
            *self.last_error.lock() = Some(error.to_string());
            tracing::warn!(%hook, %region, event, %error, "hook call failed");
        }
    }

    /// Calls the hook and records the outcome in its health.
    async fn call_and_record(&self, event: Arc<RegionEvent>) -> Result<(), HookError> {
        let (dir, name) = (event.source.dir, event.event.name());
        let (outcome, result) = self.call_with_limit(event).await;
        self.record_result(dir.region_id, name, &result);
        let hook = &self.registration.name;
        let change = self.health.lock().record(name, outcome, Instant::now(), &self.limits);
        match change {
            HealthChange::Unchanged => {}
            HealthChange::Suspended => {
                let pause = self.limits.suspension;
                tracing::error!(%hook, ?pause, "hook suspended after too many failures in a row");
                if let (Some(callback), Err(error)) = (&self.on_suspension, &result) {
                    callback.suspended(hook, dir, &error.to_string());
                }
            }
            HealthChange::Resumed => tracing::info!(%hook, "suspended hook resumed"),
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
            name: self.registration.name.clone(),
            kind: self.registration.kind.clone(),
            table: self.registration.table,
            state,
            calls: self.calls.load(Ordering::Relaxed),
            failures: self.failures.load(Ordering::Relaxed) + self.registration.hook.lost(),
            skipped: self.skipped.load(Ordering::Relaxed),
            backlog: self.registration.hook.backlog(),
            last_error: self.last_error.lock().clone(),
        }
    }
}

impl HookState {
    /// Returns the name for operators.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Paused => "paused",
            Self::Suspended => "suspended",
        }
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a message")
}
