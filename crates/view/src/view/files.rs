//! Open files: opening, making, reading, writing, letting go.

use std::ffi::{CStr, CString};

use gate_api::Ask;
use gate_api::session::Quiet;
use gate_core::lock::claim::Process;
use gate_core::lock::want::{Access, Node, Op, Place, Want};
use gate_fuse::{
    Caller, CopyFileRange, Errno, HandleId, NodeId, OpenFlags, Opened, Reply, Stale, Write,
};

use super::View;
use crate::asker::Asker;
use crate::backing::{self, Use, Way};
use crate::fence::InUse;
use crate::guard::{Opens, Overwrite, Victim};
use crate::handles::{Handle, User};
use crate::line::Spot;
use crate::park::Call;
use crate::source::{self, File, Found, Make};
use crate::turn::{PROOF_PATIENCE, Round, Run, Turn};
use crate::walk::{Kept, Walk};

/// What OPEN asks for, and how the kernel came to it.
struct Opening {
    asker: Asker,
    node: NodeId,
    flags: u32,
    kill_suidgid: bool,
    access: Access,
    user: User,
    /// The name that it is opened by; `None` for a file that has lost its own.
    name: Option<(NodeId, CString)>,
    round: Round,
}

/// What CREATE and TMPFILE tell of the file to be.
#[derive(Clone, Copy)]
pub(super) struct Creation {
    pub flags: u32,
    pub mode: u32,
    pub umask: u32,
}

impl Creation {
    fn opening(self, turn: Turn) -> backing::Opening {
        let to = Use::of(self.flags);
        let in_turn = turn != Turn::Ungated;
        backing::Opening { to, size: 0, in_turn, size_is_unsure: false }
    }
}

fn is_exclusive(flags: u32) -> bool {
    flags.cast_signed() & libc::O_EXCL != 0
}

/// What the kernel adds to the flags of an open that is to execute the file.
const EXECUTES: u32 = 0x20;

/// Returns whether the kernel would let the program itself find out that the file is executed:
/// without write access it does so only after we have truncated.
fn truncates_unseen(flags: u32) -> bool {
    let flags = flags.cast_signed();
    flags & libc::O_ACCMODE == libc::O_RDONLY && flags & libc::O_TRUNC != 0
}

/// Returns how an open deals with what was in the file.
fn opens(flags: u32) -> Opens {
    let flags = flags.cast_signed();
    match flags & libc::O_ACCMODE {
        _ if flags & libc::O_TRUNC != 0 => Opens::Empty,
        libc::O_WRONLY => Opens::ToWrite,
        _ => Opens::ToRead,
    }
}

fn writes(flags: u32) -> bool {
    let flags = flags.cast_signed();
    flags & libc::O_ACCMODE != libc::O_RDONLY || flags & libc::O_TRUNC != 0
}

impl View {
    pub(super) fn open(
        &self,
        caller: Caller,
        node: NodeId,
        (flags, kill_suidgid): (u32, bool),
        reply: Reply,
    ) {
        if truncates_unseen(flags) && self.handles.is_executed(node) {
            return reply.error(Errno::TXTBSY);
        }
        let access = if writes(flags) { Access::Write } else { Access::Read };
        let asker = self.asker(caller.tid);
        let user = User {
            process: asker.process(),
            agent: asker.agent.clone(),
            writes: writes(flags),
            executes: flags & EXECUTES != 0,
        };
        let walk = self.walkers.back(caller.tid);
        // Who is back without having found another node came by no name: /proc/PID/fd leads to
        // files that have lost theirs.
        let by_name =
            asker.thread() != 0 && walk.as_ref().is_none_or(|walk| walk.node != Some(node));
        let name = self.source.book().link_of(node).filter(|_| by_name);
        // A CREATE that waited and whose name exists by now comes back as this: its place is kept
        // until the open has one of its own.
        let (made_before, round) = self.take_ticket(caller.tid, name.as_ref());
        let opening = Opening {
            name,
            round: if walk.is_none() { round } else { Round::Last },
            asker,
            node,
            flags,
            kill_suidgid,
            access,
            user,
        };
        match walk.and_then(|walk| self.kept_for(node, access, walk.kept?)) {
            Some(turn) => self.open_now(opening, reply, turn),
            None => {
                let want = self.want(Op::Open(access), vec![self.place_of_file(node)]);
                self.open_in_turn(opening, want, reply, View::open_now);
            }
        }
        if let Some(turn) = made_before {
            self.end_turn(turn, None);
        }
    }

    fn open_in_turn(
        &self,
        opening: Opening,
        want: Option<Want>,
        reply: Reply,
        then: impl FnOnce(&View, Opening, Reply, Turn) + Send + 'static,
    ) {
        let Some(want) = want else { return then(self, opening, reply, Turn::Ungated) };
        let ask = self.ask(&opening.asker, want);
        let Opening { node, access, .. } = opening;
        let process = opening.asker.process();
        let run: Run = Box::new(move |view, reply, turn, _| then(view, opening, reply, turn));
        self.ask_in_line((process, node, access), ask, reply, run);
    }

    fn ask_in_line(
        &self,
        (process, node, access): (Option<Process>, NodeId, Access),
        ask: Ask,
        reply: Reply,
        run: Run,
    ) {
        match process {
            Some(process) => self.wait_in_line(Spot { process, node, access }, ask, reply, run),
            None => self.ask_briefly(ask, reply, Round::First, run),
        }
    }

    fn open_now(&self, opening: Opening, reply: Reply, turn: Turn) {
        // What it came to, as on a bare directory, rather than being told to try again.
        let takes_any = opening.access == Access::Read && opening.round == Round::Last;
        if let Some((parent, name)) = &opening.name
            && !takes_any
            && !self.source.leads_to((*parent, name), opening.node)
        {
            let name = (*parent, name.clone());
            return self.open_another(opening, name, reply, turn);
        }
        // The kernel may have walked here by a name that leads to another file since.
        let is_nameless = opening.name.is_none() && opening.asker.thread() != 0;
        if opening.round == Round::First
            && (is_nameless || self.source.book().is_retired(opening.node))
        {
            return self.open_anew(opening, reply, turn);
        }
        let flags = opening.flags.cast_signed();
        if flags & libc::O_TRUNC == 0 || flags & libc::O_APPEND != 0 {
            return self.open_file(opening, reply, turn);
        }
        let overwrite = Overwrite {
            agent: opening.user.agent.clone(),
            op: Op::Open(opening.access),
            victim: Victim::Node(opening.node),
            stay: 0,
        };
        self.overwrite(overwrite, (turn, reply), move |view, reply, turn, _| {
            view.open_file(opening, reply, turn);
        });
    }

    fn open_file(&self, opening: Opening, reply: Reply, turn: Turn) {
        let Opening { node, flags, kill_suidgid, user, .. } = opening;
        let (token, by) = (turn.token(), &user.who());
        let file = self.source.open(node, &source::Opening { flags, kill_suidgid, token, by });
        match file.and_then(|file| Ok((file, self.refresh(node)?))) {
            Ok((file, review)) => {
                if turn != Turn::Ungated {
                    self.guard_open(node, &user, opens(flags));
                }
                if review.size_is_unsure && Use::of(flags) != Use::Write {
                    self.stretch(node, &review.attr, &*file);
                }
                let opening = backing::Opening {
                    to: Use::of(flags),
                    size: review.attr.size,
                    in_turn: turn != Turn::Ungated,
                    size_is_unsure: review.size_is_unsure,
                };
                let mut opened = self.opened((node, user), turn, (file, opening));
                opened.flags.set(OpenFlags::KEEP_CACHE, review.content_holds);
                reply.opened(&opened);
            }
            Err(errno) => {
                self.end_turn(turn, None);
                reply.error(errno);
            }
        }
    }

    /// Lets the kernel find the node of the same file by now, or the file that bears its name.
    fn open_anew(&self, opening: Opening, reply: Reply, turn: Turn) {
        let Opening { asker, node, access, name, .. } = opening;
        match (asker.thread(), self.source.file_key(node)) {
            (0, _) | (_, Err(_)) => self.end_turn(turn, None),
            (thread, Ok(key)) => {
                let kept = Kept { file: key, access, turn };
                // By /proc/PID/fd it comes back to the node that it came to.
                let name = name.unwrap_or((node, CString::default()));
                self.send_to_walk(thread, Walk::new(Some(node), name, Some(kept)));
            }
        }
        reply.error(Errno::STALE);
    }

    /// Another file bears the name by now, or none.
    fn open_another(&self, opening: Opening, name: (NodeId, CString), reply: Reply, turn: Turn) {
        self.end_turn(turn, None);
        if opening.round == Round::Last {
            return reply.error(Errno::AGAIN);
        }
        let place = self.place_of_name(name.0, &name.1);
        let Some(Node::File(file)) = place.as_ref().map(|place| place.node) else {
            let walk = Walk::new(Some(opening.node), name, None);
            self.send_to_walk(opening.asker.thread(), walk);
            return reply.error(Errno::STALE);
        };
        let want = self.want(Op::Open(opening.access), vec![place]);
        self.open_in_turn(opening, want, reply, move |view, opening, reply, turn| {
            let there = view.place_of_name(name.0, &name.1).map(|place| place.node);
            if there != Some(Node::File(file)) {
                return view.open_another(opening, name, reply, turn);
            }
            let kept = Kept { file, access: opening.access, turn };
            let walk = Walk::new(Some(opening.node), name, Some(kept));
            view.send_to_walk(opening.asker.thread(), walk);
            reply.error(Errno::STALE);
        });
    }

    fn opened(
        &self,
        (node, user): (NodeId, User),
        turn: Turn,
        (file, opening): (Box<dyn File>, backing::Opening),
    ) -> Opened {
        let (writes, may_fail_at_close) = (user.writes, user.writes && file.may_fail_at_close());
        let backing::Opening { to, in_turn, .. } = opening;
        let told = self.ways.join(node, opening, file.descriptor(), || {
            let bare = self.bare.as_ref().ok_or(Errno::OPNOTSUPP)?;
            Ok(bare.open(node, libc::O_RDWR.cast_unsigned(), false)?.into())
        });
        if told.way == Way::Unfenced {
            // From here on nothing is trusted; what was told before is forgotten.
            self.declare_stale(node, Stale::Attributes);
        }
        let handle = self.handles.insert(Handle::new(node, user, turn, (file, told.way)));
        // Taken away before there was a handle to fence.
        if let Turn::Granted { owner, .. } = turn
            && !self.has(turn)
            && self.fence(owner) == Quiet::Now
        {
            self.end_turn(turn, None);
        }
        // Without this each close costs a call that does nothing. Where nobody takes turns it does
        // something: what the closer has locked by fcntl(2) ends with it.
        let nothing_late = !writes || (to == Use::Write && !may_fail_at_close);
        let mut flags = told.flags;
        flags.set(OpenFlags::NOFLUSH, nothing_late && in_turn && !self.settings.release_on_flush);
        Opened { handle, flags, backing: told.backing }
    }

    pub(super) fn create(
        &self,
        caller: Caller,
        parent: NodeId,
        name: &CStr,
        creation: Creation,
        reply: Reply,
    ) {
        let asker = self.asker(caller.tid);
        let user = User {
            process: asker.process(),
            agent: asker.agent.clone(),
            writes: writes(creation.flags),
            executes: false,
        };
        let thread = asker.thread();
        let place = self.place_to_make(parent, name);
        let name = name.to_owned();
        let file_name = name.clone();
        let run = move |view: &View, reply: Reply, turn: Turn, round: Round| {
            match view.create_now((&caller, &user), (parent, &file_name), creation, turn) {
                Ok((found, file)) => {
                    if turn != Turn::Ungated {
                        view.guard_open(found.node, &user, Opens::Empty);
                    }
                    view.reply_created((found, file), user, (creation, turn), reply);
                }
                Err(errno) => {
                    view.end_turn(turn, None);
                    // Somebody made it meanwhile. ESTALE lets the kernel find it and open it, in a
                    // turn of its own.
                    let may_open = errno == Errno::EXIST && !is_exclusive(creation.flags);
                    reply.error(match (may_open, round) {
                        (true, Round::First) => {
                            if thread != 0 {
                                let walk = Walk::new(None, (parent, file_name), None);
                                view.send_to_walk(thread, walk);
                            }
                            Errno::STALE
                        }
                        (true, Round::Last) => Errno::AGAIN,
                        (false, _) => errno,
                    });
                }
            }
        };
        let exclusive = is_exclusive(creation.flags);
        let must_be_new = name.clone();
        let check = move |view: &View| {
            if exclusive { view.must_not_exist(parent, &must_be_new) } else { Ok(()) }
        };
        let want = self.want(Op::Create, vec![place]);
        let call = Named { parents: [parent; 2], name, want, anew: None, check: Box::new(check) };
        self.in_turn(&asker, call, reply, Box::new(run));
    }

    fn create_now(
        &self,
        (caller, user): (&Caller, &User),
        at: (NodeId, &CStr),
        creation: Creation,
        turn: Turn,
    ) -> Result<(Found, Box<dyn File>), Errno> {
        let Creation { flags, mode, umask } = creation;
        let make = Make { caller, mode, umask };
        let flags = flags | libc::O_EXCL.cast_unsigned();
        let (token, by) = (turn.token(), &user.who());
        let opening = source::Opening { flags, kill_suidgid: false, token, by };
        let (found, file) = self.source.create(at, &make, &opening)?;
        self.tell_created(turn, &found)?;
        Ok((found, file))
    }

    /// Answers with a file that was made and is open.
    fn reply_created(
        &self,
        (found, file): (Found, Box<dyn File>),
        user: User,
        (creation, turn): (Creation, Turn),
        reply: Reply,
    ) {
        let opening = creation.opening(turn);
        let opened = self.opened((found.node, user), turn, (file, opening));
        reply.created(&self.entry(&found), &opened);
    }

    /// From now on a turn is one of the file that was made in it.
    fn tell_created(&self, turn: Turn, found: &Found) -> Result<(), Errno> {
        if let Turn::Granted { owner, .. } = turn {
            let key = self.source.file_key(found.node)?;
            self.broker.created(owner, key);
        }
        Ok(())
    }

    /// A file without a name is nobody else's until it is linked. Its turn is there by then.
    pub(super) fn tmpfile(&self, caller: Caller, parent: NodeId, creation: Creation, reply: Reply) {
        let Creation { flags, mode, umask } = creation;
        let asker = self.asker(caller.tid);
        let process = asker.process();
        let agent = asker.agent.clone();
        let user = User { process, agent, writes: true, executes: false };
        let run = move |view: &View, reply: Reply, turn: Turn, _: Round| {
            let make = Make { caller: &caller, mode, umask };
            let (token, by) = (turn.token(), &user.who());
            let opening = source::Opening { flags, kill_suidgid: false, token, by };
            let made = view.source.tmpfile(parent, &make, &opening);
            match made.and_then(|made| view.tell_created(turn, &made.0).map(|()| made)) {
                Ok((found, file)) => {
                    view.guard_open(found.node, &user, Opens::Empty);
                    view.reply_created((found, file), user, (creation, turn), reply);
                }
                Err(errno) => {
                    view.end_turn(turn, None);
                    reply.error(errno);
                }
            }
        };
        if is_exclusive(flags) {
            // It will never be linked.
            return run(self, reply, Turn::Ungated, Round::Last);
        }
        let nameless = Place { space: self.settings.space, path: None, node: Node::None };
        let ask = self.ask(&asker, Want { op: Op::Create, places: vec![nameless] });
        // Of the directory itself nobody waits to be a writer.
        self.ask_in_line((process, parent, Access::Write), ask, reply, Box::new(run));
    }

    pub(super) fn read(&self, handle: HandleId, offset: u64, size: u32, reply: Reply) {
        match self.io(handle) {
            Ok(handle) => reply.data_with(size, |buffer| handle.file().read(buffer, offset)),
            Err(errno) => reply.error(errno),
        }
    }

    pub(super) fn write(&self, write: &Write<'_>, reply: Reply) {
        let written = self.io(write.handle).and_then(|handle| {
            // Of what is stored through a mapping the kernel tells nobody.
            let doing = (!write.cached).then(|| self.source.begin_to_write(handle.node)).flatten();
            let size = handle.file().write(write)?;
            if let Some(doing) = doing {
                doing.done();
            }
            Ok(size)
        });
        match written.and_then(|size| u32::try_from(size).map_err(|_| Errno::OVERFLOW)) {
            Ok(size) => reply.written(size),
            Err(errno) => reply.error(errno),
        }
    }

    pub(super) fn copy(&self, caller: &Caller, range: &CopyFileRange, reply: Reply) {
        let copied = self.io(range.handle_in).and_then(|from| {
            let to = self.io(range.handle_out)?;
            let doing = self.source.begin_to_write(to.node);
            let size = from.file().copy_to(to.file(), caller, range)?;
            if let Some(doing) = doing.filter(|_| size > 0) {
                doing.done();
            }
            Ok(size)
        });
        match copied {
            Ok(size) => reply.written(size),
            Err(errno) => reply.error(errno),
        }
    }

    pub(super) fn allocate(
        &self,
        caller: &Caller,
        id: HandleId,
        (offset, length): (u64, u64),
        mode: u32,
    ) -> Result<(), Errno> {
        let handle = self.io(id)?;
        let doing = self.source.begin_to_write(handle.node);
        handle.file().allocate(caller, mode, offset, length)?;
        if let Some(doing) = doing {
            doing.done();
        }
        Ok(())
    }

    /// Returns a handle for I/O on its bytes, and tells that it works if a reader waits for it.
    ///
    /// N7: what was lost without having been heard of yet is fenced by then, see [`View::stands`].
    pub(super) fn io(&self, handle: HandleId) -> Result<InUse<'_>, Errno> {
        let handle = self.handles.get(handle)?;
        if handle.has_turn() && !self.broker.may_act(PROOF_PATIENCE) {
            return Err(Errno::IO);
        }
        let handle = InUse::of(self, handle)?;
        if let Some(owner) = self.handles.io_to_tell(&handle) {
            self.broker.active(owner);
        }
        Ok(handle)
    }

    pub(super) fn flush(&self, id: HandleId, lock_owner: u64) -> Result<(), Errno> {
        let handle = self.handles.get(id)?;
        self.give_back_locks(&handle, id, lock_owner);
        let handle = InUse::of(self, handle)?;
        let flushed = handle.file().flush();
        if self.settings.release_on_flush {
            self.guard_end(&handle);
            self.end_turn(handle.end_turn(), None);
        }
        flushed
    }

    /// The last descriptor and the last mapping are gone: so is the turn.
    pub(super) fn release(&self, id: HandleId) {
        if let Some(handle) = self.handles.remove(id) {
            self.end_locks(&handle, id);
            self.guard_end(&handle);
            self.ways.leave(handle.node, handle.way);
            // Before the file is closed: its inode number cannot be another file's yet.
            self.end_turn(handle.end_turn(), None);
        }
    }

    /// Runs a call on names in its turn: at once if nothing of it is gated.
    pub(super) fn in_turn(&self, asker: &Asker, named: Named, reply: Reply, run: Run) {
        let Named { parents, name, want, anew, check } = named;
        let thread = asker.thread();
        let named = (parents[0], name);
        let round = self.round_of(thread, &named);
        let Some(want) = want else { return run(self, reply, Turn::Ungated, round) };
        let ask = self.ask(asker, want);
        if thread == 0 {
            return self.ask_briefly(ask, reply, round, run);
        }
        let call = Call { thread, parents, name: named.1, round, ask, anew, check, run };
        self.wait_outside(call, reply);
    }
}

/// A call on names, before it is its turn.
pub(super) struct Named {
    pub parents: [NodeId; 2],
    pub name: CString,
    pub want: Option<Want>,
    pub anew: Option<crate::park::Anew>,
    pub check: crate::park::Check,
}
