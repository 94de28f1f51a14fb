//! All about one path: who has it, who waits, what went wrong there, what to do.

use std::fmt::Display;

use askama::Template;
use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use gate_api::bearer::Rights;
use gate_api::wire::{Scope, Why};
use gate_core::path::ViewPath;

use super::page::{Fault, Frame, page as made};
use super::shown::{Line, Shown};
use crate::board;
use crate::cli::why::{advice, tell_row};
use crate::daemon::office::{Office, absolute, aside};
use crate::daemon::refusal::{Kind, Refusal};
use crate::query::Asked;

#[derive(Template)]
#[template(path = "why.html")]
struct Page {
    frame: Frame,
    path: String,
    space: String,
    told: Option<Told>,
}

struct Told {
    path: Shown,
    space: Shown,
    rows: Vec<Shown>,
    past: Vec<Line>,
    advice: Vec<Shown>,
}

/// `GET /why`
pub async fn page(
    State(office): State<Office>,
    Extension(rights): Extension<Rights>,
    asked: Asked,
) -> Result<Response, Fault> {
    let told = match asked.bytes("path") {
        None => None,
        Some(path) => {
            let (space, path) = (asked.text("space").map(str::to_owned), path.to_owned());
            let look = move || {
                let scope = scope(&office, space.as_deref(), &path)?;
                office.session().why(scope).map(Told::new).map_err(Fault::of_query)
            };
            Some(aside(look).await.map_err(|fault| fault.back("/why"))?)
        }
    };
    let text = |name| asked.text(name).unwrap_or_default().to_owned();
    let (path, space) = (text("path"), text("space"));
    Ok(made(&Page { frame: Frame::new("Why", "why", rights), path, space, told }))
}

/// Reads a place: an absolute path, or one in a space, which need not be named if it is the only one.
pub fn scope(office: &Office, space: Option<&str>, path: &[u8]) -> Result<Scope, Fault> {
    let wrong = |what: &dyn Display| {
        let hint = "name an absolute path, in a view or behind one, or a space and a path in it, whose root is `.`";
        Fault::of(Refusal::new(Kind::Invalid, what, hint))
    };
    let space = match (space, path) {
        (None, [b'/', ..]) => return Ok(absolute(path.to_vec())),
        (None, _) => match &office.standing().map_err(Fault::of)?.spaces[..] {
            [only] => only.name.clone(),
            _ => return Err(wrong(&"there are several spaces, or none")),
        },
        (Some(space), _) => space.to_owned(),
    };
    let path = ViewPath::parse(path).map_err(|error| wrong(&error))?;
    Ok(Scope::Within { space, path })
}

impl Told {
    fn new(why: Why) -> Told {
        let rows: Vec<board::Row> = why.lines.into_iter().flat_map(board::rows).collect();
        Told {
            path: Shown::new(why.path.to_string()),
            space: Shown::new(&why.space),
            rows: rows.iter().map(|row| Shown::new(tell_row(row))).collect(),
            advice: advice(&rows, &why.past).iter().map(Shown::new).collect(),
            past: why.past.iter().rev().map(Line::of).collect(),
        }
    }
}
