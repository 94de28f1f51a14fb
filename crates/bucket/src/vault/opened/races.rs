//! Those who want the same chunks at once, in every order that chance finds.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use gate_core::tree::id::Address;
use shuttle::thread;

use super::*;

/// How many orders of each kind are tried, unless the environment says `GATE_ORDERS`.
const ORDERS: usize = 1000;

/// At how many points an order of the second kind prefers another thread.
const CHANGES: usize = 4;

const READERS: usize = 3;
const BYTES: usize = 10;
const LONG: Duration = Duration::from_secs(3600);

fn in_many_orders(test: impl Fn() + Send + Sync + Copy + 'static) {
    let asked = std::env::var("GATE_ORDERS").ok().and_then(|orders| orders.parse().ok());
    let orders = asked.unwrap_or(ORDERS);
    shuttle::check_random(test, orders);
    shuttle::check_pct(test, orders, CHANGES);
}

fn whole(n: u8) -> ChunkRef {
    let len = u32::try_from(BYTES).expect("it is small");
    ChunkRef { address: Address([n; 32]), key: [n; 32], plain_len: len, from: 0, len }
}

/// What is kept is what is counted, is within its bounds, and nobody is believed to be opening anything.
fn must_be_at_rest(opened: &Opened) {
    let kept = opened.lock();
    assert!(kept.opening.is_empty(), "left: {:?}", kept.opening.keys());
    assert_eq!(kept.bytes, kept.chunks.len() * BYTES);
    assert!(kept.bytes <= kept.bounds.bytes_max);
    assert_eq!(kept.turns.len(), kept.chunks.len());
    for (turn, (chunk, _)) in &kept.turns {
        assert_eq!(kept.chunks[chunk].0, *turn);
    }
}

/// Opening fails so many times: as many readers are told, or all of them, and the others have what one opened.
#[test]
fn of_those_who_want_one_at_once_one_opens_it_whoever_fails() {
    in_many_orders(|| {
        for fails in 0..=READERS {
            let bounds = Cache { bytes_max: BYTES, age_max: LONG };
            let opened = Arc::new(Opened::new(bounds));
            let is_opening = Arc::new(AtomicBool::new(false));
            let tried = Arc::new(AtomicUsize::new(0));
            let read = |_| {
                let opened = Arc::clone(&opened);
                let (is_opening, tried) = (Arc::clone(&is_opening), Arc::clone(&tried));
                let open = move || {
                    assert!(!is_opening.swap(true, Ordering::SeqCst), "two open it at once");
                    thread::yield_now();
                    is_opening.store(false, Ordering::SeqCst);
                    let is_there = tried.fetch_add(1, Ordering::SeqCst) >= fails;
                    is_there.then(|| Arc::new(Plain::of(vec![7; BYTES]))).ok_or(())
                };
                thread::spawn(move || opened.get_or_open(&whole(1), open).is_ok())
            };
            let readers: Vec<_> = (0..READERS).map(read).collect();
            let has = readers.into_iter().map(|reader| reader.join().unwrap());
            assert_eq!(has.filter(|has| *has).count(), READERS - fails);
            assert_eq!(tried.load(Ordering::SeqCst), READERS.min(fails + 1));
            must_be_at_rest(&opened);
        }
    });
}

/// Two chunks are wanted where there is room for one, while somebody lets go of all and changes the bounds.
#[test]
fn what_is_kept_is_what_is_counted_whoever_lets_go_of_it() {
    in_many_orders(|| {
        let bounds = |chunks| Cache { bytes_max: chunks * BYTES, age_max: LONG };
        let opened = Arc::new(Opened::new(bounds(1)));
        let readers = (0..READERS).map(|reader| {
            let opened = Arc::clone(&opened);
            thread::spawn(move || {
                for n in [reader % 2, 1 - reader % 2] {
                    let n = u8::try_from(n).unwrap();
                    let open = || Ok::<_, ()>(Arc::new(Plain::of(vec![n; BYTES])));
                    let found = opened.get_or_open(&whole(n), open).unwrap();
                    assert_eq!(*found, [n; BYTES]);
                }
            })
        });
        let readers: Vec<_> = readers.collect();
        opened.let_go_of_old(Instant::now() + LONG * 2);
        opened.set_bounds(bounds(2));
        for reader in readers {
            reader.join().unwrap();
        }
        must_be_at_rest(&opened);
    });
}
