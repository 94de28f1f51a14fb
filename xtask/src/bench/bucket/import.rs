//! Many small files are put in, and looked at.

use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use serde_json::{Value, json};

use super::{done, yes_or_no};
use crate::bench::home::Home;
use crate::bench::keeper::Keeper;
use crate::bench::sample::{Samples, paired, print_heads, print_row, ratio, show};
use crate::bench::view::{BUCKET, GOCRYPTFS, Place, noise};

pub const FILES: usize = 50_000;
const IN_ONE: usize = 1_000;
const FILE_BYTES: usize = 1_500;
const ROUNDS: usize = 3;
const LOOKS: usize = 5;
/// Files a second.
const RATE_MIN: f64 = 5_000.0;
/// Beside gocryptfs.
const TIMES_MAX: f64 = 2.0;

/// Measures and prints; returns the figures.
pub fn measure(home: &Home, places: &[Place<'_>], keeper: &Keeper<'_>) -> io::Result<Value> {
    let sources: Vec<_> = (0..ROUNDS).map(|round| home.at(&format!("many-{round}"))).collect();
    for (round, source) in sources.iter().enumerate() {
        // No two rounds bring the same.
        make(source, FILES, FILE_BYTES, round * FILES)?;
    }
    let put = paired("import", places.len(), ROUNDS, |number, round| {
        let (place, source) = (&places[number], &sources[round]);
        let name = format!("imported-{round}");
        let started = Instant::now();
        if place.name == BUCKET {
            let source = source.to_str().expect("we named it");
            keeper.gate(&["bucket", "import", BUCKET, source, &format!("/{name}")])?;
        } else {
            done(Command::new("cp").arg("-r").arg(source).arg(place.site.dir.join(name)))?;
        }
        io::Result::Ok(started.elapsed())
    })?;
    let looked = paired("ls -lR", places.len(), LOOKS, |number, _| {
        // Nobody's kernel knows a name of it.
        rustix::fs::sync();
        fs::write("/proc/sys/vm/drop_caches", "2")?;
        let started = Instant::now();
        done(Command::new("ls").arg("-lR").arg(places[number].site.dir.join("imported-0")))?;
        io::Result::Ok(started.elapsed())
    })?;
    sources.iter().try_for_each(fs::remove_dir_all)?;
    Ok(tell(places, &put, &looked))
}

fn tell(places: &[Place<'_>], put: &[Samples], looked: &[Samples]) -> Value {
    let of = |name, samples: &[Samples]| {
        let number = places.iter().position(|place| place.name == name).expect("it takes part");
        samples[number].median()
    };
    let rate = |samples: &Samples| FILES as f64 / samples.median().as_secs_f64();
    println!();
    let title = format!("{FILES} files of {FILE_BYTES} B");
    print_heads(&[&title, "put", "a second", "ls -lR", "ours/this"]);
    let ours = of(BUCKET, looked);
    let mut rows = Vec::new();
    for ((place, put), looked) in places.iter().zip(put).zip(looked) {
        let (put_in, look) = (put.median(), looked.median());
        let rate = rate(put);
        let cells = [show(put_in), format!("{rate:.0}"), show(look), ratio(ours, look)];
        print_row(&[place.name, &cells[0], &cells[1], &cells[2], &cells[3]]);
        rows.push(json!({
            "place": place.name,
            "put_s": put_in.as_secs_f64(),
            "files_per_s": rate,
            "ls_s": look.as_secs_f64(),
        }));
    }
    let rate = FILES as f64 / of(BUCKET, put).as_secs_f64();
    let times = ours.as_secs_f64() / of(GOCRYPTFS, looked).as_secs_f64();
    println!("bar: put ≥ {RATE_MIN:.0} a second: {rate:.0}, met: {}", yes_or_no(rate >= RATE_MIN));
    let met = yes_or_no(times <= TIMES_MAX);
    println!("bar: ls -lR ≤ {TIMES_MAX:.2}× gocryptfs: {times:.2}×, met: {met}");
    json!(rows)
}

/// Makes files full of noise, in directories of a thousand; the first has the noise of `first`.
pub fn make(dir: &Path, files: usize, bytes: usize, first: usize) -> io::Result<()> {
    let mut text = vec![0; bytes];
    for number in 0..files {
        let within = dir.join((number / IN_ONE).to_string());
        if number % IN_ONE == 0 {
            fs::create_dir_all(&within)?;
        }
        noise((first + number) as u64 + 1, &mut text);
        fs::write(within.join(format!("file-{number}")), &text)?;
    }
    Ok(())
}
