//! What is in a bucket: its directories, its files as far as they can be shown, and their bytes.
//!
//! The bytes of a file are others' bytes: as they are they leave as a download, or as a picture of a kind that
//! browsers do not run anything of, and in either case as no page of this board.

use std::io::{Cursor, Read as _};
use std::os::unix::ffi::OsStrExt as _;

use askama::Template;
use axum::Extension;
use axum::extract::{Path, State};
use axum::http::{HeaderValue, header};
use axum::response::Response;
use gate_api::bearer::Rights;
use gate_api::http::quoted;

use super::ROWS_MAX;
use super::around;
use super::place::Place;
use crate::board;
use crate::cli::bucket::mode;
use crate::daemon::api::flow;
use crate::daemon::body::bucket::{Node, short};
use crate::daemon::buckets::{Buckets, Looked};
use crate::daemon::office::{Office, aside};
use crate::daemon::refusal::Refusal;
use crate::output;
use crate::query::Asked;
use crate::web::page::{Fault, Frame, page as made};
use crate::web::shown::Shown;

/// Of a text so much is shown.
const TEXT_BYTES_MAX: usize = 256 * 1024;
/// By so much of its beginning a picture is known.
const MAGIC_BYTES: usize = 12;
/// Nothing of it runs, wherever it is shown.
const POLICY: &str = "default-src 'none'; sandbox; base-uri 'none'; frame-ancestors 'none'";

#[derive(Template)]
#[template(path = "bucket_directory.html")]
struct Page {
    frame: Frame,
    place: Place,
    above: Above,
    rows: Vec<Row>,
    first: usize,
    total: usize,
    newer: Option<String>,
    older: Option<String>,
}

#[derive(Template)]
#[template(path = "bucket_file.html")]
struct One {
    frame: Frame,
    place: Place,
    above: Above,
    row: Row,
    preview: Preview,
}

/// What stands above what is in a directory, or in a file.
#[derive(Template)]
#[template(path = "bucket_above.html")]
struct Above {
    trail: Vec<(Shown, String)>,
    last: Shown,
    /// Of what was: which version, …
    version: Option<String>,
    /// … where it is as it is now, and what makes it so again.
    now: String,
    restore: String,
    history: String,
    /// Takes back what was just done.
    undo: Option<String>,
}

/// A file, a directory or a symbolic link.
struct Row {
    place: Place,
    name: Shown,
    /// `/` behind a directory.
    mark: &'static str,
    target: Option<Shown>,
    size: String,
    mode: String,
    modified: String,
}

/// What is shown of a file.
enum Preview {
    Nothing,
    Empty,
    Text { text: String, is_cut: bool },
    Picture { from: String },
}

/// `GET /buckets/{bucket}`
pub async fn page(
    State(office): State<Office>,
    Extension(rights): Extension<Rights>,
    Path(words): Path<String>,
    asked: Asked,
) -> Result<Response, Fault> {
    let place = Place::read(&office.buckets, words, &asked).await?;
    let mut frame = Frame::new(&place.name, "buckets", rights);
    frame.done = done(&asked);
    let first = asked.number("first").unwrap_or(0);
    let named = place.clone();
    let shown = aside(move || {
        let looked = {
            let at = place.at.as_deref();
            office.buckets.look(&place.words(), &place.path, at, (first, ROWS_MAX))?
        };
        show(&office.buckets, frame, &place, looked, (first, undo(&place, &asked)))
    });
    shown.await.map_err(|refusal: Refusal| named.fault(refusal))
}

fn show(
    buckets: &Buckets,
    frame: Frame,
    place: &Place,
    looked: Looked,
    (first, undo): (usize, Option<String>),
) -> Result<Response, Refusal> {
    let Looked { here, entries, total, version } = looked;
    // What is named by how long ago it was is something else after the next change.
    let place = place.with_path(here.path.as_os_str().as_bytes()).with_at(version.as_deref());
    let above = Above::new(&place, undo);
    Ok(match &*here.kind {
        "directory" => {
            let rows: Vec<Row> = entries.into_iter().map(|node| Row::new(&place, &node)).collect();
            let first = first.min(total);
            let (newer, older) = around(first, first + rows.len(), total, |first| {
                place.to_with("", &[("first", first)])
            });
            made(&Page { frame, place, above, rows, first, total, newer, older })
        }
        kind => {
            let preview =
                if kind == "file" { Preview::look(buckets, &place)? } else { Preview::Nothing };
            let row = Row::new(&place, &here);
            made(&One { frame, place, above, row, preview })
        }
    })
}

/// `GET /buckets/{bucket}/raw`: what a file holds, to be kept; with `show`, a picture to be seen.
pub async fn raw(
    State(office): State<Office>,
    Path(words): Path<String>,
    asked: Asked,
) -> Result<Response, Fault> {
    let place = Place::read(&office.buckets, words, &asked).await?;
    let named = place.clone();
    let opened = aside(move || {
        let mut bytes =
            office.buckets.open_file(&place.words(), &place.path, place.at.as_deref())?;
        let mut begins = Vec::new();
        let read = bytes.by_ref().take(MAGIC_BYTES as u64).read_to_end(&mut begins);
        read.map_err(not_whole)?;
        Ok::<_, Refusal>((begins, bytes))
    });
    let (begins, bytes) = opened.await.map_err(|refusal| named.fault(refusal))?;
    let picture = picture(&begins).filter(|_| asked.text("show").is_some());
    let kind = picture.unwrap_or("application/octet-stream");
    let mut all = Cursor::new(begins).chain(bytes);
    let mut answer = flow::told(kind, move |to| std::io::copy(&mut all, to).map(drop));
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    if picture.is_none() {
        let name = quoted(Shown::bytes(named.last()).to_string().as_bytes());
        let attached = format!("attachment; filename*=UTF-8''{name}");
        let attached = HeaderValue::try_from(attached).expect("what is quoted is ASCII");
        headers.insert(header::CONTENT_DISPOSITION, attached);
    }
    Ok(answer)
}

/// Says what was just done.
fn done(asked: &Asked) -> Option<String> {
    let count = asked.text("count").unwrap_or("1");
    let count = count.parse::<usize>().unwrap_or(1);
    Some(match asked.text("done")? {
        "upload" if count == 1 => "The file is stored.".to_owned(),
        "upload" => format!("{count} files are stored."),
        "mkdir" => "The directory is made.".to_owned(),
        "move" => "It is moved.".to_owned(),
        "remove" => "It is deleted. Its versions stay.".to_owned(),
        "restore" => "It is as it was.".to_owned(),
        "undo" => "It is taken back.".to_owned(),
        "nothing" => "Nothing had to change.".to_owned(),
        _ => return None,
    })
}

/// Returns what takes back what was just done.
fn undo(place: &Place, asked: &Asked) -> Option<String> {
    asked.text("done")?;
    let version = asked.bytes("version")?;
    Some(place.to_with("undo", &[("version", version)]))
}

fn not_whole(error: std::io::Error) -> Refusal {
    crate::daemon::buckets::refusal(error.into())
}

/// Returns the media type of a picture of which this is the beginning.
fn picture(begins: &[u8]) -> Option<&'static str> {
    match begins {
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Some("image/png"),
        [0xff, 0xd8, 0xff, ..] => Some("image/jpeg"),
        [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Some("image/gif"),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some("image/webp"),
        _ => None,
    }
}

impl Above {
    fn new(place: &Place, undo: Option<String>) -> Above {
        let mut trail = place.trail();
        let (last, _) = trail.pop().expect("the bucket is the first");
        let now = place.with_at(None);
        Above {
            trail,
            last,
            version: place.at.as_deref().map(|at| short(at).to_owned()),
            now: now.to(""),
            restore: place.to("restore"),
            history: now.to("history"),
            undo,
        }
    }
}

impl Row {
    fn new(place: &Place, node: &Node) -> Row {
        let place = place.with_path(node.path.as_os_str().as_bytes());
        let at: Option<jiff::Timestamp> = node.modified.parse().ok();
        let at = at.and_then(|at| u64::try_from(at.as_millisecond()).ok());
        Row {
            name: Shown::bytes(place.last()),
            mark: if node.kind == "directory" { "/" } else { "" },
            target: node.target.as_ref().map(|to| Shown::bytes(to.0.as_os_str().as_bytes())),
            size: if node.kind == "file" { output::bytes(node.size) } else { String::new() },
            mode: mode(node),
            modified: at.map_or_else(|| node.modified.clone(), board::local_seconds),
            place,
        }
    }
}

impl Preview {
    fn look(buckets: &Buckets, place: &Place) -> Result<Preview, Refusal> {
        let bytes = buckets.open_file(&place.words(), &place.path, place.at.as_deref())?;
        let mut begins = Vec::new();
        let most = TEXT_BYTES_MAX as u64 + 1;
        bytes.take(most).read_to_end(&mut begins).map_err(not_whole)?;
        let is_cut = begins.len() > TEXT_BYTES_MAX;
        begins.truncate(TEXT_BYTES_MAX);
        Ok(match (picture(&begins), text(&begins, is_cut)) {
            _ if begins.is_empty() => Preview::Empty,
            (Some(_), _) => Preview::Picture { from: place.to_with("raw", &[("show", b"1")]) },
            (None, Some(text)) => Preview::Text { text, is_cut },
            (None, None) => Preview::Nothing,
        })
    }
}

/// Returns bytes as text in which nothing steers, if they are text; a character that is cut in two is left out.
fn text(bytes: &[u8], is_cut: bool) -> Option<String> {
    let text = match str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) if is_cut && error.error_len().is_none() => {
            str::from_utf8(&bytes[..error.valid_up_to()]).ok()?
        }
        Err(_) => return None,
    };
    (!text.contains('\0')).then(|| lines(text))
}

/// Returns text in which nothing steers but the ends of its lines, and tabs.
pub fn lines(text: &str) -> String {
    let line = |line: &str| {
        let line = line.strip_suffix('\r').unwrap_or(line);
        line.split('\t').map(output::printable).collect::<Vec<_>>().join("\t")
    };
    text.split('\n').map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_known_by_how_they_begin_and_by_nothing_else() {
        assert_eq!(picture(b"\x89PNG\r\n\x1a\n...."), Some("image/png"));
        assert_eq!(picture(b"\xff\xd8\xff\xe0"), Some("image/jpeg"));
        assert_eq!(picture(b"GIF89a"), Some("image/gif"));
        assert_eq!(picture(b"RIFF\0\0\0\0WEBP"), Some("image/webp"));
        for other in [&b"<svg xmlns="[..], b"<html>", b"RIFF\0\0\0\0WAVE", b"GIF", b""] {
            assert_eq!(picture(other), None, "{other:?}");
        }
    }

    #[test]
    fn text_is_shown_and_steers_nothing() {
        let shown = text("a\tb\r\nc\u{202e}\x1b[2J\n".as_bytes(), false);
        assert_eq!(shown.as_deref(), Some("a\tb\nc\\u{202e}\\u{1b}[2J\n"));
        assert_eq!(text(b"a\0b", false), None);
        assert_eq!(text(b"a\xffb", false), None);
        // Of the last character there was a half.
        assert_eq!(text(b"a\xc3", true).as_deref(), Some("a"));
        assert_eq!(text(b"a\xc3", false), None);
    }
}
