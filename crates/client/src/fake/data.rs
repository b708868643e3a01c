//! Fake data node.

use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use parking_lot::Mutex;
use tidewater_common::keys::KeyRange;
use tidewater_common::refusal::Refusal;
use tidewater_common::rows::{decode_batch, encode_batch};
use tidewater_proto::v1::{self, Reason, data_server::Data};
use tonic::{Request, Response, Status};

use super::state::{Answer, ScanAnswer, State, rows, schema};

/// Maximum rows of a scan message.
const SCAN_ROWS: usize = 3;

pub(super) struct DataNode {
    pub(super) node: u64,
    pub(super) state: Arc<Mutex<State>>,
}

impl DataNode {
    fn check_group(state: &mut State, group: u64) -> Result<(), Status> {
        if group == state.group {
            return Ok(());
        }
        state.reads_of_other_groups += 1;
        Err(Refusal::new(Reason::GroupNotHosted, "the node hosts no replica of the group").into())
    }

    fn check_leader(&self, state: &State) -> Result<(), Status> {
        state.not_leader(self.node).map_or(Ok(()), |refusal| Err(refusal.into()))
    }
}

#[tonic::async_trait]
impl Data for DataNode {
    type ScanStream = BoxStream<'static, Result<v1::ScanResponse, Status>>;

    async fn write(
        &self,
        request: Request<v1::WriteRequest>,
    ) -> Result<Response<v1::WriteResponse>, Status> {
        let write = request.into_inner();
        let frozen = {
            let mut state = self.state.lock();
            self.check_leader(&state)?;
            state.writes.push(write.clone());
            let freezes =
                write.serial != 1 && matches!(state.answers.front(), Some(Answer::Freeze));
            if freezes {
                state.answers.pop_front();
            }
            freezes
        };
        if frozen {
            return std::future::pending().await;
        }
        let mut state = self.state.lock();
        // Scripted responses apply to row writes; opening writes always succeed.
        let opening = write.serial == 1;
        let answer = if opening { None } else { state.answers.pop_front() };
        let lost_response = || Err(Status::unavailable("connection reset"));
        let response = match answer.unwrap_or(Answer::Normal) {
            Answer::Normal => state.apply(&write),
            Answer::Refuse(refusal) => Err(refusal),
            Answer::Lose | Answer::Freeze => return lost_response(),
            Answer::DoAndLose => {
                state.apply(&write)?;
                return lost_response();
            }
            Answer::DoAndRefuse(refusal) => state.apply(&write).and(Err(refusal)),
            Answer::Forget => {
                state.forget_producers();
                state.apply(&write)
            }
            Answer::ForgetAndReopen => {
                state.forget_producers();
                let openings = state.writes.iter().filter(|write| write.serial == 1);
                for opening in openings.cloned().collect::<Vec<_>>() {
                    state.apply(&opening)?;
                }
                state.apply(&write)
            }
            Answer::Split { region, at, children } => {
                state.split(region, at, children);
                state.apply(&write)
            }
        };
        Ok(Response::new(response?))
    }

    async fn write_files(
        &self,
        request: Request<v1::WriteFilesRequest>,
    ) -> Result<Response<v1::WriteFilesResponse>, Status> {
        let request = request.into_inner();
        let mut state = self.state.lock();
        self.check_leader(&state)?;
        state.region(request.region_id)?;
        state.check_schema(request.region_id, request.schema_version)?;
        let batch = decode_batch(&request.rows, &state.schema.arrow()).unwrap();
        assert_eq!(batch.num_rows(), request.row_count as usize);
        let ids = batch.column(0).as_primitive::<Int64Type>().values().to_vec();
        let file = Bytes::from(format!("file {:011}", state.files.len()));
        state.files.insert(file.clone(), ids);
        state.files_written.push(request);
        Ok(Response::new(v1::WriteFilesResponse { file_ids: vec![file] }))
    }

    async fn adopt_files(
        &self,
        request: Request<v1::AdoptFilesRequest>,
    ) -> Result<Response<v1::AdoptFilesResponse>, Status> {
        let request = request.into_inner();
        let mut state = self.state.lock();
        self.check_leader(&state)?;
        state.adoptions.push(request.clone());
        match state.answers.pop_front().unwrap_or(Answer::Normal) {
            Answer::Refuse(refusal) => Err(refusal.into()),
            Answer::Lose => Err(Status::unavailable("connection reset")),
            Answer::Split { region, at, children } => {
                state.split(region, at, children);
                Err(Refusal::new(Reason::RouteMoved, "the region has been split").into())
            }
            _ => {
                state.region(request.region_id)?;
                state.check_schema(request.region_id, request.schema_version)?;
                let files = request.file_ids.len() as u32;
                Ok(Response::new(v1::AdoptFilesResponse { files }))
            }
        }
    }

    async fn scan(
        &self,
        request: Request<v1::ScanRequest>,
    ) -> Result<Response<Self::ScanStream>, Status> {
        let scan = request.into_inner();
        let answer = {
            let mut state = self.state.lock();
            Self::check_group(&mut state, scan.group_id)?;
            self.check_leader(&state)?;
            state.scans.push(scan.clone());
            state.scan_answers.pop_front().unwrap_or(ScanAnswer::Normal)
        };
        if let ScanAnswer::Freeze = answer {
            return std::future::pending().await;
        }
        if let ScanAnswer::EmptyForEver = answer {
            let empty = stream::repeat_with(|| Ok(v1::ScanResponse::default()));
            return Ok(Response::new(empty.boxed()));
        }
        let state = self.state.lock();
        if let ScanAnswer::Refuse(refusal) = answer {
            return Err(refusal.into());
        }
        state.check_schema(scan.region_id, scan.schema_version)?;
        let region = state.region(scan.region_id)?;
        let range = KeyRange::new(scan.start, scan.end.map(Into::into)).intersection(region);
        let mut ids = state.contents(&range);
        ids.truncate(scan.limit.map_or(usize::MAX, |limit| limit as usize));
        let done = v1::ScanResponse { done: true, ..Default::default() };
        let mut messages: Vec<v1::ScanResponse> = if scan.count_only {
            vec![v1::ScanResponse { row_count: ids.len() as u64, ..done }]
        } else {
            let batches = ids.chunks(SCAN_ROWS).map(|chunk| {
                let positions: Vec<usize> =
                    scan.projection.iter().map(|id| *id as usize - 1).collect();
                let batch = rows(chunk.iter().copied()).project(&positions).unwrap();
                let row_count = chunk.len() as u64;
                v1::ScanResponse { rows: encode_batch(&batch).unwrap(), row_count, done: false }
            });
            batches.chain([done]).collect()
        };
        if let ScanAnswer::CutAfter(batches) = answer {
            messages.truncate(batches);
        }
        let messages = stream::iter(messages.into_iter().map(Ok));
        if let ScanAnswer::Pause(pause) = answer {
            let later = stream::once(async move {
                tokio::time::sleep(pause).await;
                messages
            });
            return Ok(Response::new(later.flatten().boxed()));
        }
        Ok(Response::new(messages.boxed()))
    }

    async fn get(
        &self,
        request: Request<v1::GetRequest>,
    ) -> Result<Response<v1::GetResponse>, Status> {
        let get = request.into_inner();
        let mut state = self.state.lock();
        Self::check_group(&mut state, get.group_id)?;
        self.check_leader(&state)?;
        state.check_schema(get.region_id, get.schema_version)?;
        let range = state.region(get.region_id)?.clone();
        let keys = decode_batch(&get.keys, &schema().key_arrow())
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let column = keys.column(0).as_any().downcast_ref::<arrow::array::Int64Array>();
        let requested = column.map(|column| column.values().to_vec()).unwrap_or_default();
        for id in &requested {
            if !range.contains(&super::state::row_key(*id)) {
                let reason = v1::Reason::KeyOutsideRegion;
                return Err(Refusal::new(reason, "a key is outside the region").into());
            }
        }
        let found = state.contents(&range).into_iter().filter(|id| requested.contains(id));
        let rows = encode_batch(&rows(found)).unwrap();
        Ok(Response::new(v1::GetResponse { rows }))
    }
}
