//! Who gets past a view over its own source: those who were there before it, and those who see the
//! directory where the view does not lie.

use std::path::Path;

use super::in_place::{Insistence, cannot};
use super::site::Site;
use crate::background;
use crate::bypass::{self, Bare, Tables, Views};
use crate::failure::Failure;
use crate::output;
use crate::processes::{self, User};

/// Refuses to mount past who works in the directory already, unless that is insisted on; says who it
/// is then, and where else the directory is seen. Returns who it is.
pub fn check(site: &Site, insistence: Insistence) -> Result<Vec<User>, Failure> {
    let tables = Tables::read();
    let bare = Bare::of(tables.own(), &site.source);
    let users = users_of(&bare, &tables);
    let (source, named) = (site.source.display(), processes::named(&users));
    match (users.is_empty(), insistence.force) {
        (true, _) => {}
        (false, true) => output::say_line(format_args!(
            "these take no turns until they have left {source}: {named}"
        )),
        (false, false) => {
            let cause = format!("who works there already would take no turns: {named}");
            let hint = format!(
                "let them end, or leave it and close their files; or mount all the same: \
                 `gate mount --force {source}`"
            );
            return Err(cannot(site, cause, hint));
        }
    }
    let ways = ways_beside(&bare, &tables, &site.source);
    if !ways.is_empty() {
        let ways = output::some_of(&ways);
        output::say_line(format_args!(
            "turns are taken at {source}, and not where else it is seen: {ways}"
        ));
    }
    Ok(users)
}

/// Says who came into the directory after that look and before the view lay over it.
///
/// The view stays: others may work in it by now, and who came may leave in a moment.
pub fn tell_of_latecomers(site: &Site, known: &[User]) {
    let tables = Tables::read();
    let mut users = users_of(&Bare::of(tables.own(), &site.source), &tables);
    users.retain(|user| known.iter().all(|known| known.pid != user.pid));
    if !users.is_empty() {
        output::say_line(format_args!(
            "these came in before the view was there, and take no turns until they have left {}; \
             `gate status` tells until then: {}",
            site.source.display(),
            processes::named(&users)
        ));
    }
}

fn users_of(bare: &Bare, tables: &Tables) -> Vec<User> {
    // The command that waits for this one may have been called there.
    let waits = background::is_background().then(rustix::process::getppid).flatten();
    let waits = waits.map(|pid| pid.as_raw_nonzero().get().unsigned_abs());
    let mut users = bypass::users_of(bare, tables);
    users.retain(|user| Some(user.pid) != waits);
    users
}

/// Returns the words for where a directory will be seen without the view over it.
fn ways_beside(bare: &Bare, tables: &Tables, source: &Path) -> Vec<String> {
    let views = Views::OneMoreOverIt;
    let own = bare.places(tables.own(), views).into_iter();
    // What lies at its own path now is what is to be covered.
    let own = own.filter(|place| !place.path.starts_with(source));
    let own = own.map(|place| place.path.display().to_string());
    let mut others = bypass::seeing(bare, tables, views);
    // Whose mounts are private has copies of all; who has another path may have made that one itself.
    others.sort_by_key(|namespace| namespace.path == source);
    own.chain(others.iter().map(ToString::to_string)).collect()
}
