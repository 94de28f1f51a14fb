//! Buckets: which there are, and how they come, are called, and go.
//!
//! That there are buckets everybody may see who may look. What is in them is for who may do everything, as by REST:
//! of that a page shows nothing to anybody else.

mod browser;
mod deeds;
mod past;
mod place;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use askama::Template;
use axum::extract::{DefaultBodyLimit, Form, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use gate_api::bearer::Rights;
use serde::Deserialize;
use uuid::Uuid;

use super::page::{Fault, Frame, lead, page as made};
use super::shown::Shown;
use crate::daemon::body::{self, bucket};
use crate::daemon::buckets::{All as Found, Buckets, Glance};
use crate::daemon::office::{Office, aside};
use crate::daemon::refusal::{Kind, Refusal};
use crate::query::{self, Asked};
use crate::within::within;
use crate::{board, output};

/// Rows of a page.
pub const ROWS_MAX: usize = 1000;
/// How long it may take to look into the buckets of a page: the rest are shown without what is in them.
const LOOK_MAX: Duration = Duration::from_secs(2);

/// One of them, for people.
struct Row {
    id: Uuid,
    short: String,
    name: Shown,
    stored: String,
    files: String,
    changed: String,
    mounts: Vec<Mount>,
    /// Why nobody knows what is in it.
    trouble: Option<Shown>,
}

/// Where it is mounted, or is to be.
struct Mount {
    point: Shown,
    status: String,
}

#[derive(Template)]
#[template(path = "buckets.html")]
struct All {
    frame: Frame,
    rows: Vec<Row>,
    /// Those of which not even the beginning can be read, and why.
    damaged: Vec<(Uuid, Shown)>,
    /// Whether all that are shown were looked into.
    are_all_known: bool,
    first: usize,
    total: usize,
    newer: Option<String>,
    older: Option<String>,
}

/// What asks for a name.
#[derive(Template)]
#[template(path = "bucket_form.html")]
struct Naming {
    frame: Frame,
    action: String,
    /// What it is called by now.
    former: Option<Shown>,
    name: String,
    refusal: Option<(Shown, Shown)>,
}

#[derive(Template)]
#[template(path = "bucket_delete.html")]
struct Deletion {
    frame: Frame,
    row: Row,
    id: Uuid,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Named {
    name: String,
}

/// Returns the pages of what is in buckets, and of what may be done to them.
pub fn router() -> Router<Office> {
    Router::new()
        .route("/buckets/create", get(create_page).post(create))
        .route("/buckets/{bucket}/rename", get(rename_page).post(rename))
        .route("/buckets/{bucket}/delete", get(delete_page).post(delete))
        .route("/buckets/{bucket}", get(browser::page))
        .route("/buckets/{bucket}/raw", get(browser::raw))
        // What is sent there is as long as it is.
        .route("/buckets/{bucket}/upload", post(deeds::upload).layer(DefaultBodyLimit::disable()))
        .route("/buckets/{bucket}/mkdir", post(deeds::make_directory))
        .route("/buckets/{bucket}/move", get(deeds::move_page).post(deeds::move_to))
        .route("/buckets/{bucket}/remove", post(deeds::remove))
        .route("/buckets/{bucket}/history", get(past::history))
        .route("/buckets/{bucket}/diff", get(past::diff))
        .route("/buckets/{bucket}/restore", post(deeds::restore))
        .route("/buckets/{bucket}/undo", post(deeds::undo))
}

/// `GET /buckets`
pub async fn page(
    State(office): State<Office>,
    Extension(rights): Extension<Rights>,
    asked: Asked,
) -> Result<Response, Fault> {
    let mut frame = Frame::new("Buckets", "buckets", rights);
    let done = match asked.text("done") {
        Some("create") => Some("The bucket is made."),
        Some("device") => Some(
            "The bucket is made. This device has keys of its own now, without a passphrase: keep a copy of the \
             file identity in the daemon's state directory.",
        ),
        Some("rename") => Some("The bucket has its name."),
        Some("delete") => Some("The bucket is deleted."),
        _ => None,
    };
    frame.done = done.map(str::to_owned);
    let first = asked.number("first").unwrap_or(0);
    aside(move || All::look(&office, frame, first)).await.map(|page| made(&page))
}

/// `GET /buckets/create`
async fn create_page(Extension(rights): Extension<Rights>) -> Response {
    made(&Naming::new(rights, None, String::new(), None))
}

/// `POST /buckets/create`
async fn create(
    State(office): State<Office>,
    Extension(rights): Extension<Rights>,
    Form(Named { name }): Form<Named>,
) -> Result<Response, Fault> {
    let wanted = name.trim().to_owned();
    match aside(move || office.buckets.create(&wanted)).await {
        Ok((_, true)) => Ok(lead("/buckets?done=device")),
        Ok((_, false)) => Ok(lead("/buckets?done=create")),
        Err(refusal) if is_of_name(&refusal) => {
            Ok(again(&Naming::new(rights, None, name, Some(&refusal))))
        }
        Err(refusal) => Err(Fault::of(refusal).back("/buckets")),
    }
}

/// `GET /buckets/{bucket}/rename`
async fn rename_page(
    State(office): State<Office>,
    Extension(rights): Extension<Rights>,
    Path(words): Path<String>,
) -> Result<Response, Fault> {
    let bucket = one(&office.buckets, &words).await?;
    let name = bucket.name.clone();
    Ok(made(&Naming::new(rights, Some(&bucket), name, None)))
}

/// `POST /buckets/{bucket}/rename`
async fn rename(
    State(office): State<Office>,
    Extension(rights): Extension<Rights>,
    Path(words): Path<String>,
    Form(Named { name }): Form<Named>,
) -> Result<Response, Fault> {
    let bucket = one(&office.buckets, &words).await?;
    let (id, wanted) = (bucket.bucket_id.to_string(), name.trim().to_owned());
    let rename = move || {
        let bucket = office.buckets.rename(&id, &wanted)?;
        office.keeper.renamed(bucket.bucket_id, &bucket.name)
    };
    match aside(rename).await {
        Ok(()) => Ok(lead("/buckets?done=rename")),
        Err(refusal) if is_of_name(&refusal) => {
            Ok(again(&Naming::new(rights, Some(&bucket), name, Some(&refusal))))
        }
        Err(refusal) => Err(fault(&words, refusal)),
    }
}

/// `GET /buckets/{bucket}/delete`: asks first.
async fn delete_page(
    State(office): State<Office>,
    Extension(rights): Extension<Rights>,
    Path(words): Path<String>,
) -> Result<Response, Fault> {
    let bucket = one(&office.buckets, &words).await?;
    let frame = Frame::new("Delete a bucket", "buckets", rights);
    let page = aside(move || {
        let rows = rows(&office, vec![bucket], true);
        let row = rows.into_iter().next().expect("a row for each bucket");
        Ok::<_, Fault>(Deletion { frame, id: row.id, row })
    });
    page.await.map(|page| made(&page))
}

/// `POST /buckets/{bucket}/delete`
async fn delete(
    State(office): State<Office>,
    Path(words): Path<String>,
) -> Result<Response, Fault> {
    let named = words.clone();
    let deleted = aside(move || office.buckets.delete(&named)).await;
    deleted.map(|()| lead("/buckets?done=delete")).map_err(|refusal| fault(&words, refusal))
}

async fn one(buckets: &Buckets, words: &str) -> Result<bucket::Bucket, Fault> {
    let (buckets, named) = (buckets.clone(), words.to_owned());
    aside(move || buckets.one(&named)).await.map_err(|refusal| fault(words, refusal))
}

/// Says why there is no page of a bucket. What is wrong with that is no fault of the daemon.
pub fn fault(words: &str, refusal: Refusal) -> Fault {
    let is_damaged = refusal.kind == Kind::Failed;
    let fault = Fault::of(to_type(words, refusal)).back("/buckets");
    if is_damaged { fault.with(StatusCode::CONFLICT) } else { fault }
}

/// Has its hint name the bucket, as it is typed.
fn to_type(words: &str, mut refusal: Refusal) -> Refusal {
    let named = format!("`gate bucket fsck {words}`");
    refusal.hint = refusal.hint.replace("`gate bucket fsck`", &named);
    refusal
}

fn trouble(id: Uuid, refusal: Refusal) -> Shown {
    let Refusal { message, hint, .. } = to_type(&body::short(id), refusal);
    Shown::new(format!("{message}: {hint}"))
}

/// Whether another name may help.
fn is_of_name(refusal: &Refusal) -> bool {
    matches!(refusal.kind, Kind::Invalid | Kind::Taken)
}

fn again(form: &Naming) -> Response {
    (StatusCode::BAD_REQUEST, made(form)).into_response()
}

/// Returns a row for each, with what is in them where there is time for that.
fn rows(office: &Office, buckets: Vec<bucket::Bucket>, is_admin: bool) -> Vec<Row> {
    let mut mounts: HashMap<Uuid, Vec<Mount>> = HashMap::new();
    for mount in office.keeper.all() {
        let Some(id) = mount.bucket_id else { continue };
        let point = Shown::path(&mount.mount_point);
        mounts.entry(id).or_default().push(Mount { point, status: mount.status });
    }
    let until = Instant::now() + LOOK_MAX;
    let rows = buckets.into_iter().map(|bucket| {
        let id = bucket.bucket_id;
        let left = until.saturating_duration_since(Instant::now());
        let glance = (is_admin && !left.is_zero()).then(|| {
            let buckets = office.buckets.clone();
            within(left, move || buckets.glance(id))
        });
        Row::new(bucket, glance.flatten(), mounts.remove(&id).unwrap_or_default())
    });
    rows.collect()
}

impl Row {
    fn new(
        bucket: bucket::Bucket,
        glance: Option<Result<Glance, Refusal>>,
        mounts: Vec<Mount>,
    ) -> Row {
        let id = bucket.bucket_id;
        let (files, changed, trouble) = match glance {
            None => (String::new(), String::new(), None),
            Some(Ok(Glance { files, are_more, changed_at_ms })) => {
                let files = if are_more { format!("{files} and more") } else { files.to_string() };
                let never = || "never".to_owned();
                (files, changed_at_ms.map_or_else(never, board::local_seconds), None)
            }
            Some(Err(refusal)) => (String::new(), String::new(), Some(trouble(id, refusal))),
        };
        Row {
            id,
            short: body::short(id),
            name: Shown::new(bucket.name),
            stored: output::bytes(bucket.stored_bytes),
            files,
            changed,
            mounts,
            trouble,
        }
    }

    /// Whether it was looked into.
    fn is_known(&self) -> bool {
        self.trouble.is_some() || !self.files.is_empty()
    }
}

impl All {
    fn look(office: &Office, frame: Frame, first: usize) -> Result<All, Fault> {
        let Found { whole: mut buckets, damaged } =
            office.buckets.all_and_damaged().map_err(|refusal| Fault::of(refusal).back("/"))?;
        let total = buckets.len();
        let damaged = damaged.into_iter().map(|(id, refusal)| (id, trouble(id, refusal)));
        let first = first.min(total);
        buckets = buckets.split_off(first);
        buckets.truncate(ROWS_MAX);
        let end = first + buckets.len();
        let rows = rows(office, buckets, frame.is_admin);
        let (newer, older) =
            around(first, end, total, |first| query::address("/buckets", &[("first", first)]));
        let are_all_known = !frame.is_admin || rows.iter().all(Row::is_known);
        let damaged = damaged.collect();
        Ok(All { frame, rows, damaged, are_all_known, first, total, newer, older })
    }
}

/// Returns where the page before and the page after lie, of those from `first` to `end`.
pub fn around(
    first: usize,
    end: usize,
    total: usize,
    address: impl Fn(&[u8]) -> String,
) -> (Option<String>, Option<String>) {
    let at = |first: usize| match first {
        0 => address(b""),
        first => address(first.to_string().as_bytes()),
    };
    ((first > 0).then(|| at(first.saturating_sub(ROWS_MAX))), (end < total).then(|| at(end)))
}

impl Naming {
    fn new(
        rights: Rights,
        bucket: Option<&bucket::Bucket>,
        name: String,
        refusal: Option<&Refusal>,
    ) -> Naming {
        let (title, action) = match bucket {
            None => ("Make a bucket", "/buckets/create".to_owned()),
            Some(bucket) => ("Rename a bucket", format!("/buckets/{}/rename", bucket.bucket_id)),
        };
        Naming {
            frame: Frame::new(title, "buckets", rights),
            action,
            former: bucket.map(|bucket| Shown::new(&bucket.name)),
            name,
            refusal: refusal
                .map(|refusal| (Shown::new(&refusal.message), Shown::new(&refusal.hint))),
        }
    }
}
