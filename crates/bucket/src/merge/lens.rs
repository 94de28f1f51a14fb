//! What a bucket's tree is looked at through: by it several versions of a text show as one.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use gate_core::tree::content::{Body, Whole};
use gate_core::tree::id::{EntryId, FeedId, OpId};
use gate_core::tree::lineage::HEADS_MAX;
use gate_core::tree::record::FileRecord;
use gate_core::tree::shown::{Lens, Merged};
use gate_core::tree::state::State;
use gate_core::tree::tables::Look;

use super::{TEXT_BYTES_MAX, merge};
use crate::feed::Labels;
use crate::vault::Vault;

/// So many bytes are kept of what was merged, and of what was found not to merge.
const KEPT_BYTES_MAX: usize = 8 * 1024 * 1024;
/// What one takes beside its bytes, about.
const ONE_BYTES: usize = 128;

/// Looks at a bucket's tree. A clone costs next to nothing.
#[derive(Clone, Debug)]
pub struct TextLens {
    labels: Labels,
    merges: Arc<Merges>,
    /// Without a key nothing is read, and so nothing merged.
    vault: Option<Vault>,
    /// From this entry on its feed is only drafted: what is named so now may be something else later.
    drafted: Option<EntryId>,
}

/// What versions merged to, by those; nothing if they do not. They never change, so nothing here is ever wrong.
#[derive(Default)]
pub(crate) struct Merges(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    merged: HashMap<Arc<[OpId]>, Option<Merged>>,
    /// The newest last.
    order: VecDeque<Arc<[OpId]>>,
    bytes: usize,
}

impl TextLens {
    pub(crate) fn new(labels: Labels, merges: Arc<Merges>, vault: Option<Vault>) -> TextLens {
        TextLens { labels, merges, vault, drafted: None }
    }

    /// Looks at a tree in which an entry is drafted.
    pub(crate) fn with_draft(self, entry: EntryId) -> TextLens {
        TextLens { drafted: Some(entry), ..self }
    }

    fn is_drafted(&self, op: &OpId) -> bool {
        let is_of = |d: EntryId| op.entry.feed == d.feed && op.entry.number >= d.number;
        self.drafted.is_some_and(is_of)
    }

    /// Reads a version, if that can be done now.
    fn read(&self, vault: &Vault, Whole { size, body, .. }: &Whole) -> Option<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(*size).ok()?];
        match vault.read_at(body, *size, 0, &mut bytes) {
            Ok(_) => Some(bytes),
            Err(error) => {
                tracing::debug!(%error, "versions of a file are not merged: one is not in reach");
                None
            }
        }
    }
}

impl Lens for TextLens {
    fn label(&self, feed: &FeedId) -> String {
        self.labels.of(feed)
    }

    fn merged<T: Look>(
        &self,
        state: &State<T>,
        record: &FileRecord,
    ) -> Result<Option<Merged>, T::Error> {
        let Some(vault) = &self.vault else { return Ok(None) };
        let is_long = |size: u64| size > TEXT_BYTES_MAX as u64;
        if record.heads.len() > HEADS_MAX || record.heads.values().any(|head| is_long(head.size)) {
            return Ok(None);
        }
        let heads: Arc<[OpId]> = record.heads.keys().copied().collect();
        if let Some(known) = self.merges.get(&heads) {
            return Ok(known);
        }
        let mut wholes = Vec::new();
        if let Some(base) = state.common_base(&heads)? {
            for id in [base].into_iter().chain(record.by_rank().into_iter().map(|(id, _)| *id)) {
                wholes.extend(state.whole(id)?.filter(|whole| !is_long(whole.size)));
            }
        }
        let merged = if wholes.len() > heads.len() {
            let texts = wholes.iter().map(|whole| self.read(vault, whole));
            // Once all of them are in reach they may merge.
            let Some(texts) = texts.collect::<Option<Vec<_>>>() else { return Ok(None) };
            let (base, sides) = texts.split_first().expect("the base is the first");
            merge(base, sides.iter().map(Vec::as_slice))
        } else {
            None
        };
        let merged = merged
            .map(|bytes| Merged { size: bytes.len() as u64, body: Arc::new(Body::Inline(bytes)) });
        if !heads.iter().any(|head| self.is_drafted(head)) {
            self.merges.put(heads, merged.clone());
        }
        Ok(merged)
    }
}

impl Merges {
    fn get(&self, heads: &[OpId]) -> Option<Option<Merged>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).merged.get(heads).cloned()
    }

    fn put(&self, heads: Arc<[OpId]>, merged: Option<Merged>) {
        let kept = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = bytes_of(&heads, &merged);
        if kept.merged.insert(Arc::clone(&heads), merged).is_some() {
            return;
        }
        kept.order.push_back(heads);
        kept.bytes += bytes;
        while kept.bytes > KEPT_BYTES_MAX
            && let Some(oldest) = kept.order.pop_front()
            && let Some(gone) = kept.merged.remove(&oldest)
        {
            kept.bytes -= bytes_of(&oldest, &gone);
        }
    }
}

fn bytes_of(heads: &[OpId], merged: &Option<Merged>) -> usize {
    let held = merged.as_ref().map_or(0, |merged| merged.size as usize);
    ONE_BYTES + size_of_val(heads) + held
}

// What files hold shows nowhere.
impl fmt::Debug for Merges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("what versions merged to")
    }
}
