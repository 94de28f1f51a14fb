//! What holds for the code itself and no compiler sees.

use std::fs;
use std::path::{Path, PathBuf};

/// What core's sources may name of the standard library beside collections and formatting would
/// be a clock, a disk, a socket, a thread or a program.
const OUTSIDE: [&str; 9] = [
    "std::fs",
    "std::io",
    "std::net",
    "std::os",
    "std::env",
    "std::process",
    "std::thread",
    "Instant::now",
    "SystemTime",
];

/// Tests of core ask whether this is the long tier.
const LONG_TIER: &str = "std::env";

/// N10: beside the bans in core's clippy.toml, nothing that does I/O is named there or used.
#[test]
fn n10_core_names_nothing_that_does_io() {
    let core = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/core");
    let mut seen = 0;
    for path in sources(&core.join("src")) {
        let text = fs::read_to_string(&path).unwrap();
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        let is_test = path.iter().any(|part| part == "tests");
        for line in code {
            let named = OUTSIDE.iter().find(|outside| line.contains(**outside));
            let named = named.filter(|outside| !is_test || **outside != LONG_TIER);
            assert_eq!(named, None, "{}: {line}", path.display());
        }
        seen += 1;
    }
    assert!(seen > 10, "these are core's sources");
    let manifest = fs::read_to_string(core.join("Cargo.toml")).unwrap();
    let used = manifest.split("[dependencies]").nth(1).unwrap().split("\n[").next().unwrap();
    let used: Vec<_> = used.lines().filter_map(|line| line.split(['.', ' ', '=']).next()).collect();
    let used: Vec<_> = used.into_iter().filter(|name| !name.is_empty()).collect();
    assert_eq!(
        used,
        ["blake3", "postcard", "rustc-hash", "serde", "slab"],
        "a crate that core uses does no I/O: look at it first"
    );
}

/// It is for mistakes, not for power cuts, and who overwrites waits for it.
#[test]
fn what_the_guard_keeps_is_not_synced() {
    let view = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/view/src");
    let kept = [sources(&view.join("kept")), vec![view.join("kept.rs")]].concat();
    assert!(kept.len() > 2, "{kept:?}");
    for path in kept {
        let text = fs::read_to_string(&path).unwrap();
        let syncs = ["sync_all", "sync_data", "fsync", "fdatasync", "syncfs"];
        let named = syncs.iter().find(|sync| text.contains(**sync));
        assert_eq!(named, None, "{}: mend docs/semantics.md", path.display());
    }
}

fn sources(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let found = entries.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] });
    found.collect()
}
