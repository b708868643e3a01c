//! Settings of the balance of routes.

use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{self, meta_command::Kind};

use super::AdminService;

impl AdminService {
    pub(super) async fn balance(&self) -> Result<v1::GetBalanceResponse, Refusal> {
        let running = self.slot.get()?;
        running.group.check_leading()?;
        running.group.linearize().await?;
        let settings = running.group.view.read().balance();
        Ok(v1::GetBalanceResponse { settings: Some(settings.into()) })
    }

    pub(super) async fn change_balance(
        &self,
        request: v1::SetBalanceRequest,
    ) -> Result<v1::SetBalanceResponse, Refusal> {
        let running = self.slot.get()?;
        running.propose_at_level(Kind::SetBalance(request)).await?;
        let settings = running.group.view.read().balance();
        Ok(v1::SetBalanceResponse { settings: Some(settings.into()) })
    }
}
