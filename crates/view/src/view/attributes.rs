//! Changes of attributes, each in its turn.
//!
//! What comes through a handle needs no turn but the handle's own. fchmod, fchown, futimens and
//! fsetxattr do not say that they do, so who has the file open, or is below somebody who has, is
//! taken to.

use std::cell::LazyCell;
use std::ffi::{CStr, CString};
use std::sync::Arc;

use gate_api::process;
use gate_core::lock::claim::Process;
use gate_core::lock::want::{Op, Want};
use gate_fuse::{Caller, Errno, NodeId, Reply, SetAttr};

use super::View;
use super::files::Named;
use crate::asker::Asker;
use crate::guard::{Overwrite, Victim};
use crate::handles::Handle;
use crate::park::Anew;
use crate::source::SetXattr;
use crate::turn::{PROOF_PATIENCE, Round, Run, Turn};

/// The attribute that tells which broker gates a view: each file answers to it, none has it in the
/// view, even if it has in the source.
pub(super) const ABOUT: &CStr = c"user.gate.view";

impl View {
    pub(super) fn setattr(&self, caller: Caller, node: NodeId, change: SetAttr, reply: Reply) {
        if let Some(handle) = change.handle {
            return self.setattr_by_handle(&caller, node, (handle, &change), reply);
        }
        let op = if change.size.is_some() {
            Op::Truncate
        } else if change.mode.is_some() {
            Op::Chmod
        } else if change.uid.is_some() || change.gid.is_some() {
            Op::Chown
        } else {
            Op::Utimens
        };
        let asker = self.asker(caller.tid);
        let agent = asker.agent.clone();
        let run = move |view: &View, reply: Reply, turn: Turn, _: Round| {
            let of = agent.clone();
            let set = move |view: &View, reply: Reply, turn: Turn| {
                let set = || view.source.setattr(&caller, node, None, &change);
                let changed = view.guard_setattr(agent.as_ref(), (node, &change), set);
                view.end_turn(turn, None);
                match changed {
                    Ok(attr) => view.answer_set(node, &attr, reply),
                    Err(errno) => reply.error(errno),
                }
            };
            let Some(stay) = change.size else { return set(view, reply, turn) };
            let overwrite = Overwrite { agent: of, op, victim: Victim::Node(node), stay };
            let set = move |view: &View, reply, turn, _| set(view, reply, turn);
            view.overwrite(overwrite, (turn, reply), set);
        };
        self.attribute_in_turn(&asker, node, op, reply, Box::new(run));
    }

    fn setattr_by_handle(
        &self,
        caller: &Caller,
        node: NodeId,
        (handle, change): (gate_fuse::HandleId, &SetAttr),
        reply: Reply,
    ) {
        let changed = self.io(handle).and_then(|handle| {
            if change.size.is_some() && !handle.user.writes {
                return Err(Errno::INVAL);
            }
            self.source.setattr(caller, node, Some(handle.file()), change)
        });
        match changed {
            Ok(attr) => self.answer_set(node, &attr, reply),
            Err(errno) => reply.error(errno),
        }
    }

    pub(super) fn setxattr(
        &self,
        caller: Caller,
        node: NodeId,
        xattr: &SetXattr<'_>,
        reply: Reply,
    ) {
        if xattr.name == ABOUT {
            return reply.error(Errno::PERM);
        }
        let (name, value) = (xattr.name.to_owned(), xattr.value.to_vec());
        let (flags, kill_sgid) = (xattr.flags, xattr.kill_sgid);
        let run = move |view: &View, reply: Reply, turn: Turn, _: Round| {
            let xattr = SetXattr { name: &name, value: &value, flags, kill_sgid };
            let set = view.source.setxattr(&caller, node, &xattr);
            view.end_turn(turn, None);
            super::names::answer(set, reply);
        };
        let asker = self.asker(caller.tid);
        self.attribute_in_turn(&asker, node, Op::Setxattr, reply, Box::new(run));
    }

    pub(super) fn removexattr(&self, caller: Caller, node: NodeId, name: &CStr, reply: Reply) {
        if name == ABOUT {
            return reply.error(Errno::PERM);
        }
        let name = name.to_owned();
        let run = move |view: &View, reply: Reply, turn: Turn, _: Round| {
            let removed = view.source.removexattr(node, &name);
            view.end_turn(turn, None);
            super::names::answer(removed, reply);
        };
        let asker = self.asker(caller.tid);
        self.attribute_in_turn(&asker, node, Op::Setxattr, reply, Box::new(run));
    }

    pub(super) fn getxattr(&self, node: NodeId, name: &CStr, size: u32, reply: Reply) {
        if name == ABOUT {
            return answer_sized(self.about(node), size, reply);
        }
        if size == 0 {
            return answer_size(self.source.xattr_size(node, name), reply);
        }
        answer_sized(self.source.getxattr(node, name, size), size, reply);
    }

    pub(super) fn listxattr(&self, caller: Caller, node: NodeId, size: u32, reply: Reply) {
        let is_of_file = |name: &&[u8]| *name != ABOUT.to_bytes_with_nul();
        let names = self.source.listxattr(&caller, node).map(|list| {
            let names = list.split_inclusive(|byte| *byte == 0);
            names.filter(is_of_file).flatten().copied().collect()
        });
        answer_sized(names, size, reply);
    }

    /// Tells of the view, and in which volume the node is: a source may span several.
    fn about(&self, node: NodeId) -> Result<Vec<u8>, Errno> {
        let mut about = self.settings.about.clone();
        let volume = self.source.file_key(node)?.volume;
        about.insert("volume".to_owned(), volume.into());
        let refusal = self.broker.refusal(self.settings.space);
        about.insert("refused".to_owned(), serde_json::json!(refusal));
        Ok(serde_json::Value::Object(about).to_string().into_bytes())
    }

    fn attribute_in_turn(&self, asker: &Asker, node: NodeId, op: Op, reply: Reply, run: Run) {
        if op != Op::Truncate {
            match self.standing(asker, node) {
                Standing::User => return run(self, reply, Turn::Ungated, Round::First),
                // It may have come by its handle: such a call is not issued again.
                Standing::Fenced => return reply.error(Errno::IO),
                Standing::Stranger => {}
            }
        }
        let want = self.want(op, vec![self.place_of_node(node)]);
        // The root has no name to be walked to: its own attributes are what the walk needs.
        let root = (node == NodeId::ROOT).then(|| (node, CString::default()));
        let Some((parent, name)) = self.source.book().link_of(node).or(root) else {
            return self.change_nameless(asker, want, reply, run);
        };
        let walked = name.clone();
        let anew = move |view: &View| view.want(op, vec![view.place_of_name(parent, &walked)]);
        let check = Box::new(|_: &View| Ok(()));
        let anew: Option<Anew> = (!name.is_empty()).then(|| Arc::new(anew) as Anew);
        let named = Named { parents: [parent; 2], name, want, anew, check };
        self.in_turn(asker, named, reply, run);
    }

    /// A file lost its name after the kernel had walked to it. From another walk the call would come to
    /// whatever bears that name by then, and nothing would tell that it had been sent there already.
    fn change_nameless(&self, asker: &Asker, want: Option<Want>, reply: Reply, run: Run) {
        // It may come from such a walk itself.
        if let (Some(turn), _) = self.take_ticket(asker.thread(), None) {
            self.end_turn(turn, None);
        }
        match want {
            Some(want) => self.ask_under_lock(self.ask(asker, want), reply, run),
            None => run(self, reply, Turn::Ungated, Round::Last),
        }
    }

    fn standing(&self, asker: &Asker, node: NodeId) -> Standing {
        let Some(process) = asker.process() else { return Standing::Stranger };
        let handles = self.handles.of(node);
        if handles.is_empty() {
            return Standing::Stranger;
        }
        let by = |pid| {
            let is_its = move |user: Process| user.pid == pid;
            handles.iter().filter(move |handle| handle.user.process.is_some_and(is_its))
        };
        // N7: what was fenced gives no rights any more, nor what a lease ended that ran out.
        let may_act = LazyCell::new(|| self.broker.may_act(PROOF_PATIENCE));
        let stands =
            |handle: &Arc<Handle>| !handle.fence.is_shut() && (!handle.has_turn() || *may_act);
        let mut family = process::lineage(process.pid);
        if family.any(|(pid, _)| by(pid).any(stands)) {
            return Standing::User;
        }
        match by(process.pid).next() {
            Some(_) => Standing::Fenced,
            None => Standing::Stranger,
        }
    }
}

/// Who changes the attributes of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// It, or a process above it, has the file open, and so its turn already.
    User,
    /// It has the file open, and its turn was taken away.
    Fenced,
    /// It has it not.
    Stranger,
}

/// Answers what fits into `size` bytes, or how many there are if that is 0.
fn answer_sized(value: Result<Vec<u8>, Errno>, size: u32, reply: Reply) {
    match value {
        Ok(value) if size == 0 => answer_size(Ok(value.len()), reply),
        Ok(value) if value.len() > size as usize => reply.error(Errno::RANGE),
        Ok(value) => reply.data(&value),
        Err(errno) => reply.error(errno),
    }
}

fn answer_size(size: Result<usize, Errno>, reply: Reply) {
    match size.and_then(|size| u32::try_from(size).map_err(|_| Errno::TOOBIG)) {
        Ok(size) => reply.xattr_size(size),
        Err(errno) => reply.error(errno),
    }
}
