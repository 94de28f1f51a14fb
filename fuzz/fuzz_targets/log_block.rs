//! Any bytes as a block of the log: its records, or how many are missing, never a panic.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| gate_broker::fuzzing::log_block(input));
