//! The services of a stub node: calls of the meta leader and of clients.

mod barriers;
mod control;
mod data;
mod region_admin;

pub(super) use barriers::BarrierService;
pub(super) use control::ControlService;
pub(super) use data::DataService;
pub(super) use region_admin::RegionService;
