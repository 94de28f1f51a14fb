//! The bytes of one value of every kind of message, for clients in other languages.
//!
//! They lie in `clients/python/tests/frames.json`, each beside its value. If they no longer match
//! the wire changed: what was released takes a new [`crate::frame::PROTOCOL_VERSION`]. Write the
//! file anew with `GATE_WRITE_FRAMES=1 cargo nextest run -p gate-api golden`, and teach the client
//! there: `clients/python/src/gate_client/_messages.py`.

use std::fmt::Write as _;
use std::path::Path;

use postcard::de_flavors::Slice;
use serde::Serialize;
use serde_json::{Map, Value};

use super::{
    ClientMessage, Deed, Fate, Former, Happening, Known, LineState, MaxHold, Origin, Party, Pass,
    Presence, Query, Reply, Scope, ServerMessage, Stretch,
};
use crate::frame;
use crate::mirror::{
    AccessDef, ChangeDef, LimitDef, NodeDef, OpDef, PatienceDef, RecallCauseDef, RecallStageDef,
    RefusalDef, RevocationDef, StandstillDef,
};

mod samples;

use samples::{client_messages, server_messages};

const FILE: &str = "../../clients/python/tests/frames.json";

#[test]
fn golden_frames_are_as_other_clients_know_them() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(FILE);
    let text = text();
    if std::env::var_os("GATE_WRITE_FRAMES").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let known = std::fs::read_to_string(&path).unwrap();
    for (known, now) in known.lines().zip(text.lines()) {
        assert_eq!(known, now, "the wire changed: see the head of this file");
    }
    assert_eq!(known.len(), text.len(), "there is another kind: see the head of this file");
}

#[test]
fn golden_frames_have_every_variant() {
    let text = text();
    let frames: Value = serde_json::from_str(&text).unwrap();
    for (kinds, messages) in [("ClientMessage", "client"), ("ServerMessage", "server")] {
        let seen: std::collections::BTreeSet<&str> = frames[messages]
            .as_array()
            .unwrap()
            .iter()
            .map(|frame| variant(&frame["value"]))
            .collect();
        assert_eq!(Some(seen.len() as u64), frames["variants"][kinds].as_u64(), "{seen:?}");
    }
}

/// Names the variant of a value.
fn variant(value: &Value) -> &str {
    match value {
        Value::Object(fields) => fields.keys().next().unwrap(),
        name => name.as_str().unwrap(),
    }
}

fn text() -> String {
    let variants = serde_json::to_string(&variants()).unwrap();
    let mut text =
        format!("{{\"version\":{},\n\"variants\":{variants},\n", frame::PROTOCOL_VERSION);
    let client: Vec<String> = client_messages().iter().map(line).collect();
    let server: Vec<String> = server_messages().iter().map(line).collect();
    let _ = writeln!(text, "\"client\":[\n{}],", client.join(",\n"));
    let _ = writeln!(text, "\"server\":[\n{}]}}", server.join(",\n"));
    text
}

fn line(message: &impl Serialize) -> String {
    let mut bytes = Vec::new();
    frame::encode(message, &mut bytes).unwrap();
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{{\"frame\":\"{hex}\",\"value\":{}}}", serde_json::to_string(message).unwrap())
}

type Bytes<'a, 'de> = &'a mut postcard::Deserializer<'de, Slice<'de>>;

/// Counts an enum's variants: a number that is none is told from bytes that are missing.
fn count<T>(read: impl Fn(Bytes<'_, '_>) -> postcard::Result<T>) -> Value {
    let is_variant = |number: &u8| {
        let bytes = [*number];
        let read = read(&mut postcard::Deserializer::from_bytes(&bytes));
        !matches!(read, Err(postcard::Error::SerdeDeCustom))
    };
    (0..0x80).take_while(is_variant).count().into()
}

fn variants() -> Map<String, Value> {
    fn of<T: serde::de::DeserializeOwned>() -> Value {
        count(|from| T::deserialize(from))
    }
    let counts = [
        ("Access", count(|from| AccessDef::deserialize(from))),
        ("Answer", of::<Reply>()),
        ("Change", count(|from| ChangeDef::deserialize(from))),
        ("ClientMessage", of::<ClientMessage>()),
        ("Deed", of::<Deed>()),
        ("Fate", of::<Fate<'_>>()),
        ("Former", of::<Former>()),
        ("Happening", of::<Happening<'_>>()),
        ("Limit", count(|from| LimitDef::deserialize(from))),
        ("Known", of::<Known>()),
        ("LineState", of::<LineState>()),
        ("MaxHold", of::<MaxHold>()),
        ("Node", count(|from| NodeDef::deserialize(from))),
        ("Op", count(|from| OpDef::deserialize(from))),
        ("Origin", of::<Origin>()),
        ("Party", of::<Party>()),
        ("Pass", of::<Pass>()),
        ("Patience", count(|from| PatienceDef::deserialize(from))),
        ("Presence", of::<Presence>()),
        ("Query", of::<Query>()),
        ("RecallCause", count(|from| RecallCauseDef::deserialize(from))),
        ("RecallStage", count(|from| RecallStageDef::deserialize(from))),
        ("Refusal", count(|from| RefusalDef::deserialize(from))),
        ("Revocation", count(|from| RevocationDef::deserialize(from))),
        ("Scope", of::<Scope>()),
        ("ServerMessage", of::<ServerMessage>()),
        ("Standstill", count(|from| StandstillDef::deserialize(from))),
        ("Stretch", of::<Stretch>()),
    ];
    counts.into_iter().map(|(name, count)| (name.to_owned(), count)).collect()
}
