//! Who has a connection to the daemon.

use askama::Template;
use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use gate_api::bearer::Rights;

use super::page::{Fault, Frame, page as made};
use super::shown::Shown;
use crate::daemon::body;
use crate::daemon::office::{Office, aside};
use crate::duration;

/// Clients that are shown.
const ROWS_MAX: usize = 1_000;

#[derive(Template)]
#[template(path = "sessions.html")]
struct Sessions {
    frame: Frame,
    sessions: Vec<Row>,
    more: usize,
}

struct Row {
    name: Shown,
    agent: Option<Shown>,
    process: Shown,
    state: &'static str,
    elsewhere: bool,
    lease: String,
    spaces: Vec<Shown>,
}

/// `GET /sessions`
pub async fn page(
    State(office): State<Office>,
    Extension(rights): Extension<Rights>,
) -> Result<Response, Fault> {
    let all = aside(move || office.sessions()).await?;
    let more = all.len().saturating_sub(ROWS_MAX);
    let sessions = all.into_iter().take(ROWS_MAX).map(Row::new).collect();
    Ok(made(&Sessions { frame: Frame::new("Sessions", "sessions", rights), sessions, more }))
}

impl Row {
    fn new(session: body::Session) -> Row {
        let process = match (session.pid, session.command) {
            (Some(pid), Some(command)) => format!("{command}, {pid}"),
            (Some(pid), None) => pid.to_string(),
            (None, _) => String::new(),
        };
        Row {
            name: Shown::new(session.name),
            agent: session.agent.map(Shown::new),
            process: Shown::new(process),
            state: if session.away { "away" } else { "there" },
            elsewhere: session.elsewhere,
            lease: duration::rough(std::time::Duration::from_millis(session.lease_ms)),
            spaces: session.spaces.iter().map(Shown::new).collect(),
        }
    }
}
