//! What others change in the source, beside the view, is passed on to the kernel.
//!
//! With that the kernel may keep names and attributes for long. Most changes are the view's own:
//! only where what lies there is not what the kernel was told, it is told to ask again.
//!
//! The thread is nobody else's: see [`room`](crate::room).

use std::collections::{HashMap, VecDeque};
use std::ffi::CStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gate_fuse::{Errno, NodeId, Stale};

use crate::source::{Change, Heard};
use crate::view::View;

/// After so long everything is looked at once more: an answer that was on its way to the kernel when
/// the change was passed on may have been older, and of two answers the kernel keeps the one that
/// comes to it first.
const SECOND_LOOK_AFTER: Duration = Duration::from_millis(500);

/// Changes that wait for a second look. With more, everything is asked for again.
const LATER_MAX: usize = 100_000;

/// Starts the thread that listens.
pub(crate) fn start(view: &Arc<View>) -> std::io::Result<()> {
    let Some(news) = view.source.news() else { return Ok(()) };
    let view = Arc::downgrade(view);
    let run = move || {
        let mut later = VecDeque::<(Instant, Change)>::new();
        loop {
            let due = later.front().map(|(at, _)| at.saturating_duration_since(Instant::now()));
            let Some(()) = news.wait(due) else { return };
            let Some(view) = view.upgrade() else { return };
            let Heard { changes, by_others } = view.source.heard();
            let now = Instant::now();
            let is_due = |(at, _): &mut (Instant, Change)| *at <= now;
            let mut looks = HashMap::new();
            for change in changes {
                looks.insert(change, Look::First);
            }
            later.extend(looks.keys().map(|change| (now + SECOND_LOOK_AFTER, change.clone())));
            while let Some((_, change)) = later.pop_front_if(is_due) {
                looks.insert(change, Look::Second);
            }
            if later.len() > LATER_MAX {
                later.clear();
                later.push_back((now + SECOND_LOOK_AFTER, Change::Anything));
                looks.insert(Change::Anything, Look::First);
            }
            view.pass_on(&looks);
            let unknown = looks.into_keys().filter(|change| view.is_unknown(change));
            later.extend(unknown.map(|change| (now + SECOND_LOOK_AFTER, change)));
            view.echo(&by_others);
        }
    };
    std::thread::Builder::new().name("view-beside".into()).spawn(run)?;
    Ok(())
}

/// How often a change was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Look {
    First,
    Second,
}

impl View {
    fn pass_on(&self, changes: &HashMap<Change, Look>) {
        if changes.contains_key(&Change::Anything) {
            return self.pass_on_anything();
        }
        let mut directories = HashMap::new();
        for (change, look) in changes {
            if let Change::Name(parent, name) = change {
                let latest = directories.entry(*parent).or_insert(*look);
                *latest = (*latest).max(*look);
                self.pass_on_name(*parent, name, *look);
            }
        }
        for (directory, look) in directories {
            self.pass_on_directory(directory, look);
        }
    }

    /// Whether the kernel did not know what has changed: it is about to hear of it, and is told then.
    fn is_unknown(&self, change: &Change) -> bool {
        let Change::Name(parent, name) = change else { return false };
        let node = self.source.book().known(*parent, name);
        [Some(*parent), node].into_iter().flatten().any(|node| self.source.book().is_unknown(node))
    }

    fn pass_on_name(&self, parent: NodeId, name: &CStr, look: Look) {
        let known = self.source.book().known(parent, name);
        match (self.source.peek(parent, name), known) {
            (Ok((file, attr)), Some(node)) if self.source.file_key(node) == Ok(file) => {
                // What is mapped nobody asks for again. With a writer of its own a view has most
                // likely made the change itself, in the pages that it would drop.
                let is_only_read = self.handles.is_open(node) && !self.handles.is_written(node);
                match self.source.book().was_told(node, &attr) || !self.source.has_news(node) {
                    true => self.doubt(node, look),
                    false if is_only_read => {
                        self.declare_stale(node, Stale::Everything);
                    }
                    false => self.declare_changed(node),
                }
            }
            (Err(Errno::NOENT), None) => {}
            // Who watches the file itself hears that it is gone.
            (Ok(_) | Err(_), Some(node)) if self.source.is_gone(node) => {
                self.told(parent, self.notifier().delete(parent, node, name.to_bytes()));
            }
            (Ok(_) | Err(_), _) => self.look_up_again(parent, name.to_bytes()),
        }
    }

    /// Names may have changed within one tick of the clock by which the kernel judges a listing.
    fn pass_on_directory(&self, node: NodeId, look: Look) {
        if self.source.has_news(node) {
            self.declare_stale(node, Stale::Everything);
        } else {
            self.doubt(node, look);
        }
    }

    /// The kernel was told what is so; but it may have heard something older as well, and go by that.
    fn doubt(&self, node: NodeId, look: Look) {
        if look == Look::Second {
            self.declare_doubtful(node);
        }
    }

    /// More has changed than could be told.
    fn pass_on_anything(&self) {
        for (parent, name, node) in self.source.book().places() {
            self.look_up_again(parent, &name);
            self.declare_stale(node, Stale::Everything);
        }
        self.declare_stale(NodeId::ROOT, Stale::Everything);
    }

    fn look_up_again(&self, parent: NodeId, name: &[u8]) {
        self.told(parent, self.notifier().inval_entry(parent, name));
    }

    fn told(&self, parent: NodeId, outcome: Result<(), Errno>) {
        if let Err(errno) = outcome {
            tracing::debug!(%errno, ?parent, "a name could not be declared stale");
        }
    }
}
