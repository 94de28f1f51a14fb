//! The fence of one handle: how many calls are inside, and whether it is shut.
//!
//! Once a grant is taken away nobody comes in any more, and the broker lets the next in when nobody
//! is inside: a call that was already past the check may still write. So whoever shuts the fence,
//! or leaves as the last, learns it; and it is one of them alone.

use std::ops::Deref;
use std::sync::Arc;

use gate_api::session::Quiet;
use gate_fuse::{Errno, HandleId, Stale};

use crate::backing::Way;
use crate::handles::Handle;
use crate::sync::{AtomicU32, Ordering};
use crate::view::View;

/// Beside the number of calls that are inside.
const SHUT: u32 = 1 << 31;

/// The fence.
#[derive(Debug, Default)]
pub(crate) struct Fence(AtomicU32);

/// What was found by who wanted to shut it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Nobody,
    /// The last to leave learns that it is.
    Somebody,
    /// It was shut.
    Shut,
}

impl Fence {
    /// Comes in; false if it is shut.
    pub fn enter(&self) -> bool {
        let open = |state: u32| (state & SHUT == 0).then_some(state + 1);
        // What the broker told before a call began is seen by the call.
        self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, open).is_ok()
    }

    /// Leaves; returns whether it is shut, and nobody inside any more.
    pub fn leave(&self) -> bool {
        self.0.fetch_sub(1, Ordering::AcqRel) == SHUT + 1
    }

    /// Shuts it for ever.
    pub fn shut(&self) -> Found {
        match self.0.fetch_or(SHUT, Ordering::AcqRel) {
            0 => Found::Nobody,
            state if state & SHUT == 0 => Found::Somebody,
            _ => Found::Shut,
        }
    }

    pub fn is_shut(&self) -> bool {
        self.0.load(Ordering::Acquire) & SHUT != 0
    }
}

/// A handle that a call works on, inside of its fence.
pub(crate) struct InUse<'a> {
    view: &'a View,
    handle: Arc<Handle>,
}

impl View {
    /// Fences the handle of an owner. Whoever opens the file from now on does not share its pages in
    /// the kernel's cache: there stand writes until the view refuses them, and stores in a mapping until
    /// they are written back, by whatever handle of the node.
    pub fn fence(&self, owner: u64) -> Quiet {
        if let Some(handle) = self.handles.writer(owner)
            && handle.way != Way::Unfenced
        {
            self.source.book().retire(handle.node);
            self.declare_stale(handle.node, Stale::Attributes);
        }
        self.handles.fence(owner)
    }

    /// Returns a handle to work on; EIO once it was fenced.
    pub fn enter(&self, handle: HandleId) -> Result<InUse<'_>, Errno> {
        InUse::of(self, self.handles.get(handle)?)
    }
}

impl<'a> InUse<'a> {
    pub fn of(view: &'a View, handle: Arc<Handle>) -> Result<InUse<'a>, Errno> {
        if handle.fence.enter() { Ok(InUse { view, handle }) } else { Err(Errno::IO) }
    }
}

impl Deref for InUse<'_> {
    type Target = Handle;

    fn deref(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for InUse<'_> {
    fn drop(&mut self) {
        // What is not fenced writes on though nobody is inside: see `view::oust`.
        if self.handle.fence.leave() && self.handle.way != Way::Unfenced {
            self.view.end_turn(self.handle.end_turn(), None);
        }
    }
}
