//! The `webhook` hook kind: posts each call to a URL, as JSON.
//!
//! Configuration: `{"url": "https://...", "secret_file": "/absolute/path", "queue": 1024,
//! "timeout_ms": 10000}`; only the URL is required. Calls enter a queue that is bounded in number
//! and bytes, and are posted one after another. Each is retried until the receiver accepts it (2xx)
//! or rejects it permanently (4xx except 408, 425 and 429; 3xx). When the queue is full, calls
//! fail. Queued calls are lost when the process ends, as are calls that a receiver rejects. Both
//! are counted.
//! A durable hook has no queue: a call succeeds when the receiver has accepted it. Otherwise its
//! caller retries, also when the receiver rejects it.
//!
//! With a secret, the header `X-Tidewater-Signature` is `sha256=` and the HMAC-SHA256 of the body
//! in hexadecimal digits. The secret is a file on each node, so that no record of the cluster
//! contains it. It is read for each post, so it can be changed at any time. It is a regular file of
//! at most 4 KiB below the node's secret directory (`--hook-secret-dir`).
//!
//! Webhooks call public addresses only, unless the node allows private ones
//! (`--allow-private-webhooks`).
//!
//! # Layout
//!
//! - `pending`: pending calls (pure). `queue`: the sink that queues and posts calls. `direct`: the
//!   sink of durable hooks. `transport`: one HTTP request. `address`: the addresses to which it may
//!   go.

mod address;
mod direct;
mod pending;
mod queue;
mod transport;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use tidewater_region_engine::RegionHookRef;
use tidewater_region_engine::hooks::{HookHome, HookKind, HookSpec};
use url::Url;

use self::direct::DirectSink;
use self::queue::WebhookQueue;
use self::transport::{HttpTransport, SecretFile};
use crate::access::HookAccess;
use crate::parse;
use crate::record_hook::RecordHook;

/// Pending calls of a hook: default and maximum of the configuration.
const QUEUE: (usize, usize) = (1_024, 100_000);
/// Timeout of one post in milliseconds: default and maximum of the configuration.
const TIMEOUT_MS: (u64, u64) = (10_000, 300_000);
/// Limit of the bytes of a hook's pending calls.
const QUEUE_BYTES: usize = 16 << 20;

/// The `webhook` hook kind.
#[derive(Debug, Clone)]
pub struct Webhook {
    /// Permissions of hooks on this node.
    pub access: HookAccess,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    url: String,
    secret_file: Option<PathBuf>,
    #[serde(default = "default_queue")]
    queue: usize,
    #[serde(default = "default_timeout_ms")]
    timeout_ms: u64,
}

fn default_queue() -> usize {
    QUEUE.0
}

fn default_timeout_ms() -> u64 {
    TIMEOUT_MS.0
}

impl Config {
    fn read(config: &Value) -> Result<(Self, Url), String> {
        let config: Self = parse(config)?;
        let url = Url::parse(&config.url).map_err(|error| format!("the url: {error}"))?;
        if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
            return Err("the url must begin with http:// or https:// and name a host".to_owned());
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("the url must not hold a password: use secret_file".to_owned());
        }
        if config.secret_file.as_ref().is_some_and(|file| !file.is_absolute()) {
            return Err("secret_file must be absolute: nodes run in different directories".into());
        }
        if !(1..=QUEUE.1).contains(&config.queue) {
            return Err(format!("queue must be from 1 to {}", QUEUE.1));
        }
        if !(1..=TIMEOUT_MS.1).contains(&config.timeout_ms) {
            return Err(format!("timeout_ms must be from 1 to {}", TIMEOUT_MS.1));
        }
        Ok((config, url))
    }
}

impl HookKind for Webhook {
    fn kind(&self) -> &'static str {
        "webhook"
    }

    fn check(&self, config: &Value) -> Result<(), String> {
        Config::read(config).map(|_| ())
    }

    fn make(&self, spec: &HookSpec, home: HookHome) -> Result<RegionHookRef, String> {
        let (config, url) = Config::read(&spec.config)?;
        let timeout = Duration::from_millis(config.timeout_ms);
        let secret = match config.secret_file {
            Some(path) => Some(SecretFile::open(self.access.secret_dir()?, path)?),
            None => None,
        };
        let allow_private = self.access.allows_private_webhooks();
        let http = HttpTransport::new(&spec.name, url, secret, timeout, allow_private)?;
        if spec.durable {
            return Ok(Arc::new(RecordHook::new(&spec.name, home, DirectSink::new(http))));
        }
        let queue = WebhookQueue::new(&spec.name, http, config.queue, QUEUE_BYTES);
        Ok(Arc::new(RecordHook::new(&spec.name, home, queue)))
    }
}

#[cfg(test)]
mod tests;
