//! The rules, tested.
