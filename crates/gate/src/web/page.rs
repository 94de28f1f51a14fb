//! What all pages have: their frame, the page that says what went wrong, the one to sign in.

use std::borrow::Cow;

use askama::Template;
use axum::Extension;
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Redirect, Response};
use gate_api::QueryError;
use gate_api::bearer::Rights;

use super::shown::Shown;
use crate::daemon::office::no_answer;
use crate::daemon::refusal::{Kind, Refusal};
use crate::query::Asked;

/// What stands around each page.
#[derive(Debug)]
pub struct Frame {
    pub title: String,
    /// Which of the pages it is.
    pub here: &'static str,
    /// Whether changes are offered.
    pub is_admin: bool,
    /// What was just done.
    pub done: Option<String>,
}

impl Frame {
    pub fn new(title: impl Into<String>, here: &'static str, rights: Rights) -> Frame {
        let is_admin = rights >= Rights::Admin;
        Frame { title: title.into(), here, is_admin, done: None }
    }

    /// Returns the pages that a reader can go to: what they are here, where, how they are called.
    pub fn pages(&self) -> [(&'static str, &'static str, &'static str); 7] {
        [
            ("overview", "/", "Overview"),
            ("locks", "/locks", "Locks"),
            ("mounts", "/mounts", "Mounts"),
            ("buckets", "/buckets", "Buckets"),
            ("sessions", "/sessions", "Sessions"),
            ("log", "/log", "Log"),
            ("why", "/why", "Why"),
        ]
    }
}

/// Makes a page.
pub fn page(template: &impl Template) -> Response {
    match template.render() {
        Ok(text) => Html(text).into_response(),
        Err(error) => {
            tracing::error!(%error, "a page cannot be made");
            (StatusCode::INTERNAL_SERVER_ERROR, "this page cannot be made").into_response()
        }
    }
}

/// Leads to another page, once something was done.
pub fn lead(to: &str) -> Response {
    Redirect::to(to).into_response()
}

/// Why there is no page, which is one.
#[derive(Debug)]
pub struct Fault {
    refusal: Refusal,
    status: StatusCode,
    back: Cow<'static, str>,
    again: Option<Box<Again>>,
}

/// What may be tried instead.
#[derive(Debug)]
pub struct Again {
    pub what: &'static str,
    pub label: &'static str,
    pub action: String,
    /// The field that says so.
    pub name: &'static str,
}

#[derive(Template)]
#[template(path = "trouble.html")]
struct Trouble {
    frame: Frame,
    cause: Shown,
    hint: Shown,
    back: Cow<'static, str>,
    again: Option<Box<Again>>,
}

#[derive(Template)]
#[template(path = "login.html")]
struct SignIn {
    frame: Frame,
    to: String,
    is_in: bool,
    is_wrong: bool,
}

impl Fault {
    pub fn of(refusal: Refusal) -> Fault {
        let status = refusal.kind.status();
        Fault { refusal, status, back: "/".into(), again: None }
    }

    pub fn with(self, status: StatusCode) -> Fault {
        Fault { status, ..self }
    }

    pub fn back(self, back: impl Into<Cow<'static, str>>) -> Fault {
        Fault { back: back.into(), ..self }
    }

    pub fn again(self, again: Option<Again>) -> Fault {
        Fault { again: again.map(Box::new), ..self }
    }

    /// Says that a question has no answer.
    pub fn of_query(error: QueryError) -> Fault {
        Fault::of(match error {
            QueryError::Unknown => {
                let hint =
                    "name an absolute path, in a view or behind one, or a space and a path in it";
                Refusal::new(Kind::NotFound, "there is no such path or space here", hint)
            }
            QueryError::BrokerGone
            | QueryError::Unchanged
            | QueryError::Forbidden
            | QueryError::Nonsense => no_answer(error),
        })
    }
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Fault {
        Fault::of(refusal)
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let Refusal { message, hint, .. } = self.refusal;
        let (cause, hint) = (Shown::new(message), Shown::new(hint));
        let frame = Frame::new("That did not work", "trouble", Rights::Read);
        let (back, again) = (self.back, self.again);
        (self.status, page(&Trouble { frame, cause, hint, back, again })).into_response()
    }
}

/// `GET /login`: of that form the answer is the broker's.
pub async fn sign_in(rights: Option<Extension<Rights>>, asked: Asked) -> Response {
    let to = asked.text("to").filter(|to| to.starts_with('/') && !to.starts_with("//"));
    let to = to.filter(|to| !to.contains('\\')).unwrap_or("/").to_owned();
    let is_wrong = asked.text("wrong").is_some();
    let frame = Frame::new("Sign in", "login", Rights::Read);
    page(&SignIn { frame, to, is_in: rights.is_some(), is_wrong })
}
