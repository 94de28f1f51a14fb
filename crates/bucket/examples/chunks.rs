//! How fast chunks are sealed, opened, put and read: `cargo run --release -p gate-bucket --example chunks [DIR]`.

use std::path::PathBuf;
use std::time::Instant;

use gate_bucket::hash::Secret;
use gate_bucket::seal::{ChunkKeys, Workbench};
use gate_bucket::store::Store;

const SMALL: usize = 1500;
const LARGE: usize = 64 * 1024;
const CHUNKS: usize = 50_000;

fn main() {
    let dir = std::env::args_os().nth(1).map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = dir.join(format!("gate-chunks-{}", std::process::id()));
    let keys = ChunkKeys::of_epoch(&Secret::new([1; 32]));
    let noise = noise(SMALL * CHUNKS);
    seal_and_open(&keys, &noise, LARGE);
    seal_and_open(&keys, &noise, SMALL);
    put_and_get(&dir, &keys, &noise);
    std::fs::remove_dir_all(&dir).expect("the directory is ours");
}

fn seal_and_open(keys: &ChunkKeys, bytes: &[u8], len: usize) {
    let mut bench = Workbench::new();
    let begun = Instant::now();
    let sealed: Vec<_> =
        bytes.chunks(len).map(|plain| bench.seal(keys, plain).expect("it is short")).collect();
    say(&format!("seal {len}"), begun, sealed.len(), bytes.len());
    let count = sealed.len();
    let begun = Instant::now();
    for sealed in sealed {
        bench.open([keys], &sealed.chunk, sealed.bytes).expect("it was just sealed");
    }
    say(&format!("open {len}"), begun, count, bytes.len());
}

fn put_and_get(dir: &std::path::Path, keys: &ChunkKeys, bytes: &[u8]) {
    let store = Store::open(dir, &[2; 64]).expect("the directory is new");
    let begun = Instant::now();
    let mut chunks = Vec::new();
    for batch in bytes.chunks(SMALL * 5000) {
        chunks.extend(batch.chunks(SMALL).map(|plain| store.put(keys, plain).expect("put")));
        store.sync().expect("sync");
    }
    say(&format!("put {SMALL}, a sync each 5000"), begun, chunks.len(), bytes.len());
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for half in chunks.chunks(chunks.len().div_ceil(2)) {
            let store = &store;
            scope.spawn(move || {
                for chunk in half {
                    store.get([keys], chunk).expect("it was put");
                }
            });
        }
    });
    say(&format!("get {SMALL}, two threads"), begun, chunks.len(), bytes.len());
}

/// Bytes that do not get smaller, which is the slow case.
fn noise(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
}

fn say(what: &str, begun: Instant, count: usize, bytes: usize) {
    let seconds = begun.elapsed().as_secs_f64();
    let rate = count as f64 / seconds;
    println!("{what:32} {rate:10.0}/s {:8.0} MB/s", bytes as f64 / seconds / 1e6);
}
