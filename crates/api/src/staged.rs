//! The stage for tests that try the orders in which threads can run: they are shuttle's, which
//! chooses who runs next at each lock, channel and atomic.
//!
//! [`clock`] stands still until a test lets time pass, so that no late clock heals a wake-up that
//! was missed. [`broker`] is a broker of one lock. [`in_many_orders`] runs a test.

pub mod broker;
pub mod clock;

use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::{Config, Runner};

/// How many orders of each kind are tried, unless the environment says `GATE_ORDERS`.
const ORDERS: usize = 1000;

/// At how many points an order of the second kind prefers another thread.
const CHANGES: usize = 4;

/// Debug builds need deep stacks.
const STACK_BYTES: usize = 256 << 10;

/// Runs a test with threads that are chosen by chance at each step, and with threads that run on
/// until one of a few points, which finds what takes one long delay. A failure prints its order:
/// `shuttle::replay` runs it again.
pub fn in_many_orders(test: impl Fn() + Send + Sync + Copy + 'static) {
    let asked = std::env::var("GATE_ORDERS").ok().and_then(|orders| orders.parse().ok());
    let orders = asked.unwrap_or(ORDERS);
    let mut config = Config::new();
    config.stack_size = STACK_BYTES;
    config.silence_warnings = true;
    Runner::new(RandomScheduler::new(orders), config.clone()).run(test);
    Runner::new(PctScheduler::new(CHANGES, orders), config).run(test);
}
