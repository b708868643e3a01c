//! The log of one group, as openraft's log reader.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};

use futures::stream::{self, BoxStream, Stream, StreamExt};
use openraft::errors::LeaderChanged;
use openraft::storage::{LeaderBoundedStreamError, LeaderBoundedStreamResult};
use openraft::{OptionalSend, RaftLogReader};

use super::GroupLog;
use crate::config::APPEND_BYTES;
use crate::types::{Entry, LeaderId, TypeConfig, Vote};

fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(start) => start.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(end) => end.saturating_add(1),
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    (start, end)
}

impl RaftLogReader<TypeConfig> for GroupLog {
    async fn leader_bounded_stream<RB>(
        &mut self,
        leader: LeaderId,
        range: RB,
    ) -> impl Stream<Item = LeaderBoundedStreamResult<TypeConfig>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (start, end) = bounds(&range);
        let this = self.clone();
        // Another node may become leader while entries are read, and they could be of either log:
        // each batch is returned only if the vote is still the leader's after the read.
        let check = move || {
            let vote = this.current_vote();
            match vote {
                Some(vote) if vote.leader_id == leader && vote.committed => Ok(()),
                vote => Err(LeaderBoundedStreamError::from(LeaderChanged::new(leader, vote))),
            }
        };
        let stream: BoxStream<'static, _> = match check() {
            Err(changed) => stream::iter([Err(changed)]).boxed(),
            Ok(()) => self
                .batches(start, end)
                .flat_map(move |batch| {
                    let items = match (batch, check()) {
                        (Ok(entries), Ok(())) => entries.into_iter().map(Ok).collect::<Vec<_>>(),
                        (Ok(_), Err(changed)) => vec![Err(changed)],
                        (Err(error), _) => vec![Err(io::Error::from(error).into())],
                    };
                    stream::iter(items)
                })
                .scan(false, |ended, item| {
                    let show = !*ended;
                    *ended |= item.is_err();
                    std::future::ready(show.then_some(item))
                })
                .boxed(),
        };
        stream
    }

    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = Result<Entry, io::Error>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (start, end) = bounds(&range);
        let stream: BoxStream<'static, _> = self
            .batches(start, end)
            .flat_map(|batch| {
                stream::iter(match batch {
                    Ok(entries) => entries.into_iter().map(Ok).collect::<Vec<_>>(),
                    Err(error) => vec![Err(io::Error::from(error))],
                })
            })
            .boxed();
        stream
    }

    async fn try_get_log_entries<RB>(&mut self, range: RB) -> Result<Vec<Entry>, io::Error>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (start, end) = bounds(&range);
        Ok(self.read(start, end, usize::MAX).await?)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.current_vote())
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry>, io::Error> {
        Ok(self.read(start, end, APPEND_BYTES).await?)
    }
}
