//! Fake administrative services of the meta node. Calls succeed unless a test scripts an RPC error.

use std::sync::Arc;

use parking_lot::Mutex;
use tidewater_proto::v1::{self, admin_server::Admin, hook_admin_server::HookAdmin};
use tokio_stream::Iter;
use tonic::{Request, Response, Status};

use super::state::State;

#[derive(Clone)]
pub(super) struct AdminNode {
    pub(super) state: Arc<Mutex<State>>,
}

impl AdminNode {
    fn respond<T: Default>(&self) -> Result<Response<T>, Status> {
        match self.state.lock().admin_refusals.pop_front() {
            Some(refusal) => Err(refusal.into()),
            None => Ok(Response::new(T::default())),
        }
    }
}

#[tonic::async_trait]
impl Admin for AdminNode {
    async fn create_table(
        &self,
        _request: Request<v1::CreateTableRequest>,
    ) -> Result<Response<v1::CreateTableResponse>, Status> {
        self.respond()
    }

    async fn drop_table(
        &self,
        _request: Request<v1::DropTableRequest>,
    ) -> Result<Response<v1::DropTableResponse>, Status> {
        self.respond()
    }

    async fn alter_table(
        &self,
        _request: Request<v1::AlterTableRequest>,
    ) -> Result<Response<v1::AlterTableResponse>, Status> {
        self.respond()
    }

    async fn reserve_table(
        &self,
        _request: Request<v1::ReserveTableRequest>,
    ) -> Result<Response<v1::ReserveTableResponse>, Status> {
        self.respond()
    }

    async fn save_routes(
        &self,
        _request: Request<v1::SaveRoutesRequest>,
    ) -> Result<Response<v1::SaveRoutesResponse>, Status> {
        self.respond()
    }

    async fn open_table(
        &self,
        _request: Request<v1::OpenTableRequest>,
    ) -> Result<Response<v1::OpenTableResponse>, Status> {
        self.respond()
    }

    async fn drain_node(
        &self,
        _request: Request<v1::DrainNodeRequest>,
    ) -> Result<Response<v1::DrainNodeResponse>, Status> {
        self.respond()
    }

    async fn remove_node(
        &self,
        _request: Request<v1::RemoveNodeRequest>,
    ) -> Result<Response<v1::RemoveNodeResponse>, Status> {
        self.respond()
    }

    async fn clone_table(
        &self,
        _request: Request<v1::CloneTableRequest>,
    ) -> Result<Response<v1::CloneTableResponse>, Status> {
        self.respond()
    }

    async fn begin_load(
        &self,
        request: Request<v1::BeginLoadRequest>,
    ) -> Result<Response<v1::BeginLoadResponse>, Status> {
        self.state.lock().load_begins.push(request.into_inner());
        self.respond()
    }

    async fn end_load(
        &self,
        request: Request<v1::EndLoadRequest>,
    ) -> Result<Response<v1::EndLoadResponse>, Status> {
        self.state.lock().load_ends.push(request.into_inner());
        self.respond()
    }

    async fn truncate_table(
        &self,
        _request: Request<v1::TruncateTableRequest>,
    ) -> Result<Response<v1::TruncateTableResponse>, Status> {
        self.respond()
    }

    async fn merge_routes(
        &self,
        _request: Request<v1::MergeRoutesRequest>,
    ) -> Result<Response<v1::MergeRoutesResponse>, Status> {
        self.respond()
    }

    async fn move_route(
        &self,
        _request: Request<v1::MoveRouteRequest>,
    ) -> Result<Response<v1::MoveRouteResponse>, Status> {
        self.respond()
    }

    async fn split_route(
        &self,
        _request: Request<v1::SplitRouteRequest>,
    ) -> Result<Response<v1::SplitRouteResponse>, Status> {
        self.respond()
    }

    type CollectGarbageStream = Iter<std::vec::IntoIter<Result<v1::GarbageEvent, Status>>>;

    async fn collect_garbage(
        &self,
        _request: Request<v1::CollectGarbageRequest>,
    ) -> Result<Response<Self::CollectGarbageStream>, Status> {
        let report = self.respond::<v1::GarbageReport>()?.into_inner();
        let last = v1::GarbageEvent { objects: Vec::new(), report: Some(report) };
        Ok(Response::new(tokio_stream::iter(vec![Ok(last)])))
    }

    async fn cluster_status(
        &self,
        _request: Request<v1::ClusterStatusRequest>,
    ) -> Result<Response<v1::ClusterStatusResponse>, Status> {
        self.respond()
    }

    async fn list_meta_members(
        &self,
        _request: Request<v1::ListMetaMembersRequest>,
    ) -> Result<Response<v1::ListMetaMembersResponse>, Status> {
        let members = self.state.lock().members.clone();
        Ok(Response::new(v1::ListMetaMembersResponse { members, ..Default::default() }))
    }

    async fn change_meta_member(
        &self,
        _request: Request<v1::ChangeMetaMemberRequest>,
    ) -> Result<Response<v1::ChangeMetaMemberResponse>, Status> {
        let mut state = self.state.lock();
        match state.member_refusals.pop_front() {
            Some(refusal) => Err(refusal.into()),
            None => {
                let members = state.members.clone();
                Ok(Response::new(v1::ChangeMetaMemberResponse { members }))
            }
        }
    }

    async fn transfer_group_leader(
        &self,
        _request: Request<v1::TransferGroupLeaderRequest>,
    ) -> Result<Response<v1::TransferGroupLeaderResponse>, Status> {
        self.respond()
    }

    async fn advise_routes(
        &self,
        _request: Request<v1::AdviseRoutesRequest>,
    ) -> Result<Response<v1::AdviseRoutesResponse>, Status> {
        self.respond()
    }

    async fn get_balance(
        &self,
        _request: Request<v1::GetBalanceRequest>,
    ) -> Result<Response<v1::GetBalanceResponse>, Status> {
        self.respond()
    }

    async fn set_balance(
        &self,
        _request: Request<v1::SetBalanceRequest>,
    ) -> Result<Response<v1::SetBalanceResponse>, Status> {
        self.respond()
    }

    async fn replace_meta_member(
        &self,
        _request: Request<v1::ReplaceMetaMemberRequest>,
    ) -> Result<Response<v1::ReplaceMetaMemberResponse>, Status> {
        self.respond()
    }

    async fn bench_command(
        &self,
        _request: Request<v1::BenchCommandRequest>,
    ) -> Result<Response<v1::BenchCommandResponse>, Status> {
        self.respond()
    }
}

#[tonic::async_trait]
impl HookAdmin for AdminNode {
    async fn add_hook(
        &self,
        _request: Request<v1::AddHookRequest>,
    ) -> Result<Response<v1::AddHookResponse>, Status> {
        self.respond()
    }

    async fn set_hook_paused(
        &self,
        _request: Request<v1::SetHookPausedRequest>,
    ) -> Result<Response<v1::SetHookPausedResponse>, Status> {
        self.respond()
    }

    async fn remove_hook(
        &self,
        _request: Request<v1::RemoveHookRequest>,
    ) -> Result<Response<v1::RemoveHookResponse>, Status> {
        self.respond()
    }

    async fn list_hooks(
        &self,
        _request: Request<v1::ListHooksRequest>,
    ) -> Result<Response<v1::ListHooksResponse>, Status> {
        self.respond()
    }
}
