//! The first page: how the daemon is, in short.

use askama::Template;
use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use gate_api::bearer::Rights;
use gate_api::wire::Scope;

use super::locks::{self, Row};
use super::mounts::Mount;
use super::page::{Fault, Frame, page as made};
use super::shown::{Line, Shown};
use crate::daemon::office::{Office, aside};

/// Who waits longest, that many of them.
const LONGEST_MAX: usize = 5;
/// Turns that were taken away, that many of them.
const LOST_MAX: usize = 5;

#[derive(Template)]
#[template(path = "overview.html")]
struct Overview {
    frame: Frame,
    halt: Option<Shown>,
    is_in_grace: bool,
    held: u64,
    waiting: u64,
    sessions: u64,
    away: u64,
    longest: Vec<Row>,
    mounts: Vec<Mount>,
    buckets: usize,
    lost: Vec<Line>,
    version: String,
    pid: u32,
    started_at: String,
    state_dir: Shown,
    counts: Vec<(String, u64)>,
}

/// `GET /`
pub async fn page(
    State(office): State<Office>,
    Extension(rights): Extension<Rights>,
) -> Result<Response, Fault> {
    aside(move || Overview::look(&office, rights)).await.map(|page| made(&page))
}

impl Overview {
    fn look(office: &Office, rights: Rights) -> Result<Overview, Fault> {
        let standing = office.standing().map_err(Fault::of)?;
        let mut longest = locks::rows(office)?;
        longest.retain(|row| row.state == "waiting");
        longest.sort_by(|one, other| one.since.cmp(&other.since));
        longest.truncate(LONGEST_MAX);
        let past = office.session().why(Scope::Everything).map_err(Fault::of_query)?.past;
        Ok(Overview {
            frame: Frame::new("Overview", "overview", rights),
            halt: standing.halt.map(|halt| Shown::new(halt.why)),
            is_in_grace: standing.in_grace,
            held: standing.held,
            waiting: standing.waiting,
            sessions: standing.sessions,
            away: standing.away,
            longest,
            mounts: office.keeper.all().into_iter().map(Mount::new).collect(),
            buckets: office.buckets.count()?,
            lost: past.iter().rev().take(LOST_MAX).map(Line::of).collect(),
            version: standing.version,
            pid: standing.pid,
            started_at: standing.started_at,
            state_dir: Shown::path(&standing.state_dir),
            counts: standing.counts.into_iter().collect(),
        })
    }
}
