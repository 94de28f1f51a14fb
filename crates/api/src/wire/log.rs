//! What happened, as the broker's log tells it: on the wire and in the log's file.
//!
//! A record stands by itself: it names spaces and clients rather than their numbers, which mean
//! nothing once those are gone. Fields are borrowed where a record is made, and owned where it is
//! read. The bytes are a format: a change is a new version of the protocol and of the log.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use gate_core::id::{SpaceId, Token};
use gate_core::lock::claim::Process;
use gate_core::lock::event::{Refusal, Revocation};
use gate_core::lock::want::Op;
use gate_core::path::ViewPath;
use serde::{Deserialize, Serialize};

use super::{Recall, Scope};
use crate::mirror::{
    OpDef, RefusalDef, RevocationDef, SpaceIdDef, TokenDef, maybe_path, maybe_process, path,
};

/// A place in the log: a run of the broker, and the number of a record in it, from 1.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
pub struct Cursor {
    /// The run.
    pub epoch: u64,
    /// The number.
    pub number: u64,
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record<'a> {
    /// When: milliseconds since 1970, UTC.
    pub at_ms: u64,
    /// What.
    pub what: Happening<'a>,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Happening<'a> {
    /// A broker began its run.
    Started {
        /// Its release.
        version: Cow<'a, str>,
        /// How the log of the run before ends.
        former: Former,
    },
    /// A broker ended its run, in order.
    Stopped,
    /// So many records could not be kept. This one stands for them, up to its own number.
    Missing {
        /// How many.
        count: u64,
    },
    /// Something became of a client.
    Client {
        /// Its session.
        session: u64,
        /// What it calls itself.
        client: Cow<'a, str>,
        /// Its process.
        #[serde(with = "maybe_process")]
        process: Option<Process>,
        /// What.
        became: Presence,
    },
    /// Something became of a claim.
    Claim {
        /// What.
        became: Fate<'a>,
        /// Of which.
        claim: Subject<'a>,
    },
}

/// How the log of a run ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Former {
    /// There is none.
    None,
    /// With its end.
    Whole,
    /// With this record, [`Cursor::START`] if there is none: what came after it, if anything did,
    /// is lost.
    Cut(Cursor),
    /// It cannot be read.
    Unreadable,
}

/// What became of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Presence {
    /// It came.
    Came,
    /// Its connection broke.
    Lost,
    /// Its lease ran out; it is kept until somebody wants what it has.
    Overdue,
    /// It came back.
    Back,
    /// It is gone, with all that was its.
    Gone,
}

/// What became of a claim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fate<'a> {
    /// It stands in line.
    Waits,
    /// It was let in.
    Granted {
        /// Its fencing token.
        #[serde(with = "TokenDef")]
        token: Token,
        /// How long it stood in line.
        waited: Duration,
        /// By which right it passed others, if it did.
        pass: Pass,
    },
    /// It now stands for so many acquires of its owner.
    Counted(u32),
    /// It was let go of, or its client is gone.
    Released {
        /// How long it was held; nothing if it only waited.
        held: Option<Duration>,
    },
    /// It was told no.
    Refused {
        /// By which rule.
        #[serde(with = "RefusalDef")]
        why: Refusal,
        /// What was said of it, if somebody ended its wait.
        reason: Cow<'a, str>,
    },
    /// Its holder is asked to let go.
    Recalled(Recall),
    /// It was taken away.
    Revoked {
        /// By which rule.
        #[serde(with = "RevocationDef")]
        why: Revocation,
        /// What was said of it, if somebody broke it.
        reason: Cow<'a, str>,
        /// How long it was held.
        held: Option<Duration>,
    },
    /// A reader went on without a grant.
    Ungated,
    /// By an agent that had not seen what it overwrites: the guard of its view stepped in.
    Guarded(Deed),
}

/// What the guard of a view did about bytes that an agent was to overwrite unseen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Deed {
    /// They are kept under this number.
    Kept(u64),
    /// They are gone: there were more than may be kept.
    TooLarge,
    /// They are gone: they could not be kept.
    Failed,
    /// They are as they were: that was refused.
    Refused,
}

/// What the guard of a view tells its broker.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Overwrite {
    /// The source, by the client's number.
    #[serde(with = "SpaceIdDef")]
    pub space: SpaceId,
    /// The file.
    #[serde(with = "path")]
    pub path: ViewPath,
    /// By which operation.
    #[serde(with = "OpDef")]
    pub op: Op,
    /// Who.
    pub agent: String,
    /// What became of it.
    pub became: Deed,
}

/// By which right a claim was let in beside a holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Pass {
    /// By none: it was its turn.
    None,
    /// It works below a hold, or its process has the same already.
    Own,
    /// A holder waits for it.
    AwaitedByHolder,
}

/// A claim, as far as people ask.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject<'a> {
    /// Its place in the global order; none if it was refused at the door.
    pub ticket: Option<u64>,
    /// What is done.
    #[serde(with = "OpDef")]
    pub op: Op,
    /// Its names, or the first of very many.
    pub places: Vec<Named<'a>>,
    /// Whose it is, as people know it.
    pub owner: Cow<'a, str>,
    /// The name that its party goes by, if that is no process: an agent, a v1 client.
    pub party: Cow<'a, str>,
    /// Why it was asked for, if somebody said so.
    pub reason: Cow<'a, str>,
    /// The process it belongs to, if one does.
    #[serde(with = "maybe_process")]
    pub process: Option<Process>,
    /// The session that asked.
    pub session: u64,
    /// Its client, as it calls itself.
    pub client: Cow<'a, str>,
}

/// A name of a claim, as far as it has one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named<'a> {
    /// The space.
    pub space: Cow<'a, str>,
    /// The path in it.
    #[serde(with = "maybe_path")]
    pub path: Option<ViewPath>,
    /// Whether it is a directory.
    pub directory: bool,
}

/// A question about what happened.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LogQuery {
    /// Where.
    pub scope: Scope,
    /// When.
    pub stretch: Stretch,
    /// At most so many records.
    pub limit: u32,
    /// Answer once there is something, or after so long; at once if it is zero.
    pub patience: Duration,
}

/// A part of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stretch {
    /// The oldest after this record.
    After(Cursor),
    /// The oldest that happened at that time or later: milliseconds since 1970, UTC.
    Since(u64),
    /// The newest up to this record, or of all.
    UpTo(Option<Cursor>),
}

/// A page of the log, oldest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogPage {
    /// What was asked for, as far as it fits.
    pub entries: Vec<Entry>,
    /// The page is about what comes after this record.
    pub begin: Cursor,
    /// And goes up to this one.
    pub end: Cursor,
    /// Whether records before `begin` that were asked for are not known any more.
    pub gap: bool,
    /// Whether there may be more of what was asked for, beyond the page.
    pub more: bool,
}

/// A record and its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Where it stands.
    pub cursor: Cursor,
    /// What it says.
    pub record: Record<'static>,
}

impl Cursor {
    /// Before all records.
    pub const START: Cursor = Cursor { epoch: 0, number: 0 };
}

impl Record<'_> {
    /// Returns how many records this one stands for.
    pub fn count(&self) -> u64 {
        match self.what {
            Happening::Missing { count } => count,
            _ => 1,
        }
    }

    /// Returns whether somebody may ask why that happened.
    pub fn is_odd(&self) -> bool {
        matches!(&self.what, Happening::Claim { became, .. } if became.is_odd())
    }
}

impl Fate<'_> {
    /// Returns whether somebody may ask why that happened.
    pub fn is_odd(&self) -> bool {
        match self {
            Fate::Refused { why: Refusal::Interrupted | Refusal::WouldBlock, .. } => false,
            Fate::Refused { .. } | Fate::Recalled(_) | Fate::Revoked { .. } | Fate::Ungated => true,
            Fate::Granted { pass, .. } => *pass == Pass::AwaitedByHolder,
            // The view tells of it where that is asked.
            Fate::Guarded(_) => false,
            Fate::Waits | Fate::Counted(_) | Fate::Released { .. } => false,
        }
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.number)
    }
}

impl FromStr for Cursor {
    type Err = NoCursor;

    fn from_str(text: &str) -> Result<Cursor, NoCursor> {
        let (epoch, number) = text.split_once('.').ok_or(NoCursor)?;
        let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(epoch) || !digits(number) {
            return Err(NoCursor);
        }
        let parse = |part: &str| part.parse().map_err(|_| NoCursor);
        Ok(Cursor { epoch: parse(epoch)?, number: parse(number)? })
    }
}

/// What is no cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoCursor;

impl fmt::Display for NoCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a cursor is two numbers, as in 3.141")
    }
}

impl std::error::Error for NoCursor {}

#[cfg(test)]
mod tests {
    use super::*;
    use gate_core::id::Epoch;
    use gate_core::lock::want::Access;

    /// If this fails the log's format changed: raise its version, and the protocol's.
    #[test]
    fn the_bytes_of_a_record_are_fixed() {
        let place =
            Named { space: "s".into(), path: ViewPath::parse(b"a/b").ok(), directory: false };
        let claim = Subject {
            ticket: Some(7),
            op: Op::Open(Access::Write),
            places: vec![place],
            owner: "o".into(),
            party: "p".into(),
            reason: "r".into(),
            process: Some(Process { namespace: 1, pid: 2, start: 3 }),
            session: 4,
            client: "c".into(),
        };
        let token = Token { epoch: Epoch(5), counter: 6 };
        let waited = Duration::new(1, 2);
        let became = Fate::Granted { token, waited, pass: Pass::AwaitedByHolder };
        let record = Record { at_ms: 300, what: Happening::Claim { became, claim } };
        let bytes = postcard::to_stdvec(&record).expect("plain data");
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            "ac020401050601020201070001010173010361\
                         2f6200016f0170017201010203040163"
        );
        assert_eq!(postcard::from_bytes(&bytes), Ok(record));
    }

    #[test]
    fn cursors_are_two_numbers_in_order() {
        let cursor = |text: &str| text.parse::<Cursor>();
        assert_eq!(cursor("3.141"), Ok(Cursor { epoch: 3, number: 141 }));
        assert_eq!(cursor("3.141").map(|c| c.to_string()), Ok("3.141".to_owned()));
        assert!(cursor("2.900").unwrap() < cursor("10.1").unwrap());
        for nonsense in ["", "3", "3.", "-1.2", "3.+1", "1.2.3", "1.99999999999999999999"] {
            assert_eq!(cursor(nonsense), Err(NoCursor), "{nonsense}");
        }
    }
}
