//! Buckets: sealed trees of files, every version kept.
//!
//! What lies on the disk is in `docs/bucket-format.md`, what it means in `gate_core::tree`.

pub mod bucket;
pub mod cut;
pub mod entry;
pub mod envelope;
pub mod feed;
pub mod frames;
pub mod genesis;
#[cfg(test)]
mod golden;
pub mod hash;
pub mod identity;
pub mod index;
pub mod members;
pub mod pack;
pub mod random;
pub mod record;
pub mod seal;
pub mod sectors;
pub mod shelf;
pub mod sign;
pub mod store;
pub mod whole;
