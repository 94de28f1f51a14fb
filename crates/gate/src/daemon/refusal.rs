//! Why a request is not done: a word for programs, a sentence and a way out for people.

use std::fmt::Display;

use axum::http::StatusCode;

use super::store::StoreError;
use crate::failure::Failure;

/// What kind of refusal it is, as programs tell them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The request makes no sense.
    Invalid,
    /// There is no such bucket.
    NoSuchBucket,
    /// There is no such mount, bucket or path.
    NotFound,
    /// There is no device yet.
    NoDevice,
    /// A passphrase is needed first.
    Locked,
    /// Another mount has what is asked for.
    Taken,
    /// The mount is not in a state for that.
    State,
    /// Somebody uses it.
    Busy,
    /// There are as many as there may be.
    Limit,
    /// There is no room on the disk.
    NoRoom,
    /// It was tried, and did not work.
    Failed,
}

/// Why a request is not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub kind: Kind,
    pub message: String,
    pub hint: String,
}

impl Kind {
    /// Returns the word for it.
    pub fn code(self) -> &'static str {
        match self {
            Kind::Invalid => "invalid",
            Kind::NoSuchBucket => "no_such_bucket",
            Kind::NotFound => "not_found",
            Kind::NoDevice => "no_device",
            Kind::Locked => "locked",
            Kind::Taken => "taken",
            Kind::State => "state",
            Kind::Busy => "busy",
            Kind::Limit => "limit",
            Kind::NoRoom => "no_room",
            Kind::Failed => "failed",
        }
    }

    /// Returns the status by which HTTP tells it.
    pub fn status(self) -> StatusCode {
        match self {
            Kind::Invalid | Kind::NoSuchBucket => StatusCode::BAD_REQUEST,
            Kind::NotFound => StatusCode::NOT_FOUND,
            Kind::Taken | Kind::State | Kind::Busy | Kind::Limit | Kind::NoDevice => {
                StatusCode::CONFLICT
            }
            Kind::Locked => StatusCode::LOCKED,
            Kind::NoRoom => StatusCode::INSUFFICIENT_STORAGE,
            Kind::Failed => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl Refusal {
    pub fn new(kind: Kind, message: impl Display, hint: impl Display) -> Refusal {
        Refusal { kind, message: message.to_string(), hint: hint.to_string() }
    }

    /// Takes what a command would have told people.
    pub fn of(kind: Kind, failure: &Failure) -> Refusal {
        let line = |name| failure.line(name).unwrap_or_default();
        let message = match (line("error"), line("cause")) {
            ("", "") => failure.to_string().trim().to_owned(),
            (error, cause) => format!("{error}: {cause}"),
        };
        Refusal { kind, message, hint: line("hint").to_owned() }
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Refusal {
        let (kind, hint) = match &error {
            StoreError::Taken => (Kind::Taken, "`gate mount list` shows which"),
            StoreError::Full => (Kind::NoRoom, "make room; nothing was changed"),
            StoreError::Locked => (Kind::Failed, "end the program that reads it, then try again"),
            StoreError::Version { .. } | StoreError::Corrupt { .. } | StoreError::Failed(_) => {
                (Kind::Failed, "nothing was changed; `gate doctor` looks at the state directory")
            }
        };
        Refusal::new(kind, error, hint)
    }
}
