//! The real `gate`, driven from outside: one binary, a module for each topic.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod advisory;
mod at_once;
mod attributes;
mod bench;
mod beside;
mod buckets;
mod bypass;
mod bytes;
mod client;
mod coherence;
mod configured;
mod daemon;
mod deaths;
mod differs;
mod doctor;
mod doors;
mod earlier;
mod env;
mod everyday;
mod examples;
mod faults;
mod fences;
mod fstab;
mod guard;
mod histories;
mod hold;
mod house;
mod in_place;
mod interrupt;
mod likeness;
mod log;
mod looking;
mod managed;
mod overlaps;
mod owners;
mod package;
mod perms;
mod policies;
mod posix;
mod private;
mod recall;
mod releases;
mod rest;
mod restart;
mod slow;
mod spaces;
mod stories;
mod tools;
mod top;
mod turns;
mod twin;
mod units;
mod v1;
mod watchers;
mod web;

/// No file of this directory is forgotten.
#[test]
fn every_file_here_is_a_module() {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("it");
    let main = std::fs::read_to_string(dir.join("main.rs")).unwrap();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let stem = path.file_stem().unwrap().to_str().unwrap().to_owned();
        assert!(stem == "main" || main.contains(&format!("mod {stem};")), "{stem} is forgotten");
    }
}
