//! Any bytes as what a client or a broker says: decoded or refused, never a panic; what was decoded
//! says the same again, and is cut alike however it comes.

#![no_main]

use std::fmt::Debug;

use gate_api::frame::{Decoder, PREAMBLE, encode};
use gate_api::wire::{ClientMessage, ServerMessage};
use libfuzzer_sys::fuzz_target;
use serde::{Serialize, de::DeserializeOwned};

fuzz_target!(|input: &[u8]| {
    check::<ClientMessage>(input);
    check::<ServerMessage>(input);
});

fn check<M: Serialize + DeserializeOwned + Debug>(input: &[u8]) {
    let whole = messages::<M>([input].into_iter());
    let bytewise = messages::<M>(input.chunks(1));
    assert_eq!(format!("{whole:?}"), format!("{bytewise:?}"));
    let mut again = Vec::new();
    if whole.iter().all(|message| encode(message, &mut again).is_ok()) {
        let told = messages::<M>([&again[..]].into_iter());
        assert_eq!(format!("{whole:?}"), format!("{told:?}"));
    }
}

fn messages<'a, M: DeserializeOwned>(pieces: impl Iterator<Item = &'a [u8]>) -> Vec<M> {
    let mut decoder = Decoder::default();
    decoder.push(&PREAMBLE);
    assert_eq!(decoder.preamble(), Ok(Some(())));
    let mut messages = Vec::new();
    for piece in pieces {
        decoder.push(piece);
        loop {
            match decoder.message() {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(_) => return messages,
            }
        }
    }
    messages
}
