//! A place in a bucket, as it is or was, and the addresses of its pages.

use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use uuid::Uuid;

use super::fault;
use crate::daemon::buckets::Buckets;
use crate::daemon::office::aside;
use crate::daemon::refusal::Refusal;
use crate::query::{self, Asked};
use crate::web::page::Fault;
use crate::web::shown::Shown;

#[derive(Clone, Debug)]
pub struct Place {
    pub bucket: Uuid,
    /// What this device calls it.
    pub name: String,
    /// From the bucket's root on, with a slash first.
    pub path: Vec<u8>,
    /// In which version; as it is now without one.
    pub at: Option<String>,
}

impl Place {
    /// Reads what is behind the address of a page of a bucket.
    pub async fn read(buckets: &Buckets, words: String, asked: &Asked) -> Result<Place, Fault> {
        let (buckets, named) = (buckets.clone(), words.clone());
        let called = aside(move || buckets.called(&named)).await;
        let (bucket, name) = called.map_err(|refusal| fault(&words, refusal))?;
        let path = asked.bytes("path").unwrap_or(b"/").to_vec();
        Ok(Place { bucket, name, path, at: asked.text("at").map(str::to_owned) })
    }

    /// Returns what names the bucket to all that is asked of it.
    pub fn words(&self) -> String {
        self.bucket.to_string()
    }

    pub fn is_root(&self) -> bool {
        matches!(&*self.path, b"" | b"/")
    }

    /// Returns the address of one of its pages, or deeds.
    pub fn to(&self, what: &str) -> String {
        self.to_with(what, &[])
    }

    pub fn to_with(&self, what: &str, more: &[(&str, &[u8])]) -> String {
        let path: &[u8] = if self.is_root() { b"" } else { &self.path };
        let at = self.at.as_deref().unwrap_or_default();
        let pairs = [&[("path", path), ("at", at.as_bytes())], more].concat();
        let slash = if what.is_empty() { "" } else { "/" };
        query::address(&format!("/buckets/{}{slash}{what}", self.bucket), &pairs)
    }

    /// Returns another place in it, of the same version.
    pub fn with_path(&self, path: &[u8]) -> Place {
        Place { path: path.to_vec(), ..self.clone() }
    }

    pub fn with_at(&self, at: Option<&str>) -> Place {
        Place { at: at.map(str::to_owned), ..self.clone() }
    }

    /// Returns the directory that it is in; that of the root is the root.
    pub fn parent(&self) -> Place {
        let path = Path::new(std::ffi::OsStr::from_bytes(&self.path));
        let parent = path.parent().map_or(&b"/"[..], |parent| parent.as_os_str().as_bytes());
        self.with_path(parent)
    }

    /// Returns what it is called there.
    pub fn last(&self) -> &[u8] {
        Path::new(std::ffi::OsStr::from_bytes(&self.path))
            .file_name()
            .map_or(b"", |name| name.as_bytes())
    }

    /// Returns the names that lead there, the bucket's first, each with its address.
    pub fn trail(&self) -> Vec<(Shown, String)> {
        let mut trail = vec![(Shown::new(&self.name), self.with_path(b"/").to(""))];
        let mut path = Vec::new();
        for name in self.path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
            path.push(b'/');
            path.extend_from_slice(name);
            trail.push((Shown::bytes(name), self.with_path(&path).to("")));
        }
        trail
    }

    /// Says why it has no page.
    pub fn fault(&self, refusal: Refusal) -> Fault {
        let back = if self.is_root() { "/buckets".to_owned() } else { self.with_path(b"/").to("") };
        fault(&self.name, refusal).back(back)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_has_an_address_whatever_its_name_is() {
        let bucket = Uuid::from_u128(7);
        let place = Place {
            bucket,
            name: "notes".to_owned(),
            path: b"/a b/\xff\"<".to_vec(),
            at: Some("~3".to_owned()),
        };
        let base = format!("/buckets/{bucket}");
        assert_eq!(place.to("raw"), format!("{base}/raw?path=/a%20b/%FF%22%3C&at=~3"));
        assert_eq!(place.parent().to(""), format!("{base}?path=/a%20b&at=~3"));
        assert_eq!(place.parent().parent().with_at(None).to(""), base);
        assert_eq!(place.last(), b"\xff\"<");
        let trail: Vec<String> =
            place.trail().into_iter().map(|(name, _)| name.to_string()).collect();
        assert_eq!(trail, ["notes", "a b", "\\xff\"<"]);
    }
}
