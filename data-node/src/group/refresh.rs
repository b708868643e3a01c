//! Replicated state of refreshes in a region: the progress of a merge, and the published epochs (pure).
//!
//! - *Part*: part of the region's keys that is merged on its own, from its first key to that of the next part.
//! - *Published epoch*: epoch as of which a refreshable table is read. That of the refresh before stays readable for a time,
//!   for readers that have begun with it.

use bytes::Bytes;
use tidewater_common::ids::Epoch;
use tidewater_common::keys::KeyRange;
use tidewater_proto::v1::{self, MergeCounts, Reason};
use tidewater_region_engine::manifest::AreaId;

use super::descriptor::DescriptorError;
use super::entry::EntryOutcome;
use super::obligation::{area_from_wire, area_to_wire};

/// Maximum number of parts of a merge.
pub const MAX_PARTS: usize = 64;
/// Maximum number of published epochs that a region keeps: refreshes faster than that end the time of readers early.
const MAX_PUBLISHED: usize = 128;
/// Maximum number of those of a table with an own oldest readable epoch. The meta leader publishes no refresh beyond it, so that no
/// held epoch is forgotten.
pub const MAX_HELD: usize = 16_384;

/// Part of a merge.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct MergePart {
    /// Row key at which it begins; empty: at the begin of the region.
    pub start: Bytes,
    /// Greatest row key that was merged; empty: none.
    pub reached: Bytes,
    /// No row is left.
    pub is_complete: bool,
    /// Rows that were compared.
    pub counts: MergeCounts,
    /// Chunks that were applied.
    pub chunks: u64,
}

/// Progress of the merge of a staging area.
#[derive(Debug, Clone, PartialEq)]
pub struct MergeState {
    /// The merged area.
    pub area: AreaId,
    /// Parts, in key order.
    pub parts: Vec<MergePart>,
}

impl MergeState {
    /// Begins a merge in parts that begin at these keys, after the first one.
    ///
    /// # Errors
    /// [`Reason::InvalidArgument`]: the keys are not ascending within the range, or more than [`MAX_PARTS`].
    pub fn begin(
        area: AreaId,
        range: &KeyRange,
        split_keys: &[Bytes],
    ) -> Result<Self, EntryOutcome> {
        let ascending = split_keys.windows(2).all(|pair| pair[0] < pair[1]);
        let inside = split_keys.iter().all(|key| range.contains(key) && **key > range.start[..]);
        if !ascending || !inside || split_keys.len() >= MAX_PARTS {
            let text = "the parts of a merge do not divide the region";
            return Err(EntryOutcome::refused(Reason::InvalidArgument, text));
        }
        let starts = std::iter::once(Bytes::new()).chain(split_keys.iter().cloned());
        let parts = starts.map(|start| MergePart { start, ..MergePart::default() });
        Ok(Self { area, parts: parts.collect() })
    }

    /// Returns the keys of a part, within those of the region.
    pub fn range(&self, part: usize, region: &KeyRange) -> KeyRange {
        let start = self.parts.get(part).map(|part| part.start.to_vec()).unwrap_or_default();
        let end = self.parts.get(part + 1).map(|next| next.start.to_vec());
        KeyRange { start, end }.intersection(region)
    }

    /// Returns whether all parts are complete.
    pub fn is_complete(&self) -> bool {
        self.parts.iter().all(|part| part.is_complete)
    }

    /// Returns the part that a chunk continues.
    ///
    /// # Errors
    /// [`Reason::ProcedureSuperseded`]: another chunk has, or the part does not exist.
    pub fn continued(&mut self, chunk: &v1::RegionChunk) -> Result<&mut MergePart, EntryOutcome> {
        let number = chunk.part;
        let part = usize::try_from(number).ok().and_then(|number| self.parts.get_mut(number));
        match part {
            Some(part) if !part.is_complete && part.reached == chunk.after => Ok(part),
            _ => {
                let text = format!("part {number} of the merge is not where the chunk begins");
                Err(EntryOutcome::refused(Reason::ProcedureSuperseded, text))
            }
        }
    }

    /// Converts to the stored form.
    pub fn to_wire(&self) -> v1::RegionMerge {
        let part = |part: &MergePart| v1::RegionMergePart {
            start: part.start.clone(),
            reached: part.reached.clone(),
            is_complete: part.is_complete,
            counts: Some(part.counts),
            chunks: part.chunks,
        };
        v1::RegionMerge {
            area_id: area_to_wire(self.area),
            parts: self.parts.iter().map(part).collect(),
        }
    }

    /// Converts from the stored form.
    pub fn from_wire(wire: v1::RegionMerge) -> Result<Self, DescriptorError> {
        let area = area_from_wire(&wire.area_id).ok_or(DescriptorError::Missing("staging area"))?;
        let part = |part: v1::RegionMergePart| MergePart {
            start: part.start,
            reached: part.reached,
            is_complete: part.is_complete,
            counts: part.counts.unwrap_or_default(),
            chunks: part.chunks,
        };
        Ok(Self { area, parts: wire.parts.into_iter().map(part).collect() })
    }
}

impl MergePart {
    /// Records a chunk that continues the part.
    pub fn record(&mut self, chunk: &v1::RegionChunk) {
        self.reached = chunk.reached.clone();
        self.is_complete = chunk.is_last;
        self.chunks += 1;
        add(&mut self.counts, &chunk.counts.unwrap_or_default());
    }
}

/// Adds counts to others.
pub fn add(to: &mut MergeCounts, counts: &MergeCounts) {
    to.inserted = to.inserted.saturating_add(counts.inserted);
    to.updated = to.updated.saturating_add(counts.updated);
    to.deleted = to.deleted.saturating_add(counts.deleted);
    to.unchanged = to.unchanged.saturating_add(counts.unchanged);
}

/// Published epochs of a region, the oldest first.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PublishedEpochs(Vec<v1::PublishedEpoch>);

impl PublishedEpochs {
    /// Records that the table is read as of another epoch, and that the one before is readable until the group reaches
    /// `previous_until`. Without effect for an epoch that is not later. Call [`PublishedEpochs::forget`] afterwards.
    pub fn publish(&mut self, epoch: Epoch, previous_until: Epoch) {
        if epoch <= self.last() {
            return;
        }
        if self.0.is_empty() {
            self.0.push(v1::PublishedEpoch::default());
        }
        if let Some(previous) = self.0.last_mut() {
            previous.readable_until = previous_until.get();
        }
        self.0.push(v1::PublishedEpoch { epoch: epoch.get(), readable_until: 0 });
    }

    /// Forgets the oldest ones. `own`: oldest readable epoch of a table with an own one, before which they are forgotten.
    pub fn forget(&mut self, own: Option<Epoch>) {
        let (earlier, limit) = match own {
            Some(own) => (self.0.partition_point(|of| of.epoch < own.get()), MAX_HELD),
            None => (0, MAX_PUBLISHED),
        };
        let beyond = self.0.len().saturating_sub(limit);
        self.0.drain(..earlier.max(beyond));
    }

    /// Returns the last one; 0: the table is empty.
    pub fn last(&self) -> Epoch {
        Epoch(self.0.last().map_or(0, |published| published.epoch))
    }

    /// Returns the last one at or before an epoch, as of which the table is read at that epoch; `None`: it was forgotten.
    pub fn at(&self, epoch: Epoch) -> Option<Epoch> {
        let later = self.0.partition_point(|of| of.epoch <= epoch.get());
        match later.checked_sub(1).and_then(|at| self.0.get(at)) {
            Some(published) => Some(Epoch(published.epoch)),
            None => self.0.is_empty().then_some(Epoch(0)),
        }
    }

    /// Returns the first one at or after an epoch; the last one if there is none.
    pub fn from(&self, epoch: Epoch) -> Epoch {
        let earlier = self.0.partition_point(|of| of.epoch < epoch.get());
        self.0.get(earlier).map_or_else(|| self.last(), |of| Epoch(of.epoch))
    }

    /// Returns the number of them at or after an epoch.
    pub fn count_from(&self, epoch: Epoch) -> usize {
        self.0.len() - self.0.partition_point(|of| of.epoch < epoch.get())
    }

    /// Returns the oldest one that must be readable when the group is at an epoch.
    pub fn oldest_readable(&self, reached: Epoch) -> Epoch {
        let readable = |published: &&v1::PublishedEpoch| {
            published.readable_until == 0 || published.readable_until > reached.get()
        };
        Epoch(self.0.iter().find(readable).map_or(0, |published| published.epoch))
    }

    /// Returns the oldest one that must be readable when the group is at an epoch, and the table is held at `own`.
    pub fn oldest_kept(&self, own: Epoch, reached: Epoch) -> Epoch {
        self.at_or_first(own).min(self.oldest_readable(reached))
    }

    /// Returns the last one at or before an epoch, or the first one that was not forgotten.
    pub fn at_or_first(&self, epoch: Epoch) -> Epoch {
        let first = || self.0.first().map_or(Epoch(0), |of| Epoch(of.epoch));
        self.at(epoch).unwrap_or_else(first)
    }

    /// Converts to the stored form.
    pub fn to_wire(&self) -> Vec<v1::PublishedEpoch> {
        self.0.clone()
    }

    /// Converts from the stored form.
    pub fn from_wire(wire: Vec<v1::PublishedEpoch>) -> Self {
        Self(wire)
    }
}

#[cfg(test)]
mod order_tests;

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn area() -> AreaId {
        AreaId(Uuid::from_u128(1))
    }

    fn keys(keys: &[&'static str]) -> Vec<Bytes> {
        keys.iter().map(|key| Bytes::from_static(key.as_bytes())).collect()
    }

    fn range() -> KeyRange {
        KeyRange { start: b"b".to_vec(), end: Some(b"x".to_vec()) }
    }

    #[test]
    fn parts_of_a_merge_tile_the_region() {
        let merge = MergeState::begin(area(), &range(), &keys(&["d", "k"])).unwrap();
        let ranges: Vec<KeyRange> = (0..3).map(|part| merge.range(part, &range())).collect();
        let ends = |range: &KeyRange| (range.start.clone(), range.end.clone().unwrap());
        let expected = [("b", "d"), ("d", "k"), ("k", "x")]
            .map(|(start, end)| (start.as_bytes().to_vec(), end.as_bytes().to_vec()));
        assert_eq!(ranges.iter().map(ends).collect::<Vec<_>>(), expected);
        assert_eq!(MergeState::from_wire(merge.to_wire()).unwrap(), merge);
    }

    #[test]
    fn split_keys_that_do_not_divide_are_refused() {
        for wrong in [&["k", "d"][..], &["d", "d"], &["a"], &["b"], &["x"]] {
            let refused = MergeState::begin(area(), &range(), &keys(wrong));
            assert!(refused.is_err(), "{wrong:?}");
        }
        let many: Vec<Bytes> = (0..64_u8).map(|key| vec![b'c', key].into()).collect();
        assert!(MergeState::begin(area(), &range(), &many).is_err());
        assert!(MergeState::begin(area(), &range(), &many[..63]).is_ok());
    }

    #[test]
    fn chunk_continues_only_the_part_at_its_key() {
        let mut merge = MergeState::begin(area(), &range(), &keys(&["k"])).unwrap();
        let chunk = |part, after: &'static str, reached: &'static str, is_last| v1::RegionChunk {
            part,
            after: Bytes::from_static(after.as_bytes()),
            reached: Bytes::from_static(reached.as_bytes()),
            is_last,
            counts: Some(MergeCounts { inserted: 2, unchanged: 5, ..MergeCounts::default() }),
            ..v1::RegionChunk::default()
        };
        let mut apply = |chunk: v1::RegionChunk| {
            let part = merge.continued(&chunk).map_err(drop)?;
            part.record(&chunk);
            Ok::<_, ()>(merge.is_complete())
        };
        assert_eq!(apply(chunk(0, "", "d", false)), Ok(false));
        // Late and repeated ones, and parts that do not exist.
        for late in [chunk(0, "", "d", false), chunk(0, "c", "e", false), chunk(2, "", "y", true)] {
            assert_eq!(apply(late), Err(()));
        }
        assert_eq!(apply(chunk(1, "", "", true)), Ok(false));
        assert_eq!(apply(chunk(1, "", "", true)), Err(()));
        assert_eq!(apply(chunk(0, "d", "j", true)), Ok(true));
        assert_eq!((merge.parts[0].chunks, merge.parts[0].counts.unchanged), (2, 10));
    }

    #[test]
    fn previous_epoch_is_readable_for_its_time() {
        let mut published = PublishedEpochs::default();
        assert_eq!(published.oldest_readable(Epoch(500)), Epoch(0));
        published.publish(Epoch(100), Epoch(150));
        assert_eq!(published.oldest_readable(Epoch(149)), Epoch(0));
        assert_eq!(published.oldest_readable(Epoch(150)), Epoch(100));
        published.publish(Epoch(200), Epoch(250));
        // Repeated and late ones.
        published.publish(Epoch(200), Epoch(999));
        published.publish(Epoch(100), Epoch(999));
        assert_eq!(published.oldest_readable(Epoch(249)), Epoch(100));
        assert_eq!(published.oldest_readable(Epoch(10_000)), Epoch(200));
        for epoch in 1..1_000 {
            published.publish(Epoch(200 + epoch), Epoch(10_000));
            published.forget(None);
        }
        assert_eq!(published.to_wire().len(), MAX_PUBLISHED);
        assert_eq!(published.last(), Epoch(1_199));
        assert_eq!(PublishedEpochs::from_wire(published.to_wire()), published);
    }

    /// Published at 100, 200 and so on, each with readers until 50 later.
    fn published(number: u64) -> PublishedEpochs {
        let mut published = PublishedEpochs::default();
        for number in 1..=number {
            published.publish(Epoch(number * 100), Epoch(number * 100 + 50));
        }
        published
    }

    #[test]
    fn epoch_is_read_as_of_the_publication_before_it() {
        let mut of = published(3);
        for (epoch, expected) in [(0, 0), (99, 0), (100, 100), (199, 100), (300, 300), (999, 300)] {
            assert_eq!(of.at(Epoch(epoch)), Some(Epoch(expected)), "{epoch}");
        }
        for (epoch, expected) in [(0, 0), (1, 100), (100, 100), (101, 200), (300, 300), (301, 300)]
        {
            assert_eq!(of.from(Epoch(epoch)), Epoch(expected), "{epoch}");
        }
        of.forget(Some(Epoch(200)));
        assert_eq!((of.at(Epoch(199)), of.at(Epoch(250))), (None, Some(Epoch(200))));
        let none = PublishedEpochs::default();
        assert_eq!((none.at(Epoch(7)), none.from(Epoch(7))), (Some(Epoch(0)), Epoch(0)));
    }

    #[test]
    fn held_publication_is_kept_beyond_its_readers() {
        let of = published(4);
        assert_eq!(of.oldest_kept(Epoch(250), Epoch(10_000)), Epoch(200));
        assert_eq!(of.oldest_kept(Epoch(200), Epoch(10_000)), Epoch(200));
        // Readers that began earlier than what is held.
        assert_eq!(of.oldest_kept(Epoch(999), Epoch(420)), Epoch(300));
        assert_eq!(of.oldest_kept(Epoch(999), Epoch(10_000)), Epoch(400));
        let mut many = published(20_000);
        many.forget(Some(Epoch(50)));
        assert_eq!((many.count_from(Epoch(0)), many.last()), (MAX_HELD, Epoch(2_000_000)));
        // Released publications do not count, although only the next publication forgets them.
        assert_eq!(many.count_from(Epoch(1_999_900)), 2);
        let first = many.oldest_kept(Epoch(50), Epoch(10_000_000));
        assert_eq!(many.at(first), Some(first));
    }
}
