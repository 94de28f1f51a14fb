//! ioctl(2) on what is open.
//!
//! The kernel reads flags, and sets them, through an open of its own, which it makes in the caller's
//! name, and to set them with the node's lock in its hands. As an open to read it takes a turn like
//! any, and that is chmod's turn, too, for it waits for writers and not for readers. To open a
//! directory takes none; to change one takes a turn of its own, within a moment or not at all, for
//! nobody would issue the call again.

use gate_core::lock::want::Op;
use gate_fuse::{Caller, Errno, HandleId, NodeId, Reply, Stale};

use super::View;
use crate::source::Control;
use crate::turn::{Round, Turn};

/// What IOCTL asks for.
pub(super) struct Asked<'a> {
    pub handle: HandleId,
    pub on_directory: bool,
    pub command: u32,
    pub input: &'a [u8],
    pub out_size: u32,
}

impl View {
    pub(super) fn control(&self, caller: Caller, node: NodeId, asked: &Asked<'_>, reply: Reply) {
        let Asked { handle, on_directory, command, input, out_size } = *asked;
        let control = match Control::of(command) {
            Ok(control) if control.len_told() <= out_size as usize => control,
            Ok(_) => return reply.error(Errno::INVAL),
            Err(errno) => return reply.error(errno),
        };
        if on_directory && control.changes() {
            return self.change_directory(caller, node, (control, input.to_vec()), reply);
        }
        // What was taken away is not changed any more.
        let in_use = if on_directory { Ok(None) } else { self.enter(handle).map(Some) };
        let done = in_use.and_then(|_in_use| self.source.control(node, &caller, (control, input)));
        if control.changes() {
            self.declare_changed(node);
        }
        answer(done, reply);
    }

    fn change_directory(
        &self,
        caller: Caller,
        node: NodeId,
        (control, input): (Control, Vec<u8>),
        reply: Reply,
    ) {
        let run = move |view: &View, reply: Reply, turn: Turn, _: Round| {
            let changed = view.source.control(node, &caller, (control, &input));
            view.end_turn(turn, None);
            view.declare_stale(node, Stale::Attributes);
            answer(changed, reply);
        };
        let Some(want) = self.want(Op::Chmod, vec![self.place_of_node(node)]) else {
            return run(self, reply, Turn::Ungated, Round::Last);
        };
        let asker = self.asker(caller.tid);
        self.ask_under_lock(self.ask(&asker, want), reply, Box::new(run));
    }
}

fn answer(done: Result<Vec<u8>, Errno>, reply: Reply) {
    match done {
        Ok(told) => reply.ioctl(&told),
        Err(errno) => reply.error(errno),
    }
}
