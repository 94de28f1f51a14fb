//! The past of a bucket: its versions, and what differs between two.

use askama::Template;
use axum::Extension;
use axum::extract::{Path, State};
use axum::response::Response;
use gate_api::bearer::Rights;

use super::browser::lines;
use super::place::Place;
use crate::board;
use crate::cli::bucket::{Look, told};
use crate::daemon::body::bucket::{BucketVersion, Difference, short};
use crate::daemon::buckets::Since;
use crate::daemon::office::{Office, aside};
use crate::daemon::refusal::Refusal;
use crate::query::Asked;
use crate::web::page::{Fault, Frame, page as made};
use crate::web::shown::Shown;

/// Versions of a page.
const VERSIONS: usize = 100;
/// Of what was done in one so much is told.
const DEEDS_MAX: usize = 20;
/// Of what differs so many lines are shown.
const LINES_MAX: usize = 10_000;

#[derive(Template)]
#[template(path = "bucket_history.html")]
struct History {
    frame: Frame,
    place: Place,
    trail: Vec<(Shown, String)>,
    versions: Vec<Version>,
    newest: Option<String>,
    older: Option<String>,
}

/// A version, for people.
struct Version {
    short: String,
    at: String,
    author: String,
    did: Vec<Shown>,
    more: u64,
    /// Whether what files held then is still there.
    is_kept: bool,
    /// What it changed, …
    changes: String,
    /// … all as it was then, …
    then: String,
    /// … what makes the place so again, …
    restore: String,
    /// … and what takes back what was done.
    undo: String,
}

#[derive(Template)]
#[template(path = "bucket_diff.html")]
struct Changes {
    frame: Frame,
    place: Place,
    trail: Vec<(Shown, String)>,
    path: String,
    from: String,
    to: String,
    /// What differs, each with a word for how it looks.
    differences: Vec<Vec<(&'static str, String)>>,
    count: usize,
    /// How many are not shown, or only without their lines.
    left_out: usize,
}

/// `GET /buckets/{bucket}/history`
pub async fn history(
    State(office): State<Office>,
    Extension(rights): Extension<Rights>,
    Path(words): Path<String>,
    asked: Asked,
) -> Result<Response, Fault> {
    let place = Place::read(&office.buckets, words, &asked).await?.with_at(None);
    let named = place.clone();
    let page = aside(move || {
        let after = asked.text("after");
        let path = (!place.is_root()).then_some(&*place.path);
        let told = office.buckets.history(&place.words(), path, after, VERSIONS)?;
        let last = told.versions.last().map(|version| version.version.clone());
        let older = last.filter(|_| told.are_more);
        Ok::<_, Refusal>(History {
            frame: Frame::new("History", "buckets", rights),
            trail: place.trail(),
            versions: told.versions.into_iter().map(|one| Version::new(&place, one)).collect(),
            newest: after.map(|_| place.to("history")),
            older: older.map(|last| place.to_with("history", &[("after", last.as_bytes())])),
            place,
        })
    });
    page.await.map(|page| made(&page)).map_err(|refusal| named.fault(refusal))
}

/// `GET /buckets/{bucket}/diff`: what one version changed (`of`), or what differs between two.
pub async fn diff(
    State(office): State<Office>,
    Extension(rights): Extension<Rights>,
    Path(words): Path<String>,
    asked: Asked,
) -> Result<Response, Fault> {
    let place = Place::read(&office.buckets, words, &asked).await?.with_at(None);
    let named = place.clone();
    let page = aside(move || {
        let buckets = &office.buckets;
        let words = place.words();
        let before = |of: &str| {
            let told = buckets.history(&words, None, Some(of), 1)?;
            Ok::<_, Refusal>(told.versions.into_iter().next().map(|version| version.version))
        };
        let (from, to) = match asked.text("of") {
            Some(of) => (Some(before(of)?), Some(of)),
            None => (asked.text("from").map(|from| Some(from.to_owned())), asked.text("to")),
        };
        let since = match &from {
            None => Since::BeforeTheLast,
            Some(None) => Since::Nothing,
            Some(Some(version)) => Since::Version(version),
        };
        let told = buckets.diff(&words, &place.path, (since, to), true)?;
        let count = told.differences.len();
        let differences = shown(&told.differences);
        let left_out = count - differences.len();
        Ok::<_, Refusal>(Changes {
            frame: Frame::new("What differs", "buckets", rights),
            trail: place.trail(),
            path: str::from_utf8(&place.path).unwrap_or("/").to_owned(),
            from: from.flatten().unwrap_or_default(),
            to: to.unwrap_or_default().to_owned(),
            differences,
            count,
            left_out: left_out + usize::try_from(told.left_out).unwrap_or(usize::MAX),
            place,
        })
    });
    page.await.map(|page| made(&page)).map_err(|refusal| named.fault(refusal))
}

/// Returns the lines of differences, as `gate bucket diff` writes them, while there is room.
fn shown(differences: &[Difference]) -> Vec<Vec<(&'static str, String)>> {
    let mut room = LINES_MAX;
    let mut all = Vec::new();
    for difference in differences {
        let lines: Vec<_> = told(difference)
            .into_iter()
            .take(room)
            .map(|(look, line)| (class(look), lines_of(&line)))
            .collect();
        if lines.is_empty() {
            break;
        }
        room -= lines.len();
        all.push(lines);
    }
    all
}

fn lines_of(line: &str) -> String {
    lines(line.strip_suffix('\n').unwrap_or(line))
}

fn class(look: Look) -> &'static str {
    match look {
        Look::Headline => "headline",
        Look::Place => "place",
        Look::Gone => "gone",
        Look::New => "new",
        Look::Plain => "plain",
    }
}

impl Version {
    fn new(place: &Place, version: BucketVersion) -> Version {
        let BucketVersion { version, at, author, did, more, is_kept } = version;
        let root = place.with_path(b"/");
        let this = version.as_bytes();
        let beyond = did.len().saturating_sub(DEEDS_MAX) as u64;
        let time: Option<jiff::Timestamp> = at.parse().ok();
        let time = time.and_then(|at| u64::try_from(at.as_millisecond()).ok());
        Version {
            short: short(&version).to_owned(),
            at: time.map_or(at, board::local_seconds),
            author: short(&author).to_owned(),
            did: did.iter().take(DEEDS_MAX).map(Shown::new).collect(),
            more: more + beyond,
            is_kept,
            changes: root.to_with("diff", &[("of", this)]),
            then: root.with_at(Some(&version)).to(""),
            restore: place.with_at(Some(&version)).to("restore"),
            undo: root.to_with("undo", &[("version", this)]),
        }
    }
}
