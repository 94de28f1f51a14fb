//! From HTTP to frames: the connection is handed to the deciding thread.

use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use gate_api::bearer::Rights;
use gate_api::link::UPGRADE;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;

use super::guard::Peer;
use super::room::Place;
use super::routes::error;
use crate::mail::{Inbox, Mail};

/// `GET /gate/frames`
pub(super) async fn frames(
    State(inbox): State<Inbox>,
    Extension(rights): Extension<Rights>,
    Extension(place): Extension<Arc<Place>>,
    Extension(peer): Extension<Peer>,
    mut request: Request,
) -> Response {
    let wanted = request.headers().get(header::UPGRADE);
    if wanted.is_none_or(|wanted| wanted != UPGRADE) {
        let why = format!("this resource speaks {UPGRADE} alone");
        let mut answer = error(StatusCode::UPGRADE_REQUIRED, &why);
        answer.headers_mut().insert(header::UPGRADE, HeaderValue::from_static(UPGRADE));
        return answer;
    }
    if let Peer::User(_) = peer {
        return error(StatusCode::BAD_REQUEST, "frames have a socket of their own here: gate.sock");
    }
    let Some(place) = place.for_frames() else {
        return error(StatusCode::TOO_MANY_REQUESTS, "limit: tcp-sessions");
    };
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        match upgrade.await.map_err(|error| error.to_string()).and_then(hand_over) {
            Ok((socket, first_bytes)) => {
                inbox.send(Mail::Upgraded { socket, first_bytes, rights, place });
            }
            Err(error) => tracing::warn!(error, "a connection could not be upgraded"),
        }
    });
    let switching = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, UPGRADE)
        .body(Body::empty());
    switching.expect("made of constants")
}

/// Takes the socket out of HTTP's hands, with what was read beyond the request.
fn hand_over(upgraded: Upgraded) -> Result<(OwnedFd, Vec<u8>), String> {
    let parts = upgraded
        .downcast::<TokioIo<tokio::net::TcpStream>>()
        .map_err(|_| "not a TCP connection".to_owned())?;
    let stream: TcpStream = parts.io.into_inner().into_std().map_err(|error| error.to_string())?;
    Ok((stream.into(), parts.read_buf.to_vec()))
}
