//! The daemon beyond its broker: it keeps mounts and has buckets, and offers that to programs.
//!
//! [`store`] is what is configured, [`views`] are what is there of it ([`child`]: one that a process of its own
//! serves, [`inside`]: those of buckets, which this one does), [`keeper`] holds both together by the rules of core; [`place`] judges where a mount is to be; [`buckets`] are those of
//! this device, [`heap`] what they need of memory; [`body`] and [`refusal`] are what is said of it all, [`api`] is where that is asked for.

pub mod api;
pub mod body;
pub mod buckets;
mod child;
pub mod heap;
mod inside;
mod keeper;
pub mod office;
mod place;
pub mod refusal;
mod store;
mod views;

use std::fmt::Display;
use std::path::Path;

use gate_broker::{Http, Listen, ListenError, Running};

use crate::activation;
use crate::failure::{Exit, Failure};
use crate::web;
use buckets::Buckets;
use heap::Thrift;
use inside::Inside;
use keeper::Keeper;
use office::Office;
use store::{Store, StoreError};
use views::Views;

/// The socket in the state directory at which the daemon speaks HTTP to its owner.
pub const SOCKET_NAME: &str = "http.sock";

/// Begins to keep mounts beside a broker, and to offer that at the daemon's socket.
pub fn start(running: &Running, state_dir: &Path, api: Option<Listen>) -> Result<Daemon, Failure> {
    // Before anything is started that would have it, too.
    let given = activation::take(&state_dir.join(SOCKET_NAME));
    let cannot = |cause: &dyn Display, hint: &str| {
        Failure::new("cannot keep mounts", cause, hint).exit(Exit::Failed)
    };
    let store = Store::open(state_dir).map_err(|error| match &error {
        StoreError::Version { path, .. } | StoreError::Corrupt { path, .. } => {
            let path = path.display();
            cannot(
                &error,
                &format!("set it aside: `mv {path} {path}.aside`; mounts are added anew"),
            )
        }
        _ => cannot(&error, "mend that, then start the daemon again"),
    })?;
    let buckets = Buckets::find(state_dir);
    let thrift = Thrift::begin(buckets.clone())
        .map_err(|error| cannot(&error, "end other programs, then try again"))?;
    let inside = Inside::new(state_dir, buckets.clone(), running.door(), running.address());
    let keeper = Keeper::open(store, Views::new(state_dir.to_owned(), inside))
        .map_err(|refusal| cannot(&refusal.message, &refusal.hint))?;
    running.count("mounts", "Mounts that are kept, by status", {
        let keeper = keeper.clone();
        move || keeper.counts()
    });
    let office = Office::open(keeper.clone(), buckets, running)
        .map_err(|error| cannot(&error, "look into the daemon's log"))?;
    let served = || api::router(office.clone()).merge(web::router(office.clone()));
    let own = match given {
        Some(listener) => running.offer_at(listener, served()),
        None => running.offer_to_owner(SOCKET_NAME, served()),
    };
    let own = own.map_err(|error| cannot(&error, "mend the permissions of the state directory"))?;
    let mut doors = vec![own];
    if let Some(listen) = api {
        let error = |error| cannot(&error, "choose another --api-port, or leave it out");
        doors.push(running.offer(listen, served()).map_err(|e: ListenError| error(e))?);
    }
    // Last: a daemon that cannot start has mounted nothing.
    keeper.begin();
    Ok(Daemon { keeper, _doors: doors, _thrift: thrift })
}

/// A daemon beside its broker. When it goes, the views that it serves itself do, and what was done there is kept.
pub struct Daemon {
    keeper: Keeper,
    _doors: Vec<Http>,
    _thrift: Thrift,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.keeper.end_inside();
    }
}
