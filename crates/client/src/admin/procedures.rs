//! Calls that list, describe and cancel procedures.

use tidewater_common::ids::GroupId;
use tidewater_common::quote::quoted;
use tidewater_proto::v1;
use tidewater_rpc::timed;

use crate::client::Client;
use crate::core::Repeat;
use crate::error::ClientError;

impl Client {
    /// Returns the running procedures by begin, at most 1,000, then at most `ended` ended ones, the last one first; 0:
    /// 100.
    ///
    /// # Errors
    /// The meta service cannot be reached or has no leader; [`ClientError::Refused`] with `Unsupported` from an
    /// earlier release.
    pub async fn procedures(&self, ended: u32) -> Result<Vec<v1::ProcedureInfo>, ClientError> {
        let request = v1::ListProceduresRequest { ended };
        let router = &self.core.router;
        let longest = self.options().attempt_timeout;
        let response = self
            .core
            .call(GroupId::META, "procedures", Repeat::Read, longest, |channel, timeout| {
                let mut client = router.procedures(channel);
                async move { client.list_procedures(timed(request, timeout)).await }
            })
            .await?;
        Ok(response.procedures)
    }

    /// Returns a procedure, also within 24 hours after its end.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with `ProcedureNotFound` and others.
    pub async fn procedure(&self, id: &str) -> Result<v1::ProcedureInfo, ClientError> {
        let what = format!("procedure {}", quoted(id));
        let request = v1::DescribeProcedureRequest { procedure_id: id.to_owned() };
        let router = &self.core.router;
        let longest = self.options().attempt_timeout;
        let response = self
            .core
            .call(GroupId::META, &what, Repeat::Read, longest, |channel, timeout| {
                let mut client = router.procedures(channel);
                let request = request.clone();
                async move { client.describe_procedure(timed(request, timeout)).await }
            })
            .await?;
        Ok(response.procedure.unwrap_or_default())
    }

    /// Abandons a procedure before its point of no return, and returns it as it is then: what it has done may
    /// still have to be taken back. A lost response is harmless.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with `ProcedureNotFound`, `ProcedureNotAbandonable` and others.
    pub async fn cancel_procedure(&self, id: &str) -> Result<v1::ProcedureInfo, ClientError> {
        let what = format!("cancelling procedure {}", quoted(id));
        let request = v1::CancelProcedureRequest { procedure_id: id.to_owned() };
        let router = &self.core.router;
        let longest = self.options().attempt_timeout;
        let response = self
            .core
            .call(GroupId::META, &what, Repeat::Idempotent, longest, |channel, timeout| {
                let mut client = router.procedures(channel);
                let request = request.clone();
                async move { client.cancel_procedure(timed(request, timeout)).await }
            })
            .await?;
        Ok(response.procedure.unwrap_or_default())
    }
}
