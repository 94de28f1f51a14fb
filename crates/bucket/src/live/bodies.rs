//! What versions hold that were used last: a long list of extents is put together once.
//!
//! A version never changes, so nothing here is ever wrong; what is short is read again at no cost.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use gate_core::tree::content::{Body, Whole};
use gate_core::tree::id::OpId;

use super::{Inner, Pending, lock};
use crate::draft::DraftError;

/// Shorter lists are not kept.
const EXTENTS_MIN: usize = if cfg!(test) { 8 } else { 128 };

/// Of so many extents, a hundred bytes each, lists are kept: what was used last, not each version of one file.
const KEPT_MAX: usize = 64 * 1024;

/// A version that lies beneath what is written to a file.
#[derive(Clone, Debug)]
pub(super) struct Beneath {
    pub size: u64,
    pub body: Arc<Body>,
    /// How many patches it is made of.
    pub patches: u32,
}

/// The newest last, of [`KEPT_MAX`] extents at most, or the newest alone.
#[derive(Debug, Default)]
pub(super) struct Bodies(Mutex<VecDeque<(OpId, Beneath)>>);

impl Bodies {
    fn get(&self, id: OpId) -> Option<Beneath> {
        let mut kept = lock(&self.0);
        let place = kept.iter().position(|(known, _)| *known == id)?;
        let found = kept.remove(place)?;
        let beneath = found.1.clone();
        kept.push_back(found);
        Some(beneath)
    }

    pub(super) fn put(&self, id: OpId, beneath: Beneath) {
        let extents = |beneath: &Beneath| beneath.body.chunks().count();
        if extents(&beneath) < EXTENTS_MIN {
            return;
        }
        let mut kept = lock(&self.0);
        kept.retain(|(known, _)| *known != id);
        kept.push_back((id, beneath));
        let mut all: usize = kept.iter().map(|(_, beneath)| extents(beneath)).sum();
        while all > KEPT_MAX
            && kept.len() > 1
            && let Some((_, oldest)) = kept.pop_front()
        {
            all -= extents(&oldest);
        }
    }
}

impl Inner {
    /// Returns a version, if it is known.
    pub(super) fn beneath(
        &self,
        pending: &Pending,
        id: OpId,
    ) -> Result<Option<Beneath>, DraftError> {
        if let Some(beneath) = self.bodies.get(id) {
            return Ok(Some(beneath));
        }
        let Some(whole) = pending.draft.tree().whole(id)? else { return Ok(None) };
        let Whole { size, body, patches } = whole;
        let beneath = Beneath { size, body: body.into(), patches };
        // What is only drafted may become another operation.
        if !pending.draft.is_own(id) {
            self.bodies.put(id, beneath.clone());
        }
        Ok(Some(beneath))
    }
}
