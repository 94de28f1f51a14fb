//! Any bytes as a body of the stateless interface: understood or refused, never a panic.

#![no_main]

use gate_api::v1::{
    AcquireRequest, BreakRequest, HeartbeatRequest, RecallRequest, ReleaseRequest,
};
use gate_core::path::ViewPath;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    if let Ok(request) = serde_json::from_slice::<AcquireRequest>(input) {
        let again = serde_json::to_vec(&request).expect("made of plain data");
        assert_eq!(
            serde_json::from_slice::<AcquireRequest>(&again).expect("just written"),
            request
        );
        if let Ok(path) = ViewPath::parse(request.path.as_bytes()) {
            assert_eq!(ViewPath::parse(path.as_bytes()).as_ref(), Ok(&path));
        }
    }
    let _ = serde_json::from_slice::<ReleaseRequest>(input);
    let _ = serde_json::from_slice::<HeartbeatRequest>(input);
    let _ = serde_json::from_slice::<RecallRequest>(input);
    let _ = serde_json::from_slice::<BreakRequest>(input);
});
