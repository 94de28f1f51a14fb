//! Any text as each small thing that is read as text: a file of tokens, what follows the `?` of a
//! request, the id of a lock, the record of a kept version. Understood or refused, never a panic.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    gate_api::fuzzing::token_file(text);
    gate_broker::fuzzing::http_query(text);
    gate_broker::fuzzing::lock_id(text);
    gate_view::fuzzing::kept_record(text.as_bytes());
});
