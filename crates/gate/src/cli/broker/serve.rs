//! A broker in this process, from its start to its orderly end.

use std::io;

use gate_broker::{Broker, JournalError, ListenError, Options, Running, StartError};
use gate_view::directory::raise_descriptor_limit;
use gate_view::kept;
use rustix::process::Signal;

use crate::failure::{Exit, Failure};
use crate::fault;
use crate::notify;
use crate::signals::Signals;

/// Serves until a signal comes or the broker cannot go on; `ready` hears where, once all doors are
/// open. What `beside` returns is there as long as the broker.
pub fn serve<T>(
    options: Options,
    beside: impl FnOnce(&Running) -> Result<T, Failure>,
    ready: impl FnOnce(&str) -> io::Result<()>,
) -> Result<Exit, Failure> {
    fault::end_whole();
    let signals = Signals::keep(&[Signal::TERM, Signal::INT, Signal::HUP])
        .map_err(|error| came_to_an_end(&error))?;
    if let Err(errno) = raise_descriptor_limit() {
        tracing::debug!(%errno, "the limit of open files stays");
    }
    let kept = kept::root(&options.state_dir);
    let running = Broker::start(options).map_err(|error| not_started(&error))?;
    let beside = beside(&running)?;
    ready(&addresses(&running)).map_err(|error| came_to_an_end(&error))?;
    notify::tell(notify::READY);
    let stopper = running.stopper();
    std::thread::spawn(move || {
        if let Err(error) = signals.next() {
            tracing::error!(%error, "signals cannot be heard any more");
        }
        notify::tell(notify::STOPPING);
        stopper.stop();
    });
    // Of what is kept of a source that has no view any more nobody else would think.
    std::thread::spawn(move || {
        loop {
            kept::trim(&kept);
            std::thread::park_timeout(kept::TRIM_PAUSE);
        }
    });
    let ended = running.wait().map_err(|error| came_to_an_end(&error));
    drop(beside);
    ended.map(|()| Exit::Success)
}

fn addresses(running: &Running) -> String {
    match running.http_address() {
        Some(http) => format!("{} and http://{http}", running.address()),
        None => running.address().to_string(),
    }
}

pub fn not_started(error: &StartError) -> Failure {
    let state_elsewhere = "keep the state elsewhere: --state-dir, or GATE_STATE_DIR";
    let hint = match error {
        StartError::InUse { .. } => format!("use that broker, or stop it; or {state_elsewhere}"),
        StartError::StateDir(..) => format!("mend its permissions, or {state_elsewhere}"),
        StartError::Journal(JournalError::Version(path, _) | JournalError::Corrupt(path, _)) => {
            let path = path.display();
            format!("set it aside: `mv {path} {path}.aside`; what was held is then free")
        }
        StartError::Journal(JournalError::Unwritable(path, _)) => {
            format!("make room on the disk of {}, or {state_elsewhere}", path.display())
        }
        StartError::Log(unknown) => {
            let path = unknown.path.display();
            format!("use that release, or set the log aside: `mv {path} {path}.aside`")
        }
        StartError::Listen(ListenError::NeedsTokens(_)) => {
            "use --host 127.0.0.1, or say who may come: --token-file FILE".to_owned()
        }
        StartError::Listen(ListenError::Bind(..)) => "choose another --port".to_owned(),
        StartError::System(_) => "raise the limits of processes and open files".to_owned(),
    };
    Failure::new("cannot start the broker", error, hint)
}

fn came_to_an_end(error: &io::Error) -> Failure {
    let hint = "start it again; what was held is in its journal";
    Failure::new("the broker came to an end", error, hint)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::fault::tests::{must_end_itself, panic_in_a_thread};

    const STATE_DIR: &str = "GATE_TEST_PANICS_IN_A_BROKER";

    #[test]
    fn a_broker_does_not_outlive_any_of_its_threads() {
        if let Some(state_dir) = std::env::var_os(STATE_DIR) {
            let ready = |_: &str| {
                panic_in_a_thread();
                Err(io::Error::other("it goes on"))
            };
            serve(Options::new(state_dir.into()), |_| Ok(()), ready).unwrap();
            return;
        }
        let state = tempfile::tempdir().unwrap();
        let own = "cli::broker::serve::tests::a_broker_does_not_outlive_any_of_its_threads";
        must_end_itself(own, STATE_DIR, state.path());
    }

    #[test]
    fn a_journal_that_cannot_be_read_is_named_with_the_way_out() {
        let error = JournalError::Corrupt(PathBuf::from("/s/journal"), "not a database".into());
        let text = not_started(&StartError::Journal(error)).to_string();
        assert!(text.contains("mv /s/journal /s/journal.aside"), "{text}");
        assert_eq!(text.lines().count(), 3);
    }
}
