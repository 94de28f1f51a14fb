//! A bucket's tree: what can be done to it, and what is there when it was done.

pub mod id;
pub mod op;
pub mod seen;
