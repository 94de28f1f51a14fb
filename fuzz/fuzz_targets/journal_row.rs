//! Any bytes as a row of the journal: understood or refused, never a panic; what was understood is
//! written again as the same thing.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| gate_broker::fuzzing::journal_rows(input));
