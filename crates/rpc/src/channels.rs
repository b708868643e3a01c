//! Cache of channels: one for each key, opened at its first use.

use std::collections::HashMap;
use std::fmt::Debug;
use std::hash::Hash;

use parking_lot::Mutex;
use tidewater_common::refusal::Refusal;
use tonic::transport::Channel;

use crate::connect::ConnectPolicy;

/// Most channels of a cache. More than the largest cluster has addresses, since a cache that is too small
/// opens a connection for each call: nodes that have left are never removed, and a faulty leader hint may
/// name any address.
const MAX_CHANNELS: usize = 16_384;

/// Channels by address, or by another key for connections that must not be shared. Above the limit, the
/// channel that was used longest ago is dropped; calls in progress keep their connection.
#[derive(Debug)]
pub struct Channels<K = String> {
    policy: ConnectPolicy,
    max: usize,
    cache: Mutex<ChannelCache<K>>,
}

#[derive(Debug)]
struct ChannelCache<K> {
    entries: HashMap<K, CachedChannel>,
    /// Number of uses so far, as the time of a use.
    uses: u64,
}

#[derive(Debug)]
struct CachedChannel {
    address: String,
    channel: Channel,
    last_use: u64,
}

impl<K: Eq + Hash + Clone> Channels<K> {
    /// Creates an empty cache of channels with this policy.
    pub fn new(policy: ConnectPolicy) -> Self {
        Self::with_limit(policy, MAX_CHANNELS)
    }

    /// Creates an empty cache of at most `max` channels with this policy.
    pub fn with_limit(policy: ConnectPolicy, max: usize) -> Self {
        let cache = ChannelCache { entries: HashMap::new(), uses: 0 };
        Self { policy, max, cache: Mutex::new(cache) }
    }

    /// Returns the channel of a key at an address (host:port). A channel to another address is replaced.
    ///
    /// # Errors
    /// The address is not of the form host:port.
    pub fn keyed(&self, key: K, address: &str) -> Result<Channel, Refusal> {
        let mut cache = self.cache.lock();
        cache.uses += 1;
        let last_use = cache.uses;
        if let Some(cached) = cache.entries.get_mut(&key)
            && cached.address == address
        {
            cached.last_use = last_use;
            return Ok(cached.channel.clone());
        }
        let channel = self.policy.channel(address)?;
        if cache.entries.len() >= self.max && !cache.entries.contains_key(&key) {
            cache.drop_oldest();
        }
        let address = address.to_owned();
        cache.entries.insert(key, CachedChannel { address, channel: channel.clone(), last_use });
        Ok(channel)
    }

    /// Drops the channels of these keys: the next calls open new connections. Needed when another node
    /// answers at an address, since it would go on to do so.
    pub fn forget(&self, matches: impl Fn(&K) -> bool) {
        self.cache.lock().entries.retain(|key, _| !matches(key));
    }
}

impl Channels {
    /// Returns the channel to an address (host:port).
    ///
    /// # Errors
    /// The address is not of the form host:port.
    pub fn to(&self, address: &str) -> Result<Channel, Refusal> {
        self.keyed(address.to_owned(), address)
    }
}

impl<K: Eq + Hash + Clone> ChannelCache<K> {
    fn drop_oldest(&mut self) {
        let oldest = self.entries.iter().min_by_key(|(_, cached)| cached.last_use);
        if let Some(key) = oldest.map(|(key, _)| key.clone()) {
            self.entries.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(channels: &Channels) -> Vec<String> {
        let mut keys: Vec<String> = channels.cache.lock().entries.keys().cloned().collect();
        keys.sort();
        keys
    }

    #[tokio::test]
    async fn cache_drops_the_channel_that_was_used_longest_ago() {
        let channels: Channels = Channels::with_limit(ConnectPolicy::CONTROL, 3);
        for address in ["a:1", "b:1", "c:1", "a:1", "d:1"] {
            channels.to(address).unwrap();
        }
        assert_eq!(keys(&channels), ["a:1", "c:1", "d:1"]);
        // A new address of a known key takes no other key's place.
        channels.keyed("c:1".to_owned(), "e:1").unwrap();
        assert_eq!(keys(&channels), ["a:1", "c:1", "d:1"]);
        channels.forget(|key| key == "a:1");
        assert_eq!(keys(&channels), ["c:1", "d:1"]);
    }

    #[tokio::test]
    async fn cache_rejects_invalid_addresses() {
        let channels: Channels = Channels::new(ConnectPolicy::CLIENT);
        let error = channels.to("not an address").unwrap_err();
        assert_eq!(error.reason, tidewater_proto::v1::Reason::InvalidArgument);
        assert!(keys(&channels).is_empty());
    }
}
