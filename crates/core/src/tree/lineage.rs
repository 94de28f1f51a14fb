//! Which versions came in place of which.
//!
//! Each version names those in whose place it came; so all that ever were are a graph without circles, in which what is
//! nearer to the beginning stands before in the order of all.

use std::collections::BTreeMap;

use super::id::OpId;
use super::record::{Rank, Written};
use super::state::State;
use super::tables::Look;

/// Of more versions nobody asks what they have in common.
pub const HEADS_MAX: usize = 32;

/// Which of the versions that are asked about came in place of one.
#[derive(Clone, Copy, Default)]
struct Reached {
    /// A bit for each of them.
    by: u32,
    /// Whether it is in the past of a version that all of them came in place of.
    is_past: bool,
}

impl<T: Look> State<T> {
    /// Returns the newest version in the place of which all these came, in one step or in many; none if there is none, or
    /// several of which none came in place of the other, or if they are more than [`HEADS_MAX`].
    pub fn common_base(&self, heads: &[OpId]) -> Result<Option<OpId>, T::Error> {
        if heads.len() > HEADS_MAX {
            return Ok(None);
        }
        // What comes later in the order of all is met before: when a version is met, all that came in place of it were.
        let mut met: BTreeMap<Rank, (Reached, Vec<OpId>)> = BTreeMap::new();
        let mut all = 0;
        for (number, head) in heads.iter().enumerate() {
            all |= 1 << number;
            self.meet(&mut met, *head, Reached { by: 1 << number, is_past: false })?;
        }
        let mut nearest = None;
        while met.values().any(|(reached, _)| !reached.is_past)
            && let Some((rank, (mut reached, base))) = met.pop_last()
        {
            if reached.by == all && !reached.is_past {
                if nearest.replace(rank.op).is_some() {
                    return Ok(None);
                }
                reached.is_past = true;
            }
            for version in base {
                self.meet(&mut met, version, reached)?;
            }
        }
        Ok(nearest)
    }

    fn meet(
        &self,
        met: &mut BTreeMap<Rank, (Reached, Vec<OpId>)>,
        op: OpId,
        more: Reached,
    ) -> Result<(), T::Error> {
        // What a faulty entry wrote is nothing.
        let Some(Written { lamport, base, .. }) = self.tables.version(op)? else { return Ok(()) };
        let (reached, _) = met.entry(Rank { lamport, op }).or_insert((Reached::default(), base));
        reached.by |= more.by;
        reached.is_past |= more.is_past;
        Ok(())
    }
}
