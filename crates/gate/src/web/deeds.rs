//! What may be done about a lock: to ask its holder to let go, to take it away.

use askama::Template;
use axum::Extension;
use axum::extract::{Form, Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use gate_api::bearer::Rights;
use serde::Deserialize;

use super::locks;
use super::page::{Fault, Frame, lead, page as made};
use super::shown::Shown;
use crate::daemon::office::{Office, RECALL_WITHIN, aside};
use crate::daemon::refusal::{Kind, Refusal};

/// Seconds that a holder has, unless said otherwise.
const WITHIN_SECONDS: u64 = RECALL_WITHIN.as_secs();

/// What is to be done.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Deed {
    Break,
    Recall,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Said {
    reason: String,
    within: Option<u64>,
}

#[derive(Template)]
#[template(path = "order.html")]
struct Order {
    frame: Frame,
    form: OrderForm,
}

#[derive(Template)]
#[template(path = "order_form.html")]
struct OrderForm {
    ticket: u64,
    deed: &'static str,
    what: &'static str,
    label: &'static str,
    about: Vec<Shown>,
    refusal: Option<Shown>,
    reason: String,
    within: u64,
}

/// `GET /locks/{ticket}/break` and `…/recall`: asks why.
pub async fn page(
    State(office): State<Office>,
    Extension(rights): Extension<Rights>,
    Path((ticket, deed)): Path<(u64, Deed)>,
    headers: HeaderMap,
) -> Result<Response, Fault> {
    let form = aside(move || OrderForm::new(&office, ticket, deed)).await?;
    // The board's script asks for what it shows in a dialog.
    Ok(match headers.contains_key("hx-request") {
        true => made(&form),
        false => form.page(rights),
    })
}

/// `POST /locks/{ticket}/break` and `…/recall`
pub async fn done(
    State(office): State<Office>,
    Extension(rights): Extension<Rights>,
    Path((ticket, deed)): Path<(u64, Deed)>,
    Form(said): Form<Said>,
) -> Result<Response, Fault> {
    let (reason, within) = (said.reason.clone(), said.within.unwrap_or(WITHIN_SECONDS));
    let outcome = aside({
        let office = office.clone();
        move || match deed {
            Deed::Break => office.break_lock(ticket, &reason),
            Deed::Recall => office.recall(ticket, &reason, Some(within.saturating_mul(1000))),
        }
    });
    match outcome.await {
        Ok(()) => Ok(lead(&format!("/locks?done={}&ticket={ticket}", deed.word()))),
        Err(Refusal { kind: Kind::Invalid, message, hint }) => {
            let mut form = aside(move || OrderForm::new(&office, ticket, deed)).await?;
            form.refusal = Some(Shown::new(format!("{message}: {hint}")));
            (form.reason, form.within) = (said.reason, within);
            Ok((StatusCode::BAD_REQUEST, form.page(rights)).into_response())
        }
        Err(refusal) => Err(Fault::of(refusal).back("/locks")),
    }
}

impl Deed {
    fn word(self) -> &'static str {
        match self {
            Deed::Break => "break",
            Deed::Recall => "recall",
        }
    }
}

impl OrderForm {
    fn new(office: &Office, ticket: u64, deed: Deed) -> Result<OrderForm, Fault> {
        let rows = locks::rows(office)?;
        let about = rows.iter().filter(|row| row.ticket == ticket);
        let about = about.map(|row| {
            let holds = if row.state == "held" { "holds" } else { "waits for" };
            Shown::new(format!(
                "{} {holds} {} to {}, since {}",
                row.who, row.path, row.mode, row.age
            ))
        });
        let (what, label) = match deed {
            Deed::Break => (
                "It is taken away at once. What its holder still writes through it fails; the next \
                 in line is let in.",
                "Break it",
            ),
            Deed::Recall => (
                "Its holder is asked to let go. When the time is over and somebody waits, it is \
                 taken away.",
                "Ask for it",
            ),
        };
        Ok(OrderForm {
            ticket,
            deed: deed.word(),
            what,
            label,
            about: about.collect(),
            refusal: None,
            reason: String::new(),
            within: WITHIN_SECONDS,
        })
    }

    fn page(self, rights: Rights) -> Response {
        let title = match self.deed {
            "break" => format!("Break ticket {}", self.ticket),
            _ => format!("Recall ticket {}", self.ticket),
        };
        made(&Order { frame: Frame::new(title, "locks", rights), form: self })
    }
}
