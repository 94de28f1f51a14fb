//! One part, as a process of its own.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, PipeReader, PipeWriter, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use clap::ValueEnum;

/// What one of them wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// Write first
    First,
    /// Write second
    Second,
    /// Read
    Reader,
}

/// What happens to one of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Its open is about to begin.
    Asks,
    /// Its open is done.
    In,
    /// It is about to close.
    Out,
    /// What it read, in one word.
    Read(String),
    /// It cannot go on, and why.
    Failed(String),
}

/// A part that is being played.
pub struct Actor {
    child: Child,
    cue: Option<ChildStdin>,
}

impl Part {
    /// Returns what it is called on the stage.
    pub fn name(self) -> &'static str {
        match self {
            Part::First => "writer A",
            Part::Second => "writer B",
            Part::Reader => "reader C",
        }
    }

    /// Plays it: in this process, on standard input and output.
    pub fn act(self, path: &Path) -> io::Result<()> {
        self.try_to_act(path).or_else(|error| self.say(&Event::Failed(error.to_string())))
    }

    fn try_to_act(self, path: &Path) -> io::Result<()> {
        self.say(&Event::Asks)?;
        let mut file = self.open(path)?;
        self.say(&Event::In)?;
        match self {
            Part::First | Part::Second => {
                io::stdin().read_line(&mut String::new())?;
                file.write_all(self.mark().as_bytes())?;
                self.say(&Event::Out)
            }
            Part::Reader => {
                let mut text = String::new();
                file.read_to_string(&mut text)?;
                self.say(&Event::Read(text))
            }
        }
    }

    /// Returns what it writes.
    pub fn mark(self) -> &'static str {
        match self {
            Part::First => "A",
            Part::Second => "B",
            Part::Reader => "",
        }
    }

    fn open(self, path: &Path) -> io::Result<File> {
        match self {
            Part::First => OpenOptions::new().create(true).append(true).open(path),
            Part::Second => OpenOptions::new().append(true).open(path),
            Part::Reader => File::open(path),
        }
    }

    fn say(self, event: &Event) -> io::Result<()> {
        let part = self.to_possible_value().expect("no part is hidden");
        let word = match event {
            Event::Asks => "asks".to_owned(),
            Event::In => "in".to_owned(),
            Event::Out => "out".to_owned(),
            Event::Read(text) => format!("read={text}"),
            Event::Failed(why) => format!("failed={why}"),
        };
        // One write: lines of several processes must not mix.
        io::stdout().write_all(format!("{} {word}\n", part.get_name()).as_bytes())?;
        io::stdout().flush()
    }
}

impl Actor {
    /// Starts a part.
    pub fn start(part: Part, path: &Path, stage: &PipeWriter) -> io::Result<Actor> {
        let name = part.to_possible_value().expect("no part is hidden");
        let mut child = Command::new(std::env::current_exe()?)
            .args(["demo", "--part", name.get_name()])
            .arg(path)
            .stdin(Stdio::piped())
            .stdout(stage.try_clone()?)
            .spawn()?;
        let cue = child.stdin.take();
        Ok(Actor { child, cue })
    }

    /// Lets it go on.
    pub fn cue(&mut self) {
        drop(self.cue.take());
    }

    /// Waits for its end.
    pub fn end(mut self) -> io::Result<bool> {
        self.cue();
        Ok(self.child.wait()?.success())
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        // Of one that has ended nothing is left to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Hears what the actors say, in the order in which they said it.
pub fn listen(stage: PipeReader) -> Receiver<(Part, Event)> {
    let (tell, heard) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stage).lines().map_while(Result::ok) {
            if parse(&line).is_some_and(|said| tell.send(said).is_err()) {
                return;
            }
        }
    });
    heard
}

fn parse(line: &str) -> Option<(Part, Event)> {
    let (part, word) = line.split_once(' ')?;
    let event = match word {
        "asks" => Event::Asks,
        "in" => Event::In,
        "out" => Event::Out,
        word => match word.split_once('=')? {
            ("read", text) => Event::Read(text.to_owned()),
            ("failed", why) => Event::Failed(why.to_owned()),
            _ => return None,
        },
    };
    Some((Part::from_str(part, false).ok()?, event))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_understood() {
        assert_eq!(parse("first asks"), Some((Part::First, Event::Asks)));
        assert_eq!(parse("reader read=AB"), Some((Part::Reader, Event::Read("AB".into()))));
        assert_eq!(
            parse("second failed=no=no"),
            Some((Part::Second, Event::Failed("no=no".into())))
        );
        assert_eq!(parse("nobody in"), None);
    }
}
