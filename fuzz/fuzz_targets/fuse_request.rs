//! Any bytes as a frame of the kernel: decoded or refused, never a panic.
//!
//! The length field is set right, so that the fuzzer does not spend its time on guessing it.

#![no_main]

use gate_fuse::{Incoming, decode};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let mut frame = input.to_vec();
    let len = (frame.len() as u32).to_ne_bytes();
    if let Some(field) = frame.get_mut(..len.len()) {
        field.copy_from_slice(&len);
    }
    if let Ok(Incoming::Forget(forgets)) = decode(&frame) {
        assert!(forgets.count() <= frame.len());
    }
});
