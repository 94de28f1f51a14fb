//! Acting for the caller.
//!
//! The kernel has checked the caller's permissions before it asked (`default_permissions`), so
//! a privileged server keeps its own capabilities; what it makes must belong to the caller,
//! though, and must lose suid and sgid where it would if the caller made it. Identity and
//! capabilities are the thread's; any thread may come here.
//!
//! A caller's supplementary groups are not known, apart from the one that the kernel tells
//! with a creation (Linux ≥ 6.3). Without it sgid may be stripped from what a member made;
//! nothing is ever kept that should be stripped.

use std::cell::{Cell, OnceCell};

use gate_fuse::{Caller, Errno};
use rustix::fs::Mode;
use rustix::process::{Gid, Uid};
use rustix::thread::{CapabilitySet, CapabilitySets, UnshareFlags};

/// Runs `make` so that what it makes belongs to the caller and honours the caller's umask.
/// Without the privilege to do so it is refused for other users than the server's own.
pub(super) fn create_as<T>(
    caller: &Caller,
    umask: u32,
    make: impl FnOnce() -> Result<T, Errno>,
) -> Result<T, Errno> {
    with_thread(|thread| {
        let _disguise = thread.disguise(caller)?;
        rustix::process::umask(Mode::from_raw_mode(umask));
        make()
    })
}

/// Runs `change` with the caller's identity as far as stripping suid and sgid looks at it.
pub(super) fn change_as<T>(
    caller: &Caller,
    change: impl FnOnce() -> Result<T, Errno>,
) -> Result<T, Errno> {
    with_thread(|thread| match thread.own {
        Own::Privileged { .. } => {
            let _disguise = thread.disguise(caller)?;
            change()
        }
        Own::Ordinary { .. } => change(),
    })
}

/// Runs `act` with no more rights than the caller has, groups apart: for what the kernel has not
/// checked. Of root it is taken that it has all.
pub(super) fn with_rights_of<T>(
    caller: &Caller,
    act: impl FnOnce() -> Result<T, Errno>,
) -> Result<T, Errno> {
    with_thread(|thread| {
        let disguise = thread.disguise(caller)?;
        if let Some(disguise) = disguise.as_ref().filter(|_| caller.uid != 0) {
            disguise.give_up_privileges()?;
        }
        act()
    })
}

/// Says whether what this thread does next to files strips their suid and sgid, as it does for
/// callers without CAP_FSETID. Holds until it is said again.
pub(super) fn strip_suidgid(strip: Strip) -> Result<(), Errno> {
    with_thread(|thread| thread.strip(strip))
}

/// See [`strip_suidgid`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Strip {
    Yes,
    No,
}

impl Strip {
    /// As the kernel asks with the request.
    pub fn if_asked(asked: bool) -> Strip {
        if asked { Strip::Yes } else { Strip::No }
    }

    /// For requests that do not say: root has CAP_FSETID, others have not.
    pub fn unless_root(caller: &Caller) -> Strip {
        Strip::if_asked(caller.uid != 0)
    }
}

/// What a thread is and currently pretends to be.
struct Thread {
    own: Own,
    /// `None` while it is not known.
    stripping: Cell<Option<Strip>>,
}

enum Own {
    /// May act as anybody.
    Privileged { uid: Uid, gid: Gid, capabilities: CapabilitySets },
    /// Can only be who it is, and never has CAP_FSETID.
    Ordinary { uid: Uid },
}

fn with_thread<T>(act: impl FnOnce(&Thread) -> Result<T, Errno>) -> Result<T, Errno> {
    thread_local! { static THREAD: OnceCell<Thread> = const { OnceCell::new() } }
    THREAD.with(|cell| match cell.get() {
        Some(thread) => act(thread),
        None => {
            let thread = Thread::this()?;
            act(cell.get_or_init(|| thread))
        }
    })
}

impl Thread {
    /// Makes the umask the thread's own and sheds the server's supplementary groups, which are
    /// no caller's.
    fn this() -> Result<Thread, Errno> {
        // SAFETY: unsharing umask and working directory leaves descriptors and memory shared.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FS) }?;
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        let capabilities = rustix::thread::capabilities(None)?;
        let needed = CapabilitySet::SETUID | CapabilitySet::SETGID | CapabilitySet::DAC_OVERRIDE;
        let own = if capabilities.effective.contains(needed) {
            // A user namespace may forbid it: then nobody there has groups that matter.
            let _ = rustix::thread::set_thread_groups(&[]);
            Own::Privileged { uid, gid, capabilities }
        } else {
            Own::Ordinary { uid }
        };
        Ok(Thread { own, stripping: Cell::new(None) })
    }

    fn strip(&self, strip: Strip) -> Result<(), Errno> {
        let Own::Privileged { capabilities, .. } = &self.own else { return Ok(()) };
        if self.stripping.get() == Some(strip) {
            return Ok(());
        }
        let mut sets = *capabilities;
        sets.effective.set(CapabilitySet::FSETID, strip == Strip::No);
        rustix::thread::set_capabilities(None, sets)?;
        self.stripping.set(Some(strip));
        Ok(())
    }

    fn disguise(&self, caller: &Caller) -> Result<Option<Disguise<'_>>, Errno> {
        let (uid, gid) = match &self.own {
            Own::Privileged { uid, gid, .. } => (*uid, *gid),
            Own::Ordinary { uid } if uid.as_raw() == caller.uid => return Ok(None),
            Own::Ordinary { .. } => return Err(Errno::PERM),
        };
        let strip = Strip::unless_root(caller);
        let itself = (caller.uid, caller.gid) == (uid.as_raw(), gid.as_raw());
        if itself && caller.supplementary_gid.is_none() {
            self.strip(strip)?;
            return Ok(None);
        }
        let mut disguise = Disguise { thread: self, uid, gid, in_group: false };
        if let Some(group) = caller.supplementary_gid {
            let groups = [Gid::from_raw(group)];
            disguise.in_group = rustix::thread::set_thread_groups(&groups).is_ok();
        }
        set_fs_gid(Gid::from_raw(caller.gid))?;
        set_fs_uid(Uid::from_raw(caller.uid))?;
        // Taking another user's identity has just cleared capabilities that creating needs.
        self.stripping.set(None);
        self.strip(strip)?;
        Ok(Some(disguise))
    }
}

/// Ends the pretence when dropped.
struct Disguise<'a> {
    thread: &'a Thread,
    uid: Uid,
    gid: Gid,
    in_group: bool,
}

impl Disguise<'_> {
    fn give_up_privileges(&self) -> Result<(), Errno> {
        let Own::Privileged { capabilities, .. } = &self.thread.own else { return Ok(()) };
        let mut sets = *capabilities;
        sets.effective -= CapabilitySet::DAC_OVERRIDE
            | CapabilitySet::DAC_READ_SEARCH
            | CapabilitySet::FOWNER
            | CapabilitySet::FSETID
            | CapabilitySet::LINUX_IMMUTABLE
            | CapabilitySet::SYS_RESOURCE
            | CapabilitySet::SYS_ADMIN;
        self.thread.stripping.set(None);
        rustix::thread::set_capabilities(None, sets)
    }
}

impl Drop for Disguise<'_> {
    fn drop(&mut self) {
        let mut restored = set_fs_uid(self.uid).and_then(|()| set_fs_gid(self.gid));
        if self.in_group {
            restored = restored.and_then(|()| rustix::thread::set_thread_groups(&[]));
        }
        self.thread.stripping.set(None);
        restored = restored.and_then(|()| self.thread.strip(Strip::No));
        // Going on as somebody else would give that user's files to the next caller.
        restored.expect("a thread may always become itself again");
    }
}

/// Raw: glibc has no wrapper that stays within the thread's bounds on all architectures, and
/// the call does not report failure.
fn set_fs_uid(uid: Uid) -> Result<(), Errno> {
    // SAFETY: changes the calling thread's credentials only; no memory is involved.
    let now = unsafe {
        libc::syscall(libc::SYS_setfsuid, uid.as_raw());
        libc::syscall(libc::SYS_setfsuid, u32::MAX)
    };
    if now == libc::c_long::from(uid.as_raw()) { Ok(()) } else { Err(Errno::PERM) }
}

fn set_fs_gid(gid: Gid) -> Result<(), Errno> {
    // SAFETY: changes the calling thread's credentials only; no memory is involved.
    let now = unsafe {
        libc::syscall(libc::SYS_setfsgid, gid.as_raw());
        libc::syscall(libc::SYS_setfsgid, u32::MAX)
    };
    if now == libc::c_long::from(gid.as_raw()) { Ok(()) } else { Err(Errno::PERM) }
}
