//! Options of the recorder.

use std::time::Duration;

/// Options of a recorder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventRecorderOptions {
    /// Events that wait for the spool, at most.
    pub queue_events: usize,
    /// Bytes of the events that wait for the spool, at most. As many are being written at the same time: twice this number is in
    /// memory while the disk hangs.
    pub queue_bytes: usize,
    /// Bytes of one event, at most.
    pub max_event_bytes: usize,
    /// Events of a batch, at most.
    pub batch_events: usize,
    /// Bytes of a batch's events, and at most a quarter of [`Self::spool_bytes`]; a batch has at least one event.
    pub batch_bytes: usize,
    /// Longest time that an event waits for its batch to fill.
    pub batch_interval: Duration,
    /// Retries of a batch in a row. After them, the batch waits for [`Self::pause`].
    pub retries: u32,
    /// Wait before the first retry; doubles with each one.
    pub first_backoff: Duration,
    /// Longest wait between two retries.
    pub max_backoff: Duration,
    /// Wait of a batch whose retries have failed.
    pub pause: Duration,
    /// Time after which a call of the handler is aborted.
    pub handle_timeout: Duration,
    /// Bytes of the events in the spool, at most.
    pub spool_bytes: u64,
    /// Bytes of the file of events that were set aside. One earlier file is kept.
    pub set_aside_bytes: u64,
    /// Time that [`close`](tidewater_events::EventRecorder::close) waits for the handler.
    pub close_timeout: Duration,
}

impl Default for EventRecorderOptions {
    fn default() -> Self {
        Self {
            queue_events: 2_048,
            queue_bytes: 16 << 20,
            max_event_bytes: 1 << 20,
            batch_events: 100,
            batch_bytes: 4 << 20,
            batch_interval: Duration::from_secs(5),
            retries: 3,
            first_backoff: Duration::from_millis(1_670),
            max_backoff: Duration::from_secs(5),
            pause: Duration::from_secs(30),
            handle_timeout: Duration::from_secs(60),
            spool_bytes: 256 << 20,
            set_aside_bytes: 16 << 20,
            close_timeout: Duration::from_secs(10),
        }
    }
}

/// An option with a value that it cannot have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("option {field} of the event recorder must be {rule}")]
pub struct OptionError {
    /// Name of the field.
    pub field: &'static str,
    /// The rule that its value breaks.
    pub rule: &'static str,
}

impl EventRecorderOptions {
    /// Checks the options.
    ///
    /// # Errors
    /// [`OptionError`] names the first field that is out of its range.
    pub fn check(&self) -> Result<(), OptionError> {
        let positive = "above 0";
        let rules = [
            ("queue_events", self.queue_events > 0, positive),
            ("max_event_bytes", self.max_event_bytes > 0, positive),
            ("queue_bytes", self.queue_bytes >= self.max_event_bytes, "at least max_event_bytes"),
            ("batch_events", self.batch_events > 0, positive),
            ("batch_bytes", self.batch_bytes > 0, positive),
            ("batch_interval", !self.batch_interval.is_zero(), positive),
            ("first_backoff", !self.first_backoff.is_zero(), positive),
            ("max_backoff", self.max_backoff >= self.first_backoff, "at least first_backoff"),
            ("pause", self.pause >= self.max_backoff, "at least max_backoff"),
            ("handle_timeout", !self.handle_timeout.is_zero(), positive),
            (
                "spool_bytes",
                self.spool_bytes >= 2 * self.max_event_bytes as u64,
                "at least twice max_event_bytes",
            ),
            ("set_aside_bytes", self.set_aside_bytes > 0, positive),
            ("close_timeout", !self.close_timeout.is_zero(), positive),
        ];
        match rules.into_iter().find(|(_, valid, _)| !valid) {
            Some((field, _, rule)) => Err(OptionError { field, rule }),
            None => Ok(()),
        }
    }

    /// Bytes of a batch's events, at most: a batch that is not complete leaves room in the spool for other tables.
    pub(crate) fn batch_limit(&self) -> usize {
        let of_spool = usize::try_from(self.spool_bytes / 4).unwrap_or(usize::MAX);
        self.batch_bytes.min(of_spool)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_out_of_range_are_named() {
        let valid = EventRecorderOptions::default();
        assert_eq!(valid.check(), Ok(()));
        let field = |change: fn(&mut EventRecorderOptions)| {
            let mut options = valid.clone();
            change(&mut options);
            options.check().unwrap_err().field
        };
        assert_eq!(field(|options| options.queue_events = 0), "queue_events");
        assert_eq!(field(|options| options.queue_bytes = 1), "queue_bytes");
        assert_eq!(field(|options| options.max_event_bytes = 0), "max_event_bytes");
        assert_eq!(field(|options| options.batch_events = 0), "batch_events");
        assert_eq!(field(|options| options.batch_bytes = 0), "batch_bytes");
        assert_eq!(field(|options| options.batch_interval = Duration::ZERO), "batch_interval");
        assert_eq!(field(|options| options.first_backoff = Duration::ZERO), "first_backoff");
        assert_eq!(field(|options| options.max_backoff = Duration::ZERO), "max_backoff");
        assert_eq!(field(|options| options.pause = Duration::ZERO), "pause");
        assert_eq!(field(|options| options.handle_timeout = Duration::ZERO), "handle_timeout");
        assert_eq!(field(|options| options.spool_bytes = 0), "spool_bytes");
        assert_eq!(field(|options| options.set_aside_bytes = 0), "set_aside_bytes");
        assert_eq!(field(|options| options.close_timeout = Duration::ZERO), "close_timeout");
    }

    #[test]
    fn batches_take_a_part_of_the_spool() {
        let options = EventRecorderOptions::default();
        assert_eq!(options.batch_limit(), options.batch_bytes);
        let small = EventRecorderOptions { spool_bytes: 4_000, ..options };
        assert_eq!(small.batch_limit(), 1_000);
    }
}
