//! What others change is done once more in this view, so that its watchers (inotify) hear of it.
//!
//! Watchers of a FUSE file system are told by the kernel of what is called through it, and of
//! nothing else. So a thread of the view calls what others did elsewhere, in the view's own mount;
//! the view knows that thread, and answers it without doing anything: all of it is done already.
//! Where it made, moved or removed something a *stand-in* is made, moved and removed, which is no
//! node of the source; the call is over before anybody else gets to see it.
//!
//! It must hold: of what the thread calls nothing is done ([`stage`]); the view is not kept
//! mounted, nor its process alive, by a call that waits ([`player`]); what nobody watches is not
//! echoed ([`lookout`]); nobody waits for an echo. What came of a change is not told here, but by
//! [`beside`](crate::beside), and before.

mod lookout;
mod player;
mod stage;

use std::collections::VecDeque;
use std::ffi::CString;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use gate_fuse::{Attr, Entry, NodeId, Reply, Request};

use crate::source::{Happening, What};
use crate::view::{FileSystemNumber, View};
use player::Player;
use stage::{Answer, Kind, Stage};

/// Echoes that wait at once; with more, watchers miss some, as they do with too many events.
const ECHOES_MAX: usize = 16_384;

/// How far back it is looked for a change that another one makes superfluous.
const MERGED_WITHIN: usize = 64;

/// The echoes of a view. Dropping it ends the thread.
#[derive(Default)]
pub(crate) struct Echoes {
    queue: Arc<Queue>,
    stage: Arc<Stage>,
}

/// Where the view is seen.
pub(crate) struct Site {
    pub mountpoint: PathBuf,
    pub file_system: FileSystemNumber,
}

/// A change that is done once more.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Echo {
    Made(Spot, Kind),
    Gone(Spot, Kind),
    Moved {
        from: Spot,
        to: Spot,
        kind: Kind,
    },
    /// The spot, what was changed of what is there, and its inode number in the source.
    Touched(Spot, Touch, Option<u64>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Touch {
    Content,
    Attributes,
}

/// A name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Spot {
    directory: NodeId,
    /// The directory's path, from the root of the view.
    path: CString,
    /// Its inode number in the source, which it has in the view, too.
    inode: u64,
    name: CString,
}

/// Starts the thread, where the view can be reached.
pub(crate) fn start(view: &View) -> std::io::Result<()> {
    let Some(file_system) = view.settings.file_system else { return Ok(()) };
    let notifier = view.notifier().clone();
    if !notifier.drops_names_apart() {
        return Ok(());
    }
    let site = Site { mountpoint: view.settings.mountpoint.clone(), file_system };
    let Echoes { queue, stage } = &view.echoes;
    queue.lock().is_open = true;
    let player = Player { queue: queue.clone(), stage: stage.clone(), notifier, site };
    std::thread::Builder::new().name("view-echo".into()).spawn(move || player.run())?;
    Ok(())
}

impl Echoes {
    /// Returns what a request is answered if it is one of the thread; nothing of it is done.
    pub fn answer(&self, request: &Request<'_>) -> Option<Answer> {
        self.stage.answer(request)
    }
}

impl Drop for Echoes {
    fn drop(&mut self) {
        self.queue.lock().is_open = false;
        self.queue.news.notify_one();
    }
}

impl View {
    /// Has watchers told of what others have done, in the order in which they did.
    pub fn echo(&self, happened: &[Happening]) {
        let echoes = (0..happened.len()).filter_map(|number| self.echo_of(happened, number));
        echoes.for_each(|echo| self.echoes.queue.push(echo));
    }

    fn echo_of(&self, happened: &[Happening], number: usize) -> Option<Echo> {
        let (before, after) = happened.split_at(number);
        let happening = &after[0];
        let is_half =
            |other: &Happening, what| (other.what, other.rename) == (what, happening.rename);
        // A rename comes as two halves; where one is not seen, the other stands for itself.
        match happening.what {
            What::MovedFrom => match after.iter().find(|other| is_half(other, What::MovedTo)) {
                Some(to) => self.moved(happening, to),
                None => Some(Echo::Gone(self.spot(happening)?, kind(happening))),
            },
            What::MovedTo if before.iter().any(|other| is_half(other, What::MovedFrom)) => None,
            What::Made | What::MovedTo => Some(Echo::Made(self.spot(happening)?, kind(happening))),
            What::Gone => Some(Echo::Gone(self.spot(happening)?, kind(happening))),
            What::Written => self.touched(happening, Touch::Content),
            What::Attributes => self.touched(happening, Touch::Attributes),
            What::Closed => None,
        }
    }

    /// Answers the thread that echoes.
    pub fn answer_echo(&self, node: NodeId, answer: Answer, reply: Reply) {
        tracing::debug!(?node, ?answer, "a change of others is echoed");
        match answer {
            Answer::Done => reply.ok(),
            Answer::Refused(errno) => reply.error(errno),
            Answer::StandIn(node, kind) => reply.entry(&stand_in(node, kind)),
            Answer::AsItIs => match self.source.getattr(node) {
                Ok(attr) => self.answer_set(node, &attr, reply),
                Err(errno) => reply.error(errno),
            },
        }
    }

    fn moved(&self, from: &Happening, to: &Happening) -> Option<Echo> {
        let (kind, from, to) = (kind(from), self.spot(from)?, self.spot(to)?);
        Some(Echo::Moved { from, to, kind })
    }

    fn touched(&self, happening: &Happening, touch: Touch) -> Option<Echo> {
        let node = self.source.book().known(happening.directory, &happening.name);
        let file = node.and_then(|node| self.source.file_key(node).ok());
        Some(Echo::Touched(self.spot(happening)?, touch, file.map(|file| file.inode)))
    }

    /// `None` in a directory that has no name any more.
    fn spot(&self, Happening { directory, name, .. }: &Happening) -> Option<Spot> {
        let path = match self.source.book().path_of(*directory)? {
            root if root.is_empty() => c".".to_owned(),
            path => CString::new(path).ok()?,
        };
        let inode = self.source.file_key(*directory).ok()?.inode;
        Some(Spot { directory: *directory, path, inode, name: name.clone() })
    }
}

fn kind(happening: &Happening) -> Kind {
    if happening.is_directory { Kind::Directory } else { Kind::Other }
}

/// The kernel asks anew whenever somebody comes to its name, and never what it is.
fn stand_in(node: NodeId, kind: Kind) -> Entry {
    const ATTRIBUTES_VALID: Duration = Duration::from_secs(60);
    let mode = match kind {
        Kind::Directory => libc::S_IFDIR,
        Kind::Other => libc::S_IFREG,
    };
    let attr = Attr {
        ino: node.0,
        mode: mode | 0o777,
        nlink: 1,
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        ..Attr::default()
    };
    let (entry_valid, attr_valid) = (Duration::ZERO, ATTRIBUTES_VALID);
    Entry { node, generation: 0, attr, entry_valid, attr_valid }
}

/// What is to be echoed.
#[derive(Default)]
struct Queue {
    line: Mutex<Line>,
    news: Condvar,
}

#[derive(Default)]
struct Line {
    echoes: VecDeque<Echo>,
    /// Somebody takes them.
    is_open: bool,
    /// It was said that some were dropped.
    overflowed: bool,
}

impl Queue {
    fn push(&self, echo: Echo) {
        self.lock().push(echo);
        self.news.notify_one();
    }

    /// Waits for echoes, until then at most; `None` at the end.
    fn take(&self, until: Option<Instant>) -> Option<Vec<Echo>> {
        let is_quiet = |line: &mut Line| line.is_open && line.echoes.is_empty();
        let mut line = self.wait_while(until, is_quiet);
        line.is_open.then(|| line.echoes.drain(..).collect())
    }

    /// Lets time pass, unless the end comes.
    fn rest(&self, until: Instant) {
        drop(self.wait_while(Some(until), |line| line.is_open));
    }

    fn wait_while(
        &self,
        until: Option<Instant>,
        mut is_so: impl FnMut(&mut Line) -> bool,
    ) -> MutexGuard<'_, Line> {
        let mut line = self.lock();
        while is_so(&mut line) {
            line = match until {
                None => self.news.wait(line).unwrap_or_else(PoisonError::into_inner),
                Some(until) => {
                    let left = until.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        break;
                    }
                    let waited = self.news.wait_timeout(line, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        line
    }

    fn lock(&self) -> MutexGuard<'_, Line> {
        // Nothing panics while it is held.
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Line {
    fn push(&mut self, echo: Echo) {
        if !self.is_open || self.is_superfluous(&echo) {
            return;
        }
        if self.echoes.len() < ECHOES_MAX {
            return self.echoes.push_back(echo);
        }
        if !std::mem::replace(&mut self.overflowed, true) {
            tracing::warn!("more is changed elsewhere than watchers in this view can be told");
        }
    }

    /// Of two touches of one spot, with nothing else between, one is told.
    fn is_superfluous(&self, echo: &Echo) -> bool {
        let Echo::Touched(spot, ..) = echo else { return false };
        let mut before = self.echoes.iter().rev().take(MERGED_WITHIN);
        before.find(|before| before.concerns(spot)).is_some_and(|before| before == echo)
    }
}

impl Echo {
    fn concerns(&self, spot: &Spot) -> bool {
        self.spots().any(|own| (own.directory, &own.name) == (spot.directory, &spot.name))
    }

    fn spots(&self) -> impl Iterator<Item = &Spot> {
        let (one, other) = match self {
            Echo::Made(spot, _) | Echo::Gone(spot, _) | Echo::Touched(spot, ..) => (spot, None),
            Echo::Moved { from, to, .. } => (from, Some(to)),
        };
        std::iter::once(one).chain(other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spot(name: &str) -> Spot {
        let (path, name) = (c".".to_owned(), CString::new(name).unwrap());
        Spot { directory: NodeId::ROOT, path, inode: 7, name }
    }

    fn touched(name: &str, touch: Touch) -> Echo {
        Echo::Touched(spot(name), touch, None)
    }

    fn check(echoes: &[Echo], left: &[Echo]) {
        let mut line = Line { is_open: true, ..Line::default() };
        echoes.iter().for_each(|echo| line.push(echo.clone()));
        assert_eq!(line.echoes, left);
    }

    #[test]
    fn touches_are_told_once_and_everything_else_as_often_as_it_is_done() {
        let (written, other) = (touched("f", Touch::Content), touched("g", Touch::Content));
        let changed = touched("f", Touch::Attributes);
        let made = Echo::Made(spot("f"), Kind::Other);
        let all = [&written, &other, &written].map(Clone::clone);
        check(&all, &all[..2]);
        for sequence in [[&written, &changed, &written], [&written, &made, &written]] {
            check(&sequence.map(Clone::clone), &sequence.map(Clone::clone));
        }
        let moved = Echo::Moved { from: spot("g"), to: spot("f"), kind: Kind::Other };
        let sequence = [&made, &written, &moved, &written, &made].map(Clone::clone);
        check(&sequence, &sequence);
    }

    #[test]
    fn there_is_a_bound_and_an_end() {
        let queue = Queue::default();
        queue.push(touched("f", Touch::Content));
        assert!(queue.take(None).is_none(), "nobody takes them");
        queue.lock().is_open = true;
        assert_eq!(queue.take(Some(Instant::now())), Some(Vec::new()));
        for number in 0..=ECHOES_MAX {
            queue.push(Echo::Made(spot(&number.to_string()), Kind::Other));
        }
        assert_eq!(queue.take(None).unwrap().len(), ECHOES_MAX);
    }
}
