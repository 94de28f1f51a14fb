//! A user namespace with mounts of its own, in which who acts in a world is root and mounts by
//! itself, without fusermount3.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::run::{Outcome, Run, Running};
use crate::wait::{SOON, wait_until};

/// It lasts for as long as a process is in it: the keeper, which does nothing.
pub(super) struct Namespace {
    keeper: Running,
    user: File,
    mounts: File,
}

impl Namespace {
    /// Makes one of whoever runs `unshare`.
    #[track_caller]
    pub(super) fn new(unshare: Run) -> Self {
        let keep = ["--user", "--map-root-user", "--mount", "sh", "-c", "echo made; exec cat"];
        let keeper = unshare.args(keep).start_with_input();
        wait_until(SOON, "there is a user namespace", || {
            assert!(keeper.is_running(), "there is none: {}", keeper.so_far());
            keeper.so_far().contains("made")
        });
        let [user, mounts] = ["user", "mnt"].map(|kind| {
            let path = format!("/proc/{}/ns/{kind}", keeper.pid());
            File::open(path).expect("the namespaces of one's own process can be opened")
        });
        Self { keeper, user, mounts }
    }

    /// Returns the process that is in it from its beginning to its end.
    pub(super) fn keeper(&self) -> i32 {
        self.keeper.pid()
    }

    /// Lets a command run in there, in the directory that bears the same path there.
    pub(super) fn enter(&self, command: &mut Command) {
        let [user, mounts] =
            [&self.user, &self.mounts].map(|file| file.try_clone().expect("a descriptor"));
        let enter = move || -> std::io::Result<()> {
            let dir = std::env::current_dir()?;
            move_into_link_name_space(user.as_fd(), Some(LinkNameSpaceType::User))?;
            move_into_link_name_space(mounts.as_fd(), Some(LinkNameSpaceType::Mount))?;
            std::env::set_current_dir(dir)
        };
        // SAFETY: the child of a fork makes system calls and asks for memory, for which its
        // allocator is prepared.
        unsafe { command.pre_exec(enter) };
    }

    /// Lets it end.
    pub(super) fn end(self) -> Outcome {
        self.keeper.finish(SOON)
    }
}
