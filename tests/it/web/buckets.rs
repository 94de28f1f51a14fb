//! The board's pages of buckets: `tests/it/web/buckets.py` walks through them in a browser.

use std::fs;

use gate_tests::World;
use gate_tests::rest::Rest;
use gate_tests::world::Standing;

use crate::managed::with_daemon;

use super::{open, walk};

/// What a browser sends a form as.
const FORM: &str = "application/x-www-form-urlencoded";

/// Has a browser do one part of the script, where there is a daemon.
fn walked(part: &str) {
    let mut world = World::bare();
    world.find_broker_by_socket();
    open(&world);
    walk(&world, "buckets.py", part);
    world.gate(["daemon", "stop"]).run().success();
}

/// Fetches a page that must be one; returns what it says.
#[track_caller]
fn page(rest: &Rest, path: &str) -> String {
    let (status, _, body) = rest.fetch(path);
    let body = String::from_utf8(body).unwrap();
    assert_eq!(status, 200, "{path}: {body}");
    body
}

/// Returns the id of the only bucket.
fn only(world: &World) -> String {
    let plain = world.gate(["bucket", "list", "--plain"]).run().success();
    plain.split('\t').next().unwrap().to_owned()
}

#[test]
fn buckets_are_made_renamed_and_deleted_on_the_board() {
    walked("kept");
}

#[test]
fn who_may_only_look_sees_that_there_are_buckets_and_nothing_of_what_is_in_them() {
    walked("reader");
}

#[test]
fn a_bucket_that_is_locked_or_damaged_has_a_page_that_says_what_to_type() {
    let (world, rest) = with_daemon(Standing::Runner);
    fs::write(world.home().join("words"), "correct horse\n").unwrap();
    world.gate(["init", "--passphrase-file", "words"]).run().success();
    world.gate(["bucket", "create", "notes"]).run().success();
    let id = only(&world);
    assert!(page(&rest, "/buckets").contains("never"), "nothing was done in it");
    world.gate(["daemon", "restart"]).run().success();
    let said = page(&rest, "/buckets");
    assert!(said.contains("notes") && said.contains("gate unlock"), "{said}");
    assert!(page(&rest, &format!("/buckets/{id}/delete")).contains("unknown"));
    let (status, _, inside) = rest.fetch(&format!("/buckets/{id}"));
    let inside = String::from_utf8(inside).unwrap();
    assert!(status == 423 && inside.contains("gate unlock"), "{status}: {inside}");
    let (status, _, said) = rest.submit("/buckets/create", FORM, b"name=letters");
    let said = String::from_utf8(said).unwrap();
    assert!(status == 423 && said.contains("gate unlock"), "{status}: {said}");
    world.gate(["daemon", "stop"]).run().success();
    fs::write(world.state().join("buckets").join(&id).join("genesis"), "damaged").unwrap();
    world.gate(["daemon", "start"]).run().success();
    let said = page(&rest, "/buckets");
    assert!(said.contains(&id) && said.contains("gate bucket fsck"), "{said}");
    let (status, _, said) = rest.fetch(&format!("/buckets/{id}/rename"));
    let said = String::from_utf8(said).unwrap();
    let typed = format!("gate bucket fsck {id}");
    assert!(status == 409 && said.contains(&typed), "{status}: {said}");
    world.gate(["daemon", "stop"]).run().success();
}

#[test]
fn files_of_a_bucket_are_looked_at_and_changed_on_the_board() {
    walked("files");
}

/// A world with a bucket, the way to its daemon, and the address of the bucket's pages.
fn with_bucket() -> (World, Rest, String) {
    let (world, rest) = with_daemon(Standing::Runner);
    world.gate(["bucket", "create", "notes"]).run().success();
    let pages = format!("/buckets/{}", only(&world));
    (world, rest, pages)
}

/// Stores bytes under a name, which is written as in an address.
#[track_caller]
fn store(rest: &Rest, name: &str, bytes: &[u8]) {
    let to = format!("/api/v0/buckets/notes/fs?mount_path=/&filename={name}");
    assert_eq!(rest.send("POST", &to, bytes).status, 200, "{name}");
}

/// Does what a button does; returns where that leads.
#[track_caller]
fn done(rest: &Rest, path: &str, form: &[u8]) -> String {
    let (status, head, body) = rest.submit(path, FORM, form);
    assert_eq!(status, 303, "{path}: {}", String::from_utf8_lossy(&body));
    let to = head.lines().find_map(|line| line.strip_prefix("location: "));
    to.unwrap_or_else(|| panic!("{head}")).to_owned()
}

/// Returns a body as browsers send files, and its type.
fn sent(files: &[(&[u8], &[u8])]) -> (String, Vec<u8>) {
    let mut body = Vec::new();
    for (name, bytes) in files {
        body.extend(b"--edge\r\nContent-Disposition: form-data; name=\"file\"; filename=\"");
        body.extend([*name, b"\"\r\nContent-Type: text/plain\r\n\r\n", bytes, b"\r\n"].concat());
    }
    body.extend(b"--edge--\r\n");
    ("multipart/form-data; boundary=edge".to_owned(), body)
}

#[test]
fn nothing_that_is_stored_runs_in_the_board() {
    let (world, rest, pages) = with_bucket();
    let markup = "<script>alert(1)</script>";
    let svg = format!("<svg xmlns=\"http://www.w3.org/2000/svg\">{markup}</svg>");
    store(&rest, "page.html", markup.as_bytes());
    store(&rest, "picture.svg", svg.as_bytes());
    store(&rest, "picture.png", b"\x89PNG\r\n\x1a\nand so on");
    for (name, show, kind) in [
        ("page.html", "", "application/octet-stream"),
        ("page.html", "&show=1", "application/octet-stream"),
        ("picture.svg", "&show=1", "application/octet-stream"),
        ("picture.png", "", "application/octet-stream"),
        ("picture.png", "&show=1", "image/png"),
    ] {
        let (status, head, _) = rest.fetch(&format!("{pages}/raw?path=/{name}{show}"));
        assert_eq!(status, 200, "{name}");
        let has = |line: &str| head.lines().any(|other| other == line);
        assert!(has(&format!("content-type: {kind}")), "{name}{show}: {head}");
        assert!(has("x-content-type-options: nosniff"), "{name}{show}: {head}");
        let policy =
            head.lines().find_map(|line| line.strip_prefix("content-security-policy: ")).unwrap();
        let is_boxed = policy.contains("default-src 'none'") && policy.contains("; sandbox;");
        assert!(is_boxed && !policy.contains("'self'"), "{name}{show}: {policy}");
        let is_kept = head.contains(&format!("attachment; filename*=utf-8''{name}"));
        assert_eq!(is_kept, kind != "image/png", "{name}{show}: {head}");
    }
    for name in ["page.html", "picture.svg"] {
        let said = page(&rest, &format!("{pages}?path=/{name}"));
        assert!(!said.contains(markup) && said.contains("alert(1)"), "{said}");
        assert!(!said.contains("<img"), "{said}");
    }
    assert!(page(&rest, &format!("{pages}?path=/picture.png")).contains("<img"));
    world.gate(["daemon", "stop"]).run().success();
}

#[test]
fn a_name_that_is_no_text_is_shown_spelt_out_and_works() {
    let (world, rest, pages) = with_bucket();
    let (kind, body) = sent(&[(b"\xff<b>", b"odd\n")]);
    let (status, ..) = rest.submit(&format!("{pages}/upload"), &kind, &body);
    assert_eq!(status, 303);
    let said = page(&rest, &pages);
    assert!(said.contains("\\xff") && !said.contains("<b>"), "{said}");
    assert!(said.contains("path=/%FF%3Cb%3E"), "{said}");
    assert!(page(&rest, &format!("{pages}?path=/%FF%3Cb%3E")).contains("odd"));
    let (status, _, bytes) = rest.fetch(&format!("{pages}/raw?path=/%FF%3Cb%3E"));
    assert_eq!((status, &*bytes), (200, &b"odd\n"[..]));
    done(&rest, &format!("{pages}/move?path=/%FF%3Cb%3E"), b"to=/plain");
    let gone = done(&rest, &format!("{pages}/remove?path=/plain"), b"");
    assert!(!page(&rest, &pages).contains("plain"), "{gone}");
    let version = gone.split("version=").nth(1).unwrap();
    done(&rest, &format!("{pages}/undo?version={version}"), b"");
    assert!(page(&rest, &pages).contains("plain"));
    world.gate(["daemon", "stop"]).run().success();
}

#[test]
fn an_upload_of_any_length_is_stored_as_it_is_or_not_at_all() {
    let (world, rest, pages) = with_bucket();
    let long = b"0123456789abcde\n".repeat(50_000);
    let (kind, body) = sent(&[(b"one", &long), (b"two", b"\r\n--edg"), (b"", b"")]);
    let upload = format!("{pages}/upload?path=/");
    let (status, head, _) = rest.submit(&upload, &kind, &body);
    assert!(status == 303 && head.contains("count=2"), "{head}");
    for (name, bytes) in [("one", &*long), ("two", b"\r\n--edg")] {
        let (_, _, stored) = rest.fetch(&format!("{pages}/raw?path=/{name}"));
        assert!(stored == bytes, "{name} has {} bytes", stored.len());
    }
    let (kind, body) = sent(&[(b"three", &long)]);
    let (status, _, said) = rest.submit(&upload, &kind, &body[..body.len() - 100]);
    let said = String::from_utf8(said).unwrap();
    assert!(status == 400 && said.contains("not all of it came"), "{status}: {said}");
    let (none, nothing) = sent(&[(b"", b"")]);
    for (kind, body) in [(&none, &*nothing), (&FORM.to_owned(), b"file=x"), (&none, b"")] {
        assert_eq!(rest.submit(&upload, kind, body).0, 400);
    }
    let (status, _, said) = rest.submit(&format!("{pages}/upload?path=/nowhere"), &kind, &body);
    let said = String::from_utf8(said).unwrap();
    assert!(status == 400 && said.contains("there is no such directory"), "{status}: {said}");
    assert!(!page(&rest, &pages).contains("three"));
    world.gate(["daemon", "stop"]).run().success();
}

#[test]
fn a_long_directory_comes_in_parts_and_of_a_long_text_the_beginning() {
    let (world, rest, pages) = with_bucket();
    world.script(&world.source(), "for n in $(seq 1004); do : > f$n; done").run().success();
    world.gate(["bucket", "import", "notes", "source"]).run().success();
    store(&rest, "long", &b"text of a line\n".repeat(30_000));
    let said = page(&rest, &pages);
    let rows = |said: &str| said.matches("data-label=\"Mode\"").count();
    assert!(rows(&said) == 1000 && said.contains("1 to 1000 of 1005"), "{} rows", rows(&said));
    assert!(said.contains(&format!("href=\"{pages}?first=1000\"")));
    let said = page(&rest, &format!("{pages}?first=1000"));
    assert!(rows(&said) == 5 && said.contains("1001 to 1005 of 1005"), "{said}");
    let said = page(&rest, &format!("{pages}?path=/long"));
    assert!(said.contains("first 256 KiB"), "{}", &said[..3000]);
    assert_eq!(said.matches("text of a line").count(), 256 * 1024 / 15);
    world.gate(["daemon", "stop"]).run().success();
}

#[test]
fn a_bucket_can_be_looked_at_as_it_was_and_made_so_again() {
    let (world, rest, pages) = with_bucket();
    store(&rest, "f", b"first\n");
    store(&rest, "f", b"second\n");
    let then = page(&rest, &format!("{pages}?at=~1"));
    assert!(then.contains("Nothing can be changed here"), "{then}");
    assert!(!then.contains("/upload") && !then.contains("/move?"), "{then}");
    // However long ago that was then, it is the same version later on.
    let at = then.split("path=/f&amp;at=").nth(1).or_else(|| then.split("path=/f&#38;at=").nth(1));
    let at = at.unwrap_or_else(|| panic!("{then}")).split('"').next().unwrap();
    assert_eq!(at.len(), 64, "{at}");
    store(&rest, "g", b"other\n");
    assert!(page(&rest, &format!("{pages}?path=/f&at={at}")).contains("first"));
    let to = done(&rest, &format!("{pages}/restore?path=/f&at={at}"), b"");
    let said = page(&rest, &to);
    assert!(said.contains("It is as it was.") && said.contains("Undo that"), "{said}");
    assert!(said.contains("first"), "{said}");
    assert!(page(&rest, &format!("{pages}?path=/f&at=@")).contains("/move?"), "as it is now");
    let (status, _, said) = rest.fetch(&format!("{pages}?at=~99"));
    let said = String::from_utf8(said).unwrap();
    assert!(status == 404 && said.contains("gate bucket history"), "{status}: {said}");
    world.gate(["daemon", "stop"]).run().success();
}

#[test]
fn a_file_that_is_not_all_there_has_a_page_that_says_so() {
    let (world, rest, pages) = with_bucket();
    world.script(&world.source(), "head -c 50000 /dev/urandom > f").run().success();
    world.gate(["bucket", "add", "notes", "source/f"]).run().success();
    world.gate(["daemon", "stop"]).run().success();
    let pack = world.state().join("buckets").join(&pages[9..]).join("packs/00000000");
    let mut bytes = fs::read(&pack).unwrap();
    bytes[1000] ^= 1;
    fs::write(&pack, bytes).unwrap();
    world.gate(["daemon", "start"]).run().success();
    assert!(page(&rest, &pages).contains("48.8 KiB"));
    for what in ["?", "/raw?"] {
        let (status, _, said) = rest.fetch(&format!("{pages}{what}path=/f"));
        let said = String::from_utf8(said).unwrap();
        assert!(status == 409 && said.contains("gate bucket fsck notes"), "{status}: {said}");
    }
    world.gate(["daemon", "stop"]).run().success();
}

#[test]
fn the_past_of_a_bucket_is_gone_through_on_the_board() {
    walked("past");
}

/// Returns the lines of what differs, as they are shown.
fn differences(said: &str) -> String {
    let mut text = String::new();
    for line in said.lines().filter(|line| line.contains("<span class=\"")) {
        let Some((_, line)) = line.rsplit_once("<span class=\"") else { continue };
        let Some((_, line)) = line.split_once("\">") else { continue };
        text += line.strip_suffix("</span>").unwrap_or(line);
        text.push('\n');
    }
    text
}

#[test]
fn the_past_of_a_bucket_is_told_as_commands_tell_it() {
    let (world, rest, pages) = with_bucket();
    store(&rest, "f", b"first\nsame\n");
    store(&rest, "f", b"second\nsame\n");
    store(&rest, "other", b"other\n");
    let moved = done(&rest, &format!("{pages}/move?path=/f"), b"to=/g");
    let versions = rest.ask("GET", "/api/v0/buckets/notes/history").body;
    let ids: Vec<&str> = versions["versions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|version| version["version"].as_str().unwrap())
        .collect();
    let [renamed, _, second, first] = ids[..] else { panic!("{versions}") };
    // Of a path all that was done to it, whatever it was called, and nothing else.
    let history = page(&rest, &format!("{pages}/history"));
    let of_one = page(&rest, &format!("{pages}/history?path=/g"));
    let rows = |said: &str| said.matches("data-label=\"When\"").count();
    assert_eq!((rows(&history), rows(&of_one)), (4, 3), "{of_one}");
    assert!(of_one.contains("renamed from /f") && !of_one.contains("/other"), "{of_one}");
    // What a version changed, and between any two.
    let said = page(&rest, &format!("{pages}/diff?of={second}"));
    assert!(said.contains("<span class=\"gone\">-first</span>"), "{said}");
    assert!(said.contains("<span class=\"new\">+second</span>"), "{said}");
    let said = page(&rest, &format!("{pages}/diff?of={first}"));
    assert!(said.contains("+first") && !said.contains("class=\"gone\""), "{said}");
    let between = ["bucket", "diff", "notes", "--from", first, "--to", renamed];
    let told = world.gate(between).run().success();
    let said = page(&rest, &format!("{pages}/diff?from={first}&to={renamed}"));
    assert_eq!(differences(&said), told.replace('>', "&#62;"));
    assert!(said.contains("<strong>3</strong> differences"), "{said}");
    let last = world.gate(["bucket", "diff", "notes"]).run().success();
    assert_eq!(differences(&page(&rest, &format!("{pages}/diff"))), last);
    // And back.
    let version = moved.split("version=").nth(1).unwrap();
    assert_eq!(version, renamed);
    assert!(history.contains(&format!("undo?version={renamed}")), "{history}");
    done(&rest, &format!("{pages}/undo?version={renamed}"), b"");
    done(&rest, &format!("{pages}/restore?path=/f&at={first}"), b"");
    let cat = || world.gate(["bucket", "cat", "notes", "f"]).run().success();
    assert_eq!(cat(), "first\nsame\n");
    done(&rest, &format!("{pages}/undo"), b"");
    assert_eq!(cat(), "second\nsame\n");
    let (status, _, said) = rest.submit(&format!("{pages}/undo?version={first}"), FORM, b"");
    let said = String::from_utf8(said).unwrap();
    assert!(status == 409 && said.contains("undo that first"), "{status}: {said}");
    // A long one comes in parts.
    for n in 0..100 {
        done(&rest, &format!("{pages}/mkdir"), format!("name=d{n}").as_bytes());
    }
    let newest = page(&rest, &format!("{pages}/history"));
    let older = newest.split("/history?after=").nth(1).unwrap().split('"').next().unwrap();
    let older = page(&rest, &format!("{pages}/history?after={older}"));
    assert_eq!((rows(&newest), rows(&older)), (100, 7));
    world.gate(["daemon", "stop"]).run().success();
}
