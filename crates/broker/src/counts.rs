//! How often things happened since the start.

use gate_api::wire::Pass;
use gate_core::lock::event::{End, Refusal};

/// Counts, by what happened.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    granted: u64,
    waited: u64,
    by_kin: u64,
    refused: u64,
    revoked: u64,
    ungated: u64,
}

impl Counts {
    pub fn granted(&mut self, pass: Pass) {
        self.granted += 1;
        if pass == Pass::AwaitedByHolder {
            self.by_kin += 1;
        }
    }

    pub fn waited(&mut self) {
        self.waited += 1;
    }

    pub fn ended(&mut self, end: End) {
        match end {
            End::Released => {}
            End::Refused(why) => self.refused(why),
            End::Revoked(_) => self.revoked += 1,
            End::Ungated => self.ungated += 1,
        }
    }

    pub fn refused(&mut self, why: Refusal) {
        // Who gives up was not told no.
        if !matches!(why, Refusal::Interrupted | Refusal::WouldBlock) {
            self.refused += 1;
        }
    }

    /// Returns what was counted, by name.
    pub fn by_name(&self) -> Vec<(String, u64)> {
        let counts = [
            ("granted", self.granted),
            ("waited", self.waited),
            ("passed-by-kin", self.by_kin),
            ("refused", self.refused),
            ("revoked", self.revoked),
            ("ungated", self.ungated),
        ];
        counts.map(|(name, count)| (name.to_owned(), count)).into()
    }
}
