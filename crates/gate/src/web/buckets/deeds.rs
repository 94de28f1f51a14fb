//! What may be done to what is in a bucket: each is a version of it, and can be taken back.

use askama::Template;
use axum::Extension;
use axum::body::Body;
use axum::extract::{Form, Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use gate_api::bearer::Rights;
use serde::Deserialize;

use super::place::Place;
use crate::daemon::api::flow;
use crate::daemon::body::bucket::Changed;
use crate::daemon::office::{Office, aside};
use crate::daemon::refusal::{Kind, Refusal};
use crate::query::Asked;
use crate::web::page::{Fault, Frame, lead, page as made};
use crate::web::parts::{Parts, boundary};
use crate::web::shown::Shown;

/// Files that are taken at once.
const FILES_MAX: usize = 1000;

#[derive(Template)]
#[template(path = "bucket_move.html")]
struct Moving {
    frame: Frame,
    action: String,
    path: Shown,
    back: String,
    to: String,
    refusal: Option<(Shown, Shown)>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Named {
    name: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Where {
    to: String,
}

/// `POST /buckets/{bucket}/upload`: puts files into a directory.
pub async fn upload(
    State(office): State<Office>,
    Path(words): Path<String>,
    headers: HeaderMap,
    asked: Asked,
    body: Body,
) -> Result<Response, Fault> {
    let place = Place::read(&office.buckets, words, &asked).await?;
    let named = place.clone();
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let between = kind.and_then(boundary).map(str::to_owned);
    let sent = flow::Sent::new(body);
    let stored = aside(move || {
        let between = between.ok_or_else(|| cut_off("it is no form with files"))?;
        let mut parts = Parts::new(sent, &between);
        let (mut count, mut last) = (0, None);
        while let Some(mut part) = parts.next().map_err(cut_off)? {
            // Of a form in which no file was chosen there is one without a name.
            let Some(name) = part.file.clone().filter(|name| !name.is_empty()) else { continue };
            if count == FILES_MAX {
                let message = format!("more than {FILES_MAX} files at once; those are stored");
                return Err(Refusal::new(Kind::Limit, message, "send the rest"));
            }
            last = Some(office.buckets.put(&place.words(), (&place.path, &name), &mut part)?);
            count += 1;
        }
        let hint = "choose one, or several";
        let none = || Refusal::new(Kind::Invalid, "there was no file", hint);
        last.map(|changed| (count, changed)).ok_or_else(none)
    });
    let (count, changed) = stored.await.map_err(|refusal| back(&named, refusal))?;
    let count = count.to_string();
    // One step is taken back by one, and no more is said to be.
    let version = changed.version.filter(|_| count == "1").unwrap_or_default();
    let said =
        [("done", &b"upload"[..]), ("count", count.as_bytes()), ("version", version.as_bytes())];
    Ok(lead(&named.to_with("", &said)))
}

/// `POST /buckets/{bucket}/mkdir`
pub async fn make_directory(
    State(office): State<Office>,
    Path(words): Path<String>,
    asked: Asked,
    Form(Named { name }): Form<Named>,
) -> Result<Response, Fault> {
    let place = Place::read(&office.buckets, words, &asked).await?;
    let named = place.clone();
    let make = move || {
        if name.is_empty() || name.contains('/') {
            let hint = "give it one without a slash";
            return Err(Refusal::new(Kind::Invalid, "that is no name for a directory", hint));
        }
        let path = [place.path.strip_suffix(b"/").unwrap_or(&place.path), b"/", name.as_bytes()];
        office.buckets.make_directory(&place.words(), &path.concat(), false)
    };
    let changed = aside(make).await.map_err(|refusal| back(&named, refusal))?;
    Ok(said(&named, "mkdir", changed))
}

/// `GET /buckets/{bucket}/move`: asks where to.
pub async fn move_page(
    State(office): State<Office>,
    Extension(rights): Extension<Rights>,
    Path(words): Path<String>,
    asked: Asked,
) -> Result<Response, Fault> {
    let place = Place::read(&office.buckets, words, &asked).await?;
    // What is no text is not shown as what can be written.
    let parent = place.parent();
    let mut written = [&place.path, &parent.path].into_iter().flat_map(|path| str::from_utf8(path));
    let to = written.next().unwrap_or("/").to_owned();
    Ok(made(&Moving::new(rights, &place, to, None)))
}

/// `POST /buckets/{bucket}/move`
pub async fn move_to(
    State(office): State<Office>,
    Extension(rights): Extension<Rights>,
    Path(words): Path<String>,
    asked: Asked,
    Form(Where { to }): Form<Where>,
) -> Result<Response, Fault> {
    let place = Place::read(&office.buckets, words, &asked).await?;
    let (moving, wanted) = (place.clone(), to.clone());
    let moved = aside(move || {
        let words = moving.words();
        // What is there is not replaced by who did not know of it.
        match office.buckets.stat(&words, wanted.as_bytes(), None) {
            Ok(node) if node.kind != "directory" => {
                let hint = "choose another path, or delete what is there first";
                Err(Refusal::new(Kind::Taken, "something is there already", hint))
            }
            _ => office.buckets.move_to(&words, &moving.path, wanted.as_bytes()),
        }
    });
    match moved.await {
        Ok(changed) => Ok(said(&place.parent(), "move", changed)),
        Err(refusal) if matches!(refusal.kind, Kind::Invalid | Kind::Taken | Kind::State) => {
            let form = made(&Moving::new(rights, &place, to, Some(&refusal)));
            Ok((StatusCode::BAD_REQUEST, form).into_response())
        }
        Err(refusal) => Err(back(&place.parent(), refusal)),
    }
}

/// `POST /buckets/{bucket}/remove`: with all that is in it.
pub async fn remove(
    State(office): State<Office>,
    Path(words): Path<String>,
    asked: Asked,
) -> Result<Response, Fault> {
    let place = Place::read(&office.buckets, words, &asked).await?;
    let parent = place.parent();
    let removed = aside(move || office.buckets.remove(&place.words(), &place.path, true)).await;
    let changed = removed.map_err(|refusal| back(&parent, refusal))?;
    Ok(said(&parent, "remove", changed))
}

/// `POST /buckets/{bucket}/undo`: takes back what led to a version, or what was done last.
pub async fn undo(
    State(office): State<Office>,
    Path(words): Path<String>,
    asked: Asked,
) -> Result<Response, Fault> {
    let place = Place::read(&office.buckets, words, &asked).await?.with_at(None);
    let words = place.words();
    let undone = aside(move || office.buckets.undo(&words, asked.text("version"))).await;
    let changed = undone.map_err(|refusal| back(&place, refusal))?;
    Ok(said(&place, "undo", changed))
}

/// `POST /buckets/{bucket}/restore`: makes what is there as it was.
pub async fn restore(
    State(office): State<Office>,
    Path(words): Path<String>,
    asked: Asked,
) -> Result<Response, Fault> {
    let place = Place::read(&office.buckets, words, &asked).await?;
    let now = place.with_at(None);
    let restored = aside(move || {
        let at = place.at.as_deref().unwrap_or("@");
        office.buckets.restore(&place.words(), &place.path, at)
    });
    let changed = restored.await.map_err(|refusal| back(&now.parent(), refusal))?;
    Ok(said(&now, "restore", changed))
}

/// Leads to a place where it is said what was done, and offered to take that back.
fn said(place: &Place, done: &str, changed: Changed) -> Response {
    let done = if changed.version.is_some() { done } else { "nothing" };
    let version = changed.version.unwrap_or_default();
    let said = [("done", done.as_bytes()), ("version", version.as_bytes())];
    lead(&place.to_with("", &said))
}

/// Says why something was not done, and leads back to where it was to be.
fn back(place: &Place, refusal: Refusal) -> Fault {
    place.fault(refusal).back(place.to(""))
}

fn cut_off(error: impl std::fmt::Display) -> Refusal {
    let message = format!("not all of it came: {error}");
    Refusal::new(Kind::Invalid, message, "send it again")
}

impl Moving {
    fn new(rights: Rights, place: &Place, to: String, refusal: Option<&Refusal>) -> Moving {
        Moving {
            frame: Frame::new("Rename or move", "buckets", rights),
            action: place.to("move"),
            path: Shown::bytes(&place.path),
            back: place.parent().to(""),
            to,
            refusal: refusal
                .map(|refusal| (Shown::new(&refusal.message), Shown::new(&refusal.hint))),
        }
    }
}
