//! How far long work has come, on a terminal and nowhere else.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How often it is drawn at most, in times a second.
const DRAWN_PER_SECOND: u8 = 10;
/// How often it moves while nothing is told.
const TICK: Duration = Duration::from_millis(200);

/// A line that is gone when this is dropped.
pub struct Progress(ProgressBar);

impl Progress {
    /// Of work of which it is known how much it is.
    pub fn of_steps(steps: usize) -> Progress {
        Progress::new(Some(steps as u64), "[{bar:24}] {msg}")
    }

    /// Of work of which only shows how much was done.
    pub fn of_count() -> Progress {
        Progress::new(None, "{spinner} {human_pos} {msg} ({elapsed})")
    }

    fn new(steps: Option<u64>, look: &'static str) -> Progress {
        let bar = ProgressBar::with_draw_target(
            steps,
            ProgressDrawTarget::stderr_with_hz(DRAWN_PER_SECOND),
        );
        let style = ProgressStyle::with_template(look).expect("the template is right");
        bar.set_style(style.progress_chars("## "));
        bar.enable_steady_tick(TICK);
        Progress(bar)
    }

    /// Shows how much is done, and what is being done.
    pub fn tell(&self, done: impl TryInto<u64>, what: &str) {
        self.0.set_position(done.try_into().unwrap_or(u64::MAX));
        self.0.set_message(what.to_owned());
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
