//! The rules, tested: timelines as text, laws against a naive model.

mod bounds;
mod corners;
mod cycles;
mod lives;
mod model;
mod revoked;
mod script;
mod timelines;
mod worlds;
