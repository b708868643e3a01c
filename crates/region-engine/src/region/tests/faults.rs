//! Storage failures and damaged objects.

mod crash;
mod damage;
mod object_damage;
