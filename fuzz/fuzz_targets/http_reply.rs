//! Any bytes as what a broker answers over HTTP: understood or refused, never a panic; the same
//! however it comes, and never longer than it may be.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| gate_api::fuzzing::http_reply(input));
