//! Tests of the service over a port, on regions of the engine.

mod bad_input;
mod events;
mod jobs;
mod lives;
