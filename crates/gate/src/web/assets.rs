//! What pages are made of beside themselves, from web/ of the repository.

use axum::Router;
use axum::http::header;
use axum::routing::get;

use crate::daemon::office::Office;

/// Name, media type, bytes.
const ALL: [(&str, &str, &[u8]); 4] = [
    ("style.css", "text/css; charset=utf-8", include_bytes!("../../../../web/style.css")),
    ("board.js", "text/javascript; charset=utf-8", include_bytes!("../../../../web/board.js")),
    // Of htmx 2.0.11, 0BSD: web/htmx.LICENSE.
    (
        "htmx.min.js",
        "text/javascript; charset=utf-8",
        include_bytes!("../../../../web/htmx.min.js"),
    ),
    ("icon.svg", "image/svg+xml", include_bytes!("../../../../web/icon.svg")),
];

pub fn router() -> Router<Office> {
    ALL.into_iter().fold(Router::new(), |router, (name, media_type, bytes)| {
        let answer = ([(header::CONTENT_TYPE, media_type)], bytes);
        router.route(&format!("/assets/{name}"), get(move || async move { answer }))
    })
}
