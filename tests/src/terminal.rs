//! A terminal with a shell in it, seen as a person sees it: tmux draws, we look.

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::kernel;
use crate::run::Run;
use crate::wait::{SOON, try_wait_for};
use crate::world::World;

/// A terminal of a world; it ends with this value.
pub struct Terminal {
    home: PathBuf,
    socket: PathBuf,
}

impl Terminal {
    /// Opens a terminal of that size with a shell in it.
    ///
    /// # Panics
    /// If there is no tmux.
    #[must_use]
    #[track_caller]
    pub fn open(world: &World, width: u16, height: u16) -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let home = world.home().to_owned();
        let terminal = Terminal { socket: home.join(format!("tmux-{number}.sock")), home };
        let (width, height) = (width.to_string(), height.to_string());
        let words = ["-f", "/dev/null", "new-session", "-d", "-x", &width, "-y", &height, "sh"];
        // What runs in it has the environment of the one who starts the server.
        let run = world.command("tmux".as_ref()).args(["-S"]).args([&terminal.socket]);
        run.args(words).run().success();
        terminal
    }

    /// Returns what is on the screen.
    #[must_use]
    #[track_caller]
    pub fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    /// Returns what is on the screen, with what makes its colours.
    #[must_use]
    #[track_caller]
    pub fn screen_with_colours(&self) -> String {
        self.tmux(&["capture-pane", "-p", "-e"])
    }

    /// Waits until the screen shows something.
    #[track_caller]
    pub fn wait_for(&self, what: &str) {
        self.wait_until(what, |screen| screen.contains(what));
    }

    /// Waits until the screen is as it should be.
    #[track_caller]
    pub fn wait_until(&self, what: &str, is_so: impl Fn(&str) -> bool) {
        let mut last = String::new();
        let seen = try_wait_for(SOON, || {
            last = self.screen();
            is_so(&last).then_some(())
        });
        assert!(seen.is_some(), "not on the screen: {what}\n{last}");
    }

    /// Presses keys, by the names that tmux has for them.
    #[track_caller]
    pub fn press<const N: usize>(&self, keys: [&str; N]) {
        self.tmux(&[&["send-keys"], &keys[..]].concat());
    }

    /// Types a line and ends it.
    #[track_caller]
    pub fn enter(&self, line: &str) {
        self.tmux(&["send-keys", "-l", line]);
        self.press(["Enter"]);
    }

    /// Gives the terminal another size.
    #[track_caller]
    pub fn resize(&self, width: u16, height: u16) {
        let (width, height) = (width.to_string(), height.to_string());
        self.tmux(&["resize-window", "-x", &width, "-y", &height]);
    }

    /// Asserts that the terminal is as a shell needs it: with echo, line by line.
    #[track_caller]
    pub fn assert_sane(&self) {
        self.enter("clear; stty -a; echo looked $((1 + 1))");
        self.wait_for("looked 2");
        let state = self.screen();
        for flag in ["echo", "icanon", "isig"] {
            assert!(state.split_whitespace().any(|word| word == flag), "{flag}\n{state}");
        }
    }

    #[track_caller]
    fn tmux(&self, words: &[&str]) -> String {
        let run = Run::new(Command::new("tmux"), &self.home);
        run.args(["-S"]).args([&self.socket]).args(words).run().success()
    }
}

impl Drop for Terminal {
    /// The shell may sit in a view that is about to be unmounted.
    fn drop(&mut self) {
        let tmux = |words: &[&str]| {
            let output = Command::new("tmux").arg("-S").arg(&self.socket).args(words).output();
            output.ok().and_then(|output| String::from_utf8(output.stdout).ok())
        };
        let shell = tmux(&["list-panes", "-F", "#{pane_pid}"]);
        // Where the test failed it may be gone already; the world's end looks for what is left.
        let _ = tmux(&["kill-server"]);
        if let Some(shell) = shell.and_then(|pid| pid.trim().parse().ok()) {
            try_wait_for(SOON, || kernel::is_dead(shell).then_some(()));
        }
    }
}
