//! The play: who is let in when, and whether that was in order.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::actor::{self, Actor, Event, Part};
use super::stamped;
use crate::failure::{Exit, Failure};
use crate::output;

/// Who is not let in for so long is seen to wait.
const SEEN_TO_WAIT: Duration = Duration::from_millis(300);
/// Who is not let in for so long when it is its turn has been forgotten.
const TURN_MAX: Duration = Duration::from_secs(15);

/// A play on one file.
pub struct Play {
    path: PathBuf,
    narrates: bool,
    start: Instant,
    events: Receiver<(Part, Event)>,
    stage: io::PipeWriter,
}

impl Play {
    /// Prepares it on a new file in a directory.
    pub fn in_dir(dir: &Path, narrates: bool) -> Result<Play, Failure> {
        let path = dir.join(format!("{}-{}", super::SHARED_NAME, std::process::id()));
        let (hears, stage) = io::pipe().map_err(|error| failed("cannot begin", &error))?;
        let events = actor::listen(hears);
        Ok(Play { path, narrates, start: Instant::now(), events, stage })
    }

    /// Plays it; fails if they did not take turns.
    pub fn run(self) -> Result<(), Failure> {
        let outcome = self.act();
        // Everybody has let go, or was ended.
        let _ = std::fs::remove_file(&self.path);
        outcome?;
        self.say("all of them took their turns, in the order in which they asked")?;
        if !self.narrates {
            output::print(&format!("turns are taken in {}\n", self.dir().display()))?;
        }
        Ok(())
    }

    fn act(&self) -> Result<(), Failure> {
        let mut first = self.enter(Part::First)?;
        self.expect(Part::First, &Event::In)?;
        let mut second = self.enter(Part::Second)?;
        self.expect_nobody("waits: A has the file")?;
        let reader = self.enter(Part::Reader)?;
        self.expect_nobody("waits: it comes after B")?;

        first.cue();
        self.expect(Part::First, &Event::Out)?;
        self.expect(Part::Second, &Event::In)?;
        self.expect_nobody("still waits: B has the file")?;
        second.cue();
        self.expect(Part::Second, &Event::Out)?;
        self.expect(Part::Reader, &Event::In)?;
        let both = [Part::First, Part::Second].map(Part::mark).concat();
        self.expect(Part::Reader, &Event::Read(both))?;
        for actor in [first, second, reader] {
            match actor.end() {
                Ok(true) => {}
                Ok(false) => return Err(self.out_of_order("one of them failed")),
                Err(error) => return Err(failed("cannot end it", &error)),
            }
        }
        Ok(())
    }

    fn enter(&self, part: Part) -> Result<Actor, Failure> {
        let actor = Actor::start(part, &self.path, &self.stage)
            .map_err(|error| failed("cannot start a process", &error))?;
        self.expect(part, &Event::Asks)?;
        Ok(actor)
    }

    /// Waits for what must come next.
    fn expect(&self, part: Part, event: &Event) -> Result<(), Failure> {
        match self.events.recv_timeout(TURN_MAX) {
            Ok((who, what)) if (who, &what) == (part, event) => self.narrate(who, &what),
            Ok((who, Event::Failed(why))) => {
                Err(self.out_of_order(&format!("{} failed: {why}", who.name())))
            }
            Ok((who, what)) => {
                self.narrate(who, &what)?;
                let cause = format!("{} {} too early", who.name(), tell(&what));
                Err(self.out_of_order(&cause))
            }
            Err(_) => {
                let cause =
                    format!("{} was expected and did not come: {}", part.name(), tell(event));
                Err(self.out_of_order(&cause))
            }
        }
    }

    /// Sees that nothing happens: whoever came last waits.
    fn expect_nobody(&self, what: &str) -> Result<(), Failure> {
        match self.events.recv_timeout(SEEN_TO_WAIT) {
            Err(RecvTimeoutError::Timeout) => self.say(&format!("          {what}")),
            Err(RecvTimeoutError::Disconnected) => Err(self.out_of_order("all of them ended")),
            Ok((who, event)) => {
                self.narrate(who, &event)?;
                let cause = format!("{} {} while another had the file", who.name(), tell(&event));
                Err(self.out_of_order(&cause))
            }
        }
    }

    fn narrate(&self, part: Part, event: &Event) -> Result<(), Failure> {
        self.say(&format!("{}  {}", part.name(), tell(event)))
    }

    fn say(&self, what: &str) -> Result<(), Failure> {
        if self.narrates { output::print(&stamped(self.start, what)) } else { Ok(()) }
    }

    fn out_of_order(&self, cause: &str) -> Failure {
        let hint = "is it a gated view? `gate status` lists them";
        Failure::new(format!("no turns are taken in {}", self.dir().display()), cause, hint)
    }

    fn dir(&self) -> &Path {
        self.path.parent().unwrap_or(&self.path)
    }
}

fn tell(event: &Event) -> String {
    match event {
        Event::Asks => "asks for the file".to_owned(),
        Event::In => "is let in".to_owned(),
        Event::Out => "wrote its line and lets go".to_owned(),
        Event::Read(text) => format!("reads what both wrote: {text}"),
        Event::Failed(why) => format!("failed: {why}"),
    }
}

fn failed(what: &str, error: &io::Error) -> Failure {
    Failure::new(what, error, "try again").exit(Exit::Failed)
}
