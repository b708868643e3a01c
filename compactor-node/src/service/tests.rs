//! The service as owners see it: over a port, on regions of the engine.

mod bad_input;
mod jobs;
mod lives;
