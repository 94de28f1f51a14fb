//! Any bytes as records of the log: decoded or refused, never a panic; what was decoded says the
//! same again, and can be told as JSON.

#![no_main]

use gate_api::event::Event;
use gate_api::wire::{Cursor, Entry, Record};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let mut rest = input;
    while let Ok((record, after)) = postcard::take_from_bytes::<Record<'static>>(rest) {
        if after.len() == rest.len() {
            return;
        }
        rest = after;
        let bytes = postcard::to_stdvec(&record).expect("plain data");
        assert_eq!(postcard::from_bytes(&bytes).as_ref(), Ok(&record));
        let entry = Entry { cursor: Cursor::START, record };
        serde_json::to_string(&Event::of(&entry)).expect("plain data");
    }
});
