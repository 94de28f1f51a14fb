//! One file is edited again and again: what its bucket takes on the disk then.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::yes_or_no;
use crate::bench::home::Home;
use crate::bench::keeper::Keeper;
use crate::bench::process::mebibytes;
use crate::bench::sample::{print_heads, print_row};
use crate::bench::view::noise;

const NAME: &str = "edited";
const BYTES: usize = 50_000_000;
const EDITS: usize = 1_000;
const PAGE: usize = 4096;
/// What is younger than a day is not collected.
const AGE: Duration = Duration::from_secs(2 * 24 * 60 * 60);
/// Of what is live.
const TIMES_MAX: f64 = 1.5;

/// Measures and prints; returns the figures.
pub fn measure(home: &Home, keeper: &Keeper<'_>) -> io::Result<Value> {
    let point = home.at(NAME);
    let at = point.to_str().expect("we named it");
    keeper.gate(&["bucket", "create", NAME])?;
    keeper.gate(&["mount", "add", NAME, at, "--start"])?;
    let path = point.join("file");
    let mut bytes = vec![0; BYTES];
    noise(1, &mut bytes);
    let mut file = File::create(&path)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    drop(file);
    let mut page = 1;
    for number in 0..EDITS {
        page = (page + 4_051) % (BYTES / PAGE);
        noise(number as u64 + 2, &mut bytes[..PAGE]);
        let file = OpenOptions::new().write(true).open(&path)?;
        file.write_all_at(&bytes[..PAGE], (page * PAGE) as u64)?;
        // A version of its own.
        drop(file);
        keeper.gate(&["bucket", "stat", NAME, "file"])?;
    }
    keeper.gate(&["umount", at])?;
    let versions = keeper.told(&["bucket", "history", NAME, "--json"])?;
    let versions = versions["versions"].as_array().map_or(0, Vec::len);
    let before = stored(keeper)?;
    age(&keeper.state_dir().join("buckets"))?;
    keeper.gate(&["bucket", "gc", NAME, "--keep-from", "@", "--force"])?;
    let after = stored(keeper)?;
    let times = after as f64 / BYTES as f64;
    println!();
    print_heads(&[
        "50 MB, edited 1 000 times",
        "versions",
        "stored",
        "collected",
        "of live",
        "met",
    ]);
    let cells = [versions.to_string(), mebibytes(before), mebibytes(after), format!("{times:.2}×")];
    let met = yes_or_no(times <= TIMES_MAX);
    print_row(&["a bucket", &cells[0], &cells[1], &cells[2], &cells[3], met]);
    Ok(json!({
        "versions": versions,
        "stored_bytes": before,
        "collected_bytes": after,
        "of_live": times,
    }))
}

/// Makes what is stored as old as what is collected; files alone have ages, so that all buckets may.
fn age(buckets: &Path) -> io::Result<()> {
    for bucket in fs::read_dir(buckets)? {
        for pack in fs::read_dir(bucket?.path().join("packs"))? {
            let pack = OpenOptions::new().write(true).open(pack?.path())?;
            pack.set_modified(SystemTime::now() - AGE)?;
        }
    }
    Ok(())
}

fn stored(keeper: &Keeper<'_>) -> io::Result<usize> {
    let told = keeper.told(&["bucket", "list", "--json"])?;
    let mut buckets = told["buckets"].as_array().into_iter().flatten();
    let bytes = buckets.find(|bucket| bucket["name"] == NAME).map(|b| &b["stored_bytes"]);
    let bytes = bytes.and_then(Value::as_u64).and_then(|bytes| usize::try_from(bytes).ok());
    bytes.ok_or_else(|| io::Error::other("the bucket is not told of"))
}
