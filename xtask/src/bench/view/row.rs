//! What is measured in each place, and the bars it must reach.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::peers::{BARE, BUCKET, GATE, GATE_FAST, GOCRYPTFS, PASSTHROUGH};
use super::{commands, large, many, small};

/// One line of the speed table.
pub struct Row {
    /// What it is called on the command line.
    pub name: &'static str,
    pub title: &'static str,
    pub unit: Unit,
    pub field: Field,
    pub rounds: usize,
    /// Called once in each place.
    pub prepare: fn(&Site) -> io::Result<()>,
    /// Whether what was prepared is as old as most files are before it is used: a view trusts nothing
    /// of what has just changed.
    pub at_rest: bool,
    /// Called in each round in each place.
    pub round: fn(&Site) -> io::Result<Round>,
    pub bars: &'static [Bar],
}

/// How its figures are shown.
#[derive(Clone, Copy)]
pub enum Unit {
    /// Time for one.
    Time,
    /// So many bytes by their time.
    Speed(u64),
}

/// Which places take part.
#[derive(Clone, Copy)]
pub enum Field {
    All,
    /// For what takes long.
    Only(&'static [&'static str]),
}

/// A place as a row sees it.
pub struct Site {
    /// Where the work is done.
    pub dir: PathBuf,
    pub behind: Behind,
    /// What all places lie on.
    pub ground: PathBuf,
    /// How many are many.
    pub files: usize,
}

/// Where what a place shows lies.
pub enum Behind {
    /// In the place: it is no mount.
    Nothing,
    /// In this directory, as it is shown.
    Plain(PathBuf),
    /// Where nobody but its server can read it.
    Sealed,
}

/// What one round took.
pub struct Round {
    /// The time of one operation.
    pub time: Duration,
    /// How many there were.
    pub operations: usize,
}

/// How fast a view must be, beside one of the others.
pub struct Bar {
    pub view: &'static str,
    pub peer: &'static str,
    pub bound: Bound,
    pub by: By,
}

/// A bound by the other's figure.
#[derive(Clone, Copy)]
pub enum Bound {
    /// So many times the time.
    Times(f64),
    /// So many percent of the speed.
    Percent(f64),
    /// So many milliseconds, whatever the other takes.
    Millis(f64),
}

/// Which figures are compared.
#[derive(Clone, Copy)]
pub enum By {
    Median,
    Best,
}

const ROUNDS: usize = 5;
/// Of what takes milliseconds.
const ROUNDS_SHORT: usize = 15;

const fn times_of_passthrough(times: f64) -> Bar {
    Bar { view: GATE, peer: PASSTHROUGH, bound: Bound::Times(times), by: By::Median }
}

const fn percent_of_bare(view: &'static str, percent: f64) -> Bar {
    Bar { view, peer: BARE, bound: Bound::Percent(percent), by: By::Median }
}

/// A row over small files.
const SMALL: Row = Row {
    name: "",
    title: "",
    unit: Unit::Time,
    field: Field::All,
    rounds: ROUNDS_SHORT,
    prepare: small::prepare,
    at_rest: false,
    round: small::open,
    bars: &[],
};
/// A row over a large file.
const LARGE: Row = Row { prepare: large::prepare, round: large::read, rounds: ROUNDS, ..SMALL };
const ALL_OF_IT: Row = Row { unit: Unit::Speed(large::BYTES), ..LARGE };
/// A row of commands.
const COMMAND: Row = Row { prepare: commands::prepare_clone, rounds: ROUNDS, ..SMALL };
/// A row over many files, of which it makes new ones for each round.
const MANY: Row = Row {
    prepare: |_| Ok(()),
    rounds: ROUNDS,
    field: Field::Only(&[BARE, PASSTHROUGH, GATE]),
    ..SMALL
};

const fn percent_of_gocryptfs(percent: f64) -> Bar {
    Bar { view: BUCKET, peer: GOCRYPTFS, bound: Bound::Percent(percent), by: By::Median }
}

const OPEN: Row =
    Row { name: "open", title: "open, read 4 KiB, close", round: small::open, ..SMALL };
const CREATE: Row = Row {
    name: "create",
    title: "create, write 4 KiB, close, unlink",
    round: small::create,
    ..SMALL
};
const SAVE: Row = Row { name: "save", title: "save by rename", round: small::save, ..SMALL };
const STAT: Row = Row { name: "stat", title: "stat", round: small::stat, ..SMALL };
const READ: Row = Row { name: "read", title: "read 256 MiB", round: large::read, ..ALL_OF_IT };
const WRITE: Row = Row { name: "write", title: "write 256 MiB", round: large::write, ..ALL_OF_IT };
const RANDOM_READ: Row = Row {
    name: "random-read",
    title: "read 4 KiB somewhere in 256 MiB",
    round: large::read_here_and_there,
    ..LARGE
};
const RANDOM_WRITE: Row = Row {
    name: "random-write",
    title: "write 4 KiB somewhere in 256 MiB",
    round: large::write_here_and_there,
    ..LARGE
};
const CLONE: Row = Row {
    name: "clone",
    title: "git clone of 3 000 files",
    prepare: commands::prepare_repository,
    round: commands::clone,
    ..COMMAND
};
const STATUS: Row = Row { name: "status", title: "git status", round: commands::status, ..COMMAND };
const RG: Row = Row { name: "rg", title: "rg", round: commands::search, ..COMMAND };
const WALK: Row =
    Row { name: "walk", title: "look at many files, each", round: many::walk, ..MANY };
const REMOVE: Row =
    Row { name: "remove", title: "remove many files, each", round: many::remove, ..MANY };

/// All rows of a bucket, whose view makes the many files itself.
pub const BUCKET_ROWS: [Row; 14] = [
    OPEN,
    CREATE,
    SAVE,
    STAT,
    Row { bars: &[percent_of_gocryptfs(100.0)], ..READ },
    Row { bars: &[percent_of_gocryptfs(100.0)], ..WRITE },
    RANDOM_READ,
    RANDOM_WRITE,
    Row {
        name: "rewrite",
        title: "open 256 MiB, write 4 KiB, close",
        round: large::rewrite,
        bars: &[Bar { view: BUCKET, peer: BARE, bound: Bound::Millis(5.0), by: By::Median }],
        ..LARGE
    },
    CLONE,
    STATUS,
    RG,
    Row { field: Field::All, rounds: 3, ..WALK },
    Row { field: Field::All, rounds: 3, ..REMOVE },
];

/// All rows of a directory.
pub const ROWS: [Row; 15] = [
    Row { at_rest: true, bars: &[times_of_passthrough(1.25)], ..OPEN },
    Row { bars: &[times_of_passthrough(1.25)], ..CREATE },
    Row { bars: &[times_of_passthrough(1.25)], ..SAVE },
    STAT,
    Row {
        bars: &[Bar { view: GATE, peer: PASSTHROUGH, bound: Bound::Percent(95.0), by: By::Best }],
        ..READ
    },
    Row { bars: &[percent_of_bare(GATE, 45.0), percent_of_bare(GATE_FAST, 80.0)], ..WRITE },
    RANDOM_READ,
    RANDOM_WRITE,
    Row { bars: &[times_of_passthrough(1.0)], ..CLONE },
    Row { bars: &[times_of_passthrough(1.0)], rounds: ROUNDS_SHORT, ..STATUS },
    Row { at_rest: true, bars: &[times_of_passthrough(1.0)], ..RG },
    Row { name: "list", title: "list many files, each", round: many::list, ..MANY },
    WALK,
    REMOVE,
    Row {
        name: "pause",
        title: "longest open while many are removed",
        round: many::remove_beside_another,
        ..MANY
    },
];
