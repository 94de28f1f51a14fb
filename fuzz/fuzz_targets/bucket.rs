//! Any bytes as each file of a bucket, and as what is sealed in them: read or refused, never a panic, and
//! what was read is written so again. The first byte says which.

#![no_main]

use gate_bucket::checkpoint::Checkpoint;
use gate_bucket::entry::Entry;
use gate_bucket::fuzzing;
use gate_bucket::genesis::Genesis;
use gate_bucket::identity::Identity;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((which, bytes)) = input.split_first() else { return };
    match which {
        b'e' => {
            if let Ok(entry) = Entry::decode(bytes) {
                assert_eq!(entry.bytes(), bytes);
            }
        }
        b'o' => fuzzing::ops(bytes),
        b'g' => {
            if let Ok(genesis) = Genesis::decode(bytes) {
                assert_eq!(genesis.bytes(), bytes);
            }
        }
        b'l' => fuzzing::log(bytes),
        b'm' => fuzzing::member(bytes),
        b'c' => fuzzing::chunk(bytes),
        b'p' => {
            if let Ok(checkpoint) = Checkpoint::decode(bytes) {
                assert_eq!(checkpoint.bytes(), bytes);
            }
        }
        b'r' => fuzzing::checkpoint(bytes),
        // No passphrase is tried: each would take its time.
        b'i' => {
            if let Ok(identity) = Identity::decode(bytes, None) {
                assert_eq!(*identity.encode(None).unwrap(), bytes);
            }
        }
        _ => {}
    }
});
