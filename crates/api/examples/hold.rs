//! Takes names in a directory, does something that nobody else may do meanwhile, lets go.
//!
//!     cargo run -p gate-api --example hold -- DIR NAME…
//!
//! DIR is the directory behind a view, or one that has none: then the names are only names.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use gate_api::wire::{Origin, Recall, Source};
use gate_api::{Address, Ask, ClientInfo, Quiet, Session, Watcher, address, source};
use gate_core::lock::claim::{Label, Patience};
use gate_core::lock::event::Revocation;
use gate_core::lock::want::{Access, Place};
use gate_core::path::ViewPath;

/// Says what comes without having been asked for.
struct Voice;

impl Watcher for Voice {
    fn revoked(&self, _owner: u64, why: Revocation, reason: &str) -> Quiet {
        eprintln!("the hold was taken away: {why:?} {reason}");
        Quiet::Now
    }

    fn recalled(&self, _owner: u64, recall: &Recall) {
        eprintln!("somebody asks to let go within {:?}: {}", recall.within, recall.reason);
    }

    fn contended(&self, _owner: u64) {}
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    let dir = PathBuf::from(words.next().ok_or("give a directory, and names in it")?);
    let state_dir = std::env::var_os("GATE_STATE_DIR").map(PathBuf::from);
    let state_dir = state_dir.or_else(address::state_dir_user).ok_or("HOME is not set")?;
    let broker = Address::of_state_dir(&state_dir);
    let session = Session::connect(broker, ClientInfo::named("example"), Arc::new(Voice))?;

    let origin = Origin::Directory(source::directory(&dir)?);
    let space =
        session.attach(Source { origin, space: None, by_host_and_port: false, rules: None })?.space;
    let place = |name: String| -> Result<Place, Box<dyn Error>> {
        let path = Some(ViewPath::parse(name.as_bytes())?);
        Ok(Place { space, path, node: source::node(&dir.join(Path::new(&name)))? })
    };
    let places = words.map(place).collect::<Result<Vec<_>, _>>()?;
    let label = Label { reason: "an example".to_owned(), ..Label::default() };
    let patience = Patience::Limited(Duration::from_secs(10));
    let hold = session.hold(Ask::hold(Access::Write, places, patience, label))?;

    println!("let in, fencing token {:?}; press Enter to let go", hold.grant().token);
    std::io::stdin().read_line(&mut String::new())?;
    if !hold.stands(Duration::from_secs(10)) {
        return Err("the hold was lost: the work is to be done again".into());
    }
    Ok(())
}
