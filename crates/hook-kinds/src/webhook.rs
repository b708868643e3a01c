//! `webhook`: each call is posted to a URL, as JSON.
//!
//! `{"url": "https://...", "secret_file": "/absolute/path", "queue": 1024, "timeout_ms": 10000}`; all
//! but the URL may be left out. Calls are put in a queue that is bounded in number and bytes, and
//! posted one after another, each again and again until the receiver takes it (2xx) or refuses it
//! for good (4xx but 408, 425 and 429; 3xx). When the queue is full, calls fail. What is queued when
//! the process ends is lost, as are calls that a receiver refuses: both are counted.
//!
//! A durable hook has no queue: a call returns well when the receiver has taken it, and is made again
//! by its caller otherwise, also when the receiver refuses it.
//!
//! With a secret the header `X-Tidewater-Signature` is `sha256=` and the HMAC-SHA256 of the body in
//! hex. The secret stands in a file on each node, so that it is in no record of the cluster; it is
//! read for each post, so it can be changed at any time.
//!
//! # Layout
//!
//! - `queue`: what waits (pure). `courier`: posts what waits. `direct`: posts what must not wait.
//!   `transport`: one HTTP request.

mod courier;
mod direct;
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

use self::courier::Mailbox;
use self::direct::Direct;
use self::transport::Http;
use crate::narrator::Narrator;
use crate::parse;

/// Calls that may wait, unless the configuration says otherwise, and the most that it may say.
const QUEUE: (usize, usize) = (1_024, 100_000);
/// Milliseconds that one post may take, likewise.
const TIMEOUT_MS: (u64, u64) = (10_000, 300_000);
/// Bytes that may wait.
const QUEUE_BYTES: usize = 16 << 20;

/// The kind.
#[derive(Debug, Clone, Copy)]
pub struct Webhook;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    url: String,
    secret_file: Option<PathBuf>,
    #[serde(default = "usual_queue")]
    queue: usize,
    #[serde(default = "usual_timeout")]
    timeout_ms: u64,
}

fn usual_queue() -> usize {
    QUEUE.0
}

fn usual_timeout() -> u64 {
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
        let http = Http::new(&spec.name, url, config.secret_file, timeout)?;
        if spec.durable {
            return Ok(Arc::new(Narrator::new(&spec.name, home, Direct::new(http))));
        }
        let mailbox = Mailbox::new(&spec.name, http, config.queue, QUEUE_BYTES);
        Ok(Arc::new(Narrator::new(&spec.name, home, mailbox)))
    }
}

#[cfg(test)]
mod tests;
