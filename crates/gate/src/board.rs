//! What the broker says of locks, as rows for people and programs.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use gate_api::wire::{Line, LinePlace, LineState, Locks};
use gate_core::lock::claim::Process;
use gate_core::lock::want::Access;
use gate_core::path::ViewPath;
use gate_view::written;
use serde::Serialize;
use utoipa::ToSchema;

use crate::daemon::body::Written;
use crate::duration;
use crate::output::Table;
use crate::processes;

/// The version of the JSON form.
const VERSION: u32 = 1;

/// All that holds and waits at one moment.
#[derive(Debug, Serialize, ToSchema)]
pub struct Board {
    version: u32,
    epoch: u64,
    locks: Vec<Row>,
}

/// One name that is held or waited for.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Row {
    /// In its space; empty once an open file has lost its name.
    #[serde(with = "written")]
    #[schema(value_type = Written)]
    pub path: PathBuf,
    pub space: String,
    pub mode: &'static str,
    pub state: &'static str,
    pub op: &'static str,
    /// Who, as people know it: the owner it was given, else its agent.
    pub owner: String,
    pub pid: Option<u32>,
    pub command: Option<String>,
    /// The client that asked for it.
    pub client: String,
    pub token: Option<String>,
    pub ticket: u64,
    /// In its line, from 1.
    pub place: Option<u64>,
    /// Tickets in its way.
    pub behind: Vec<u64>,
    /// RFC 3339, UTC.
    pub since: String,
    pub reason: String,
    /// Whether only kin let it pass.
    pub by_kin: bool,
    /// Until when it was asked to let go, if it was: RFC 3339, UTC.
    pub recalled_until: Option<String>,
    #[serde(skip)]
    since_ms: u64,
    /// Whether its process is known to have ended: it holds or waits for a moment still.
    #[serde(skip)]
    pub has_ended: bool,
    #[serde(skip)]
    pub process: Option<Process>,
}

impl Board {
    /// Words what the broker said.
    pub fn new(epoch: u64, locks: Locks) -> Board {
        Board { version: VERSION, epoch, locks: locks.lines.into_iter().flat_map(rows).collect() }
    }

    /// Tells whether nobody holds anything and nobody waits.
    pub fn is_empty(&self) -> bool {
        self.locks.is_empty()
    }

    /// Returns what holds and waits, oldest first.
    pub fn rows(&self) -> &[Row] {
        &self.locks
    }

    /// Returns it as a table.
    pub fn table(&self) -> String {
        if self.is_empty() {
            return "nobody holds anything and nobody waits\n".to_owned();
        }
        let heading = ["STATE", "MODE", "OP", "PATH", "WHO", "PID", "SINCE", "TICKET", "REASON"];
        let mut table = Table::new(heading);
        for row in &self.locks {
            table.row([
                row.state_with_place(),
                row.mode.to_owned(),
                row.op.to_owned(),
                row.shown_path(),
                row.who(),
                row.pid.map(|pid| pid.to_string()).unwrap_or_default(),
                row.age(),
                row.ticket.to_string(),
                row.reason.clone(),
            ]);
        }
        table.text()
    }
}

impl Row {
    /// Returns the path for people: no two look alike, whatever bytes they have.
    pub fn shown_path(&self) -> String {
        if self.path.as_os_str().is_empty() {
            return "(removed)".to_owned();
        }
        let chunks = self.path.as_os_str().as_bytes().utf8_chunks();
        let spelt = chunks.map(|chunk| {
            let invalid = chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}"));
            chunk.valid().replace('\\', r"\\") + &invalid.collect::<String>()
        });
        spelt.collect()
    }

    /// Returns who it is: an owner and what it runs, as far as known. A client that holds for
    /// another command knows best what that is.
    pub fn who(&self) -> String {
        let command = self.command.as_ref().filter(|_| self.op != "hold");
        match (self.owner.as_str(), command) {
            ("", None) if self.has_ended => "somebody who has ended".to_owned(),
            ("", Some(command)) => command.clone(),
            ("", None) => self.client.clone(),
            (owner, Some(command)) => format!("{owner} ({command})"),
            (owner, None) if self.op == "hold" => format!("{owner} ({})", self.client),
            (owner, None) => owner.to_owned(),
        }
    }

    /// Returns how long it has held or waited.
    pub fn age(&self) -> String {
        self.age_at(now_ms())
    }

    /// Returns how long it has held or waited at a moment.
    pub fn age_at(&self, now_ms: u64) -> String {
        duration::rough(Duration::from_millis(now_ms.saturating_sub(self.since_ms)))
    }

    /// Returns whether it holds or waits, and where in its line.
    pub fn state_with_place(&self) -> String {
        match (self.place, self.by_kin) {
            (Some(place), _) => format!("{} #{place}", self.state),
            (None, true) => format!("{} (kin)", self.state),
            (None, false) if self.recalled_until.is_some() => format!("{} (asked)", self.state),
            (None, false) => self.state.to_owned(),
        }
    }
}

/// Returns one row for each name of a claim.
pub fn rows(line: Line) -> Vec<Row> {
    let recalled_until = match line.state {
        LineState::Held { recalled_until_ms, .. } => recalled_until_ms.map(utc),
        LineState::Waiting { .. } => None,
    };
    let (state, token, place, behind, by_kin) = match line.state {
        LineState::Held { token, by_kin, .. } => {
            ("held", Some(token.to_string()), None, Vec::new(), by_kin)
        }
        LineState::Waiting { place, behind } => ("waiting", None, Some(place), behind, false),
    };
    let agent = || line.process.and_then(processes::agent).unwrap_or_default();
    let row = Row {
        path: PathBuf::new(),
        space: line.space,
        mode: mode(line.access),
        state,
        op: line.op.as_str(),
        owner: if line.owner.is_empty() { agent() } else { line.owner },
        pid: line.process.map(|process| process.pid),
        command: line.process.and_then(processes::command),
        client: line.client,
        token,
        ticket: line.ticket,
        place,
        behind,
        since: utc(line.since_ms),
        reason: line.reason,
        by_kin,
        recalled_until,
        since_ms: line.since_ms,
        has_ended: line.process.is_some_and(processes::has_ended),
        process: line.process,
    };
    let path = |place: &LinePlace| place.path.as_ref().map(path_of).unwrap_or_default();
    line.places.iter().map(|place| Row { path: path(place), ..row.clone() }).collect()
}

/// Returns the time in milliseconds since 1970, UTC.
pub fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// Returns `read` or `write`.
pub fn mode(access: Access) -> &'static str {
    match access {
        Access::Read => "read",
        Access::Write => "write",
    }
}

/// Returns a time in RFC 3339, UTC.
pub fn utc(ms: u64) -> String {
    let ms = i64::try_from(ms).unwrap_or(i64::MAX);
    jiff::Timestamp::from_millisecond(ms).unwrap_or(jiff::Timestamp::MAX).to_string()
}

/// Returns a time as this machine's clock shows it, as long as any other.
pub fn local(ms: u64) -> String {
    let ms = i64::try_from(ms).unwrap_or(i64::MAX);
    let at = jiff::Timestamp::from_millisecond(ms).unwrap_or(jiff::Timestamp::MAX);
    at.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S%.3f").to_string()
}

/// As [`local`], without what is less than a second.
pub fn local_seconds(ms: u64) -> String {
    let mut text = local(ms);
    text.truncate(text.len().saturating_sub(".000".len()));
    text
}

/// Returns a path in its space as programs are told it.
pub fn path_of(path: &ViewPath) -> PathBuf {
    let bytes = if path.is_root() { b"." } else { path.as_bytes() };
    OsString::from_vec(bytes.to_vec()).into()
}

#[cfg(test)]
mod tests {
    use gate_core::id::{Epoch, Token};
    use gate_core::lock::want::Op;

    use super::*;

    fn line(state: LineState, paths: &[Option<&str>]) -> Line {
        let place = |path: &Option<&str>| LinePlace {
            path: path.map(|path| ViewPath::parse(path.as_bytes()).unwrap()),
            directory: false,
        };
        Line {
            ticket: 7,
            space: "default".into(),
            places: paths.iter().map(place).collect(),
            op: Op::Open(Access::Write),
            access: Access::Write,
            state,
            count: 1,
            since_ms: 0,
            owner: "ada".into(),
            reason: String::new(),
            process: None,
            client: "mount /mnt".into(),
        }
    }

    #[test]
    fn a_claim_has_a_row_for_each_of_its_names() {
        let waiting = LineState::Waiting { place: 2, behind: vec![3] };
        let locks =
            Locks { version: 1, lines: vec![line(waiting, &[Some("a"), None])], more: false };
        let board = serde_json::to_value(Board::new(9, locks)).unwrap();
        assert_eq!((&board["version"], &board["epoch"]), (&1.into(), &9.into()));
        let [first, second] = board["locks"].as_array().unwrap().as_slice() else { panic!() };
        assert_eq!((&first["path"], &second["path"]), (&"a".into(), &"".into()));
        assert_eq!((&first["place"], &first["state"]), (&2.into(), &"waiting".into()));
        assert_eq!(
            (&first["since"], &first["ticket"]),
            (&"1970-01-01T00:00:00Z".into(), &7.into())
        );
    }

    #[test]
    fn names_that_are_no_text_look_like_no_others() {
        let byte = ViewPath::parse(b"n\xff").unwrap();
        let mut line = line(LineState::Waiting { place: 1, behind: vec![] }, &[Some(r"n\xff")]);
        line.places.push(LinePlace { path: Some(byte), directory: false });
        let rows = rows(line);
        assert_eq!([rows[0].shown_path(), rows[1].shown_path()], [r"n\\xff", r"n\xff"]);
        let told =
            [&rows[0], &rows[1]].map(|row| serde_json::to_value(row).unwrap()["path"].clone());
        assert_eq!(told, [r"n\xff".into(), serde_json::json!([b'n', 0xff])]);
    }

    #[test]
    fn a_holder_shows_its_token() {
        let token = Token { epoch: Epoch(2), counter: 5 };
        let held = LineState::Held {
            token,
            by_kin: false,
            lease_expires_at_ms: None,
            recalled_until_ms: None,
        };
        let rows = rows(line(held, &[Some(".")]));
        assert_eq!((rows[0].token.as_deref(), &*rows[0].shown_path()), (Some("2.5"), "."));
        assert_eq!(rows[0].who(), "ada");
    }
}
