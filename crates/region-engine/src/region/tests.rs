mod crash;
mod damage;
mod format;
mod memory;
mod model;
mod ownership;
mod types;
mod world;
