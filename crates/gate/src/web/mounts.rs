//! Mounts that are kept: how they are, and all that the commands do about them.

use std::collections::BTreeMap;

use askama::Template;
use axum::Extension;
use axum::extract::{Form, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use gate_api::bearer::Rights;
use serde::Deserialize;
use uuid::Uuid;

use super::page::{Again, Fault, Frame, lead, page as made};
use super::shown::Shown;
use crate::board;
use crate::daemon::body::{self, Wanted, WrittenPath};
use crate::daemon::office::{Office, aside};
use crate::daemon::refusal::{Kind, Refusal};
use crate::query::Asked;

/// One of them, for people.
pub struct Mount {
    pub id: Uuid,
    pub short: String,
    pub source: Shown,
    pub point: Shown,
    pub status: String,
    pub options: String,
    pub pid: Option<u32>,
    pub error: Option<Shown>,
    pub can_start: bool,
    pub can_stop: bool,
}

#[derive(Template)]
#[template(path = "mounts.html")]
struct All {
    frame: Frame,
    board: Board,
    at: String,
}

/// What changes of that page.
#[derive(Template)]
#[template(path = "mount_cards.html")]
struct Board {
    summary: String,
    mounts: Vec<Mount>,
    is_admin: bool,
}

#[derive(Template)]
#[template(path = "mount_form.html")]
struct One {
    frame: Frame,
    action: String,
    is_new: bool,
    source: Shown,
    form: Fields,
    refusal: Option<(Shown, Shown)>,
}

#[derive(Template)]
#[template(path = "mount_remove.html")]
struct Removal {
    frame: Frame,
    mount: Mount,
}

/// What is written in the form; of a box that is not ticked a browser says nothing.
#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub struct Fields {
    source: String,
    mount_point: String,
    enabled: Option<String>,
    auto_mount: Option<String>,
    read_only: Option<String>,
    allow_other: Option<String>,
    start: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Stop {
    lazy: Option<String>,
}

/// `GET /mounts`
pub async fn page(
    State(office): State<Office>,
    Extension(rights): Extension<Rights>,
    asked: Asked,
) -> Response {
    let mut frame = Frame::new("Mounts", "mounts", rights);
    let done = match asked.text("done") {
        Some("add") => Some("The mount is added."),
        Some("edit") => Some(
            "The mount is changed. A view that runs keeps what it began with until it is started anew.",
        ),
        Some("start") => Some("The mount is started."),
        Some("stop") => Some("The mount is stopped."),
        Some("lazy") => Some(
            "The mount is stopped. Who has something of it goes on with that until it is done.",
        ),
        Some("remove") => Some("The mount is removed."),
        _ => None,
    };
    frame.done = done.map(str::to_owned);
    made(&All { frame, board: Board::look(&office, rights), at: board::local(board::now_ms()) })
}

/// `GET /mounts/board`: what changes of it.
pub async fn part(State(office): State<Office>, Extension(rights): Extension<Rights>) -> Response {
    made(&Board::look(&office, rights))
}

/// `GET /mounts/add`
pub async fn add_page(Extension(rights): Extension<Rights>) -> Response {
    let is_root = rustix::process::geteuid().is_root();
    let form = Fields {
        allow_other: is_root.then(String::new),
        start: Some(String::new()),
        ..Fields::default()
    };
    made(&One::adding(rights, form, None))
}

/// `POST /mounts/add`
pub async fn add(
    State(office): State<Office>,
    Extension(rights): Extension<Rights>,
    Form(form): Form<Fields>,
) -> Result<Response, Fault> {
    let wanted = Wanted { source: Some(path(&form.source)), ..form.wanted() };
    let keeper = office.keeper.clone();
    let mount = match aside(move || keeper.add(wanted)).await {
        Ok(mount) => mount,
        Err(refusal) => {
            let page = made(&One::adding(rights, form, Some(&refusal)));
            return Ok((StatusCode::BAD_REQUEST, page).into_response());
        }
    };
    if form.start.is_none() {
        return Ok(lead("/mounts?done=add"));
    }
    mounted(&office, mount.mount_id).await
}

/// `GET /mounts/{id}`
pub async fn edit_page(
    State(office): State<Office>,
    Extension(rights): Extension<Rights>,
    Path(id): Path<Uuid>,
) -> Result<Response, Fault> {
    let mount = one(&office, id)?;
    let form = Fields::of(&mount);
    Ok(made(&One::editing(rights, &mount, form, None)))
}

/// `POST /mounts/{id}`
pub async fn edit(
    State(office): State<Office>,
    Extension(rights): Extension<Rights>,
    Path(id): Path<Uuid>,
    Form(form): Form<Fields>,
) -> Result<Response, Fault> {
    let mount = one(&office, id)?;
    let mut wanted = Wanted { enabled: Some(form.enabled.is_some()), ..form.wanted() };
    // One that is no text was not shown, and stays as it is.
    if form.mount_point.is_empty() || form.mount_point == Fields::of(&mount).mount_point {
        wanted.mount_point = None;
    }
    match aside(move || office.keeper.set(id, &wanted)).await {
        Ok(_) => Ok(lead("/mounts?done=edit")),
        Err(refusal) => {
            let page = made(&One::editing(rights, &mount, form, Some(&refusal)));
            Ok((StatusCode::BAD_REQUEST, page).into_response())
        }
    }
}

/// `POST /mounts/{id}/start`
pub async fn start(State(office): State<Office>, Path(id): Path<Uuid>) -> Result<Response, Fault> {
    mounted(&office, id).await
}

async fn mounted(office: &Office, id: Uuid) -> Result<Response, Fault> {
    let keeper = office.keeper.clone();
    let started = aside(move || keeper.mount(id)).await;
    started
        .map(|_| lead("/mounts?done=start"))
        .map_err(|refusal| Fault::of(refusal).back("/mounts"))
}

/// `POST /mounts/{id}/stop`
pub async fn stop(
    State(office): State<Office>,
    Path(id): Path<Uuid>,
    Form(Stop { lazy }): Form<Stop>,
) -> Result<Response, Fault> {
    let is_lazy = lazy.is_some();
    match aside(move || office.keeper.unmount(id, is_lazy)).await {
        Ok(_) if is_lazy => Ok(lead("/mounts?done=lazy")),
        Ok(_) => Ok(lead("/mounts?done=stop")),
        Err(refusal) => {
            let again = (refusal.kind == Kind::Busy && !is_lazy).then(|| Again {
                what: "It can be stopped all the same: who has something of it goes on with that \
                       until it is done, and nobody else comes in.",
                label: "Stop it all the same",
                action: format!("/mounts/{id}/stop"),
                name: "lazy",
            });
            Err(Fault::of(refusal).back("/mounts").again(again))
        }
    }
}

/// `GET /mounts/{id}/remove`: asks first.
pub async fn remove_page(
    State(office): State<Office>,
    Extension(rights): Extension<Rights>,
    Path(id): Path<Uuid>,
) -> Result<Response, Fault> {
    let mount = Mount::new(one(&office, id)?);
    Ok(made(&Removal { frame: Frame::new("Remove a mount", "mounts", rights), mount }))
}

/// `POST /mounts/{id}/remove`
pub async fn remove(State(office): State<Office>, Path(id): Path<Uuid>) -> Result<Response, Fault> {
    let removed = aside(move || office.keeper.remove(id)).await;
    removed
        .map(|()| lead("/mounts?done=remove"))
        .map_err(|refusal| Fault::of(refusal).back("/mounts"))
}

fn one(office: &Office, id: Uuid) -> Result<body::Mount, Fault> {
    office.keeper.one(id).map_err(|refusal| Fault::of(refusal).back("/mounts"))
}

fn path(text: &str) -> WrittenPath {
    WrittenPath(text.into())
}

impl Board {
    fn look(office: &Office, rights: Rights) -> Board {
        let mounts: Vec<Mount> = office.keeper.all().into_iter().map(Mount::new).collect();
        let mut counts = BTreeMap::<&str, usize>::new();
        mounts.iter().for_each(|mount| *counts.entry(&mount.status).or_default() += 1);
        let counts = counts.into_iter().map(|(status, count)| format!("{count} {status}"));
        let summary = counts.collect::<Vec<_>>().join(", ");
        Board { summary, mounts, is_admin: rights >= Rights::Admin }
    }
}

impl Mount {
    pub fn new(mount: body::Mount) -> Mount {
        let id = mount.mount_id;
        let options = [
            (mount.auto_mount, "comes up by itself"),
            (mount.read_only, "read-only"),
            (mount.allow_other, "lets other users in"),
            (!mount.enabled, "not to be started"),
        ];
        let options = options.into_iter().filter_map(|(is_set, word)| is_set.then_some(word));
        let options = options.collect::<Vec<_>>().join(", ");
        Mount {
            short: body::short(id),
            source: Shown::path(&mount.source),
            point: Shown::path(&mount.mount_point),
            options: if options.is_empty() { "none".to_owned() } else { options },
            pid: mount.pid,
            error: mount.error_message.map(Shown::new),
            can_start: mount.enabled && matches!(&*mount.status, "stopped" | "error"),
            can_stop: matches!(&*mount.status, "running" | "error"),
            status: mount.status,
            id,
        }
    }
}

impl Fields {
    fn of(mount: &body::Mount) -> Fields {
        let tick = |is_set: bool| is_set.then(String::new);
        let text = |path: &std::path::Path| path.to_str().unwrap_or_default().to_owned();
        Fields {
            source: text(&mount.source),
            mount_point: text(&mount.mount_point),
            enabled: tick(mount.enabled),
            auto_mount: tick(mount.auto_mount),
            read_only: tick(mount.read_only),
            allow_other: tick(mount.allow_other),
            start: None,
        }
    }

    fn wanted(&self) -> Wanted {
        Wanted {
            mount_point: Some(path(&self.mount_point)),
            auto_mount: Some(self.auto_mount.is_some()),
            read_only: Some(self.read_only.is_some()),
            allow_other: Some(self.allow_other.is_some()),
            ..Wanted::default()
        }
    }
}

impl One {
    fn adding(rights: Rights, form: Fields, refusal: Option<&Refusal>) -> One {
        One {
            frame: Frame::new("Add a mount", "mounts", rights),
            action: "/mounts/add".to_owned(),
            is_new: true,
            source: Shown::default(),
            form,
            refusal: refusal.map(told),
        }
    }

    fn editing(
        rights: Rights,
        mount: &body::Mount,
        form: Fields,
        refusal: Option<&Refusal>,
    ) -> One {
        One {
            frame: Frame::new("Edit a mount", "mounts", rights),
            action: format!("/mounts/{}", mount.mount_id),
            is_new: false,
            source: Shown::path(&mount.source),
            form,
            refusal: refusal.map(told),
        }
    }
}

fn told(refusal: &Refusal) -> (Shown, Shown) {
    (Shown::new(&refusal.message), Shown::new(&refusal.hint))
}
