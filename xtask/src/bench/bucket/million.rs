//! A bucket of a million files: how soon it is shown, and what the daemon needs for it.

use std::fs;
use std::io;
use std::process::Command;
use std::time::Instant;

use serde_json::{Value, json};

use super::{done, import, yes_or_no};
use crate::bench::home::Home;
use crate::bench::keeper::Keeper;
use crate::bench::peer::samples;
use crate::bench::process::{mebibytes, peak_bytes, resident_bytes};
use crate::bench::sample::{print_heads, print_row, show};

const NAME: &str = "million";
const FILES: usize = 1_000_000;
const FILE_BYTES: usize = 100;
const ROUNDS: usize = 5;
const SHOWN_SECONDS_MAX: f64 = 1.0;

pub struct Million {
    pub figures: Value,
    /// What the daemon needed at most while they were put in.
    pub peak: usize,
}

/// Measures and prints; returns the figures.
pub fn measure(home: &Home, keeper: &Keeper<'_>) -> io::Result<Million> {
    // In memory: only where they come from.
    let source = home.at("million-source");
    fs::create_dir(&source)?;
    let mut mount = Command::new("mount");
    done(mount.args(["-t", "tmpfs", "-o", "nr_inodes=0", "tmpfs"]).arg(&source))?;
    import::make(&source, FILES, FILE_BYTES, 0)?;
    let point = home.at(NAME);
    let [from, at] = [&source, &point].map(|path| path.to_str().expect("we named it"));
    keeper.gate(&["bucket", "create", NAME])?;
    let started = Instant::now();
    keeper.gate(&["bucket", "import", NAME, from])?;
    let put = started.elapsed();
    done(Command::new("umount").arg(&source))?;
    let peak = peak_bytes(keeper.pid()?)?;
    keeper.gate(&["mount", "add", NAME, at])?;
    let (mut times, mut resident) = (Vec::new(), 0);
    for _ in 0..ROUNDS {
        keeper.stop()?;
        keeper.start()?;
        let started = Instant::now();
        keeper.gate(&["mount", "start", at])?;
        fs::read(point.join("999/file-999999"))?;
        times.push(started.elapsed());
        resident = resident_bytes(keeper.pid()?)?.max(resident);
    }
    let times = samples(times);
    println!();
    print_heads(&["a bucket of a million files", "put", "shown", "worst", "memory", "met"]);
    let [shown, worst] = [times.median(), times.percentile(100)];
    let met = yes_or_no(shown.as_secs_f64() <= SHOWN_SECONDS_MAX);
    let cells = [show(put), show(shown), show(worst), mebibytes(resident)];
    print_row(&["", &cells[0], &cells[1], &cells[2], &cells[3], met]);
    let figures = json!({
        "put_s": put.as_secs_f64(),
        "shown_s": shown.as_secs_f64(),
        "worst_s": worst.as_secs_f64(),
        "resident_bytes": resident,
    });
    Ok(Million { figures, peak })
}
