//! What stands behind the `?` of an address, as bytes: a path is not always text.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use gate_api::http::{quoted, unquoted};

/// The names and values of one request, those that say nothing left out.
#[derive(Debug, Default)]
pub struct Asked(Vec<(Vec<u8>, Vec<u8>)>);

impl Asked {
    fn parse(query: &str) -> Asked {
        // A plus is how forms write a space.
        let query = query.replace('+', " ");
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        let pairs = pairs.map(|(name, value)| (unquoted(name), unquoted(value)));
        Asked(pairs.filter(|(_, value)| !value.is_empty()).collect())
    }

    /// Returns the value of a name.
    pub fn bytes(&self, name: &str) -> Option<&[u8]> {
        let (_, value) = self.0.iter().find(|(of, _)| of == name.as_bytes())?;
        Some(value)
    }

    /// As [`Asked::bytes`], if that is text.
    pub fn text(&self, name: &str) -> Option<&str> {
        str::from_utf8(self.bytes(name)?).ok()
    }

    /// As [`Asked::bytes`], if that is a number.
    pub fn number(&self, name: &str) -> Option<usize> {
        self.text(name)?.parse().ok()
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Asked {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Asked, Infallible> {
        Ok(Asked::parse(parts.uri.query().unwrap_or_default()))
    }
}

/// Returns an address with these names and values.
pub fn address(path: &str, pairs: &[(&str, &[u8])]) -> String {
    let pairs = pairs.iter().filter(|(_, value)| !value.is_empty());
    let pairs: Vec<String> =
        pairs.map(|(name, value)| format!("{name}={}", quoted(value))).collect();
    if pairs.is_empty() { path.to_owned() } else { format!("{path}?{}", pairs.join("&")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bytes_go_into_an_address_and_come_out_of_it() {
        let path: Vec<u8> = (1..=255).collect();
        let written = address("/why", &[("path", &path), ("space", b""), ("kind", b"a b")]);
        assert!(written.is_ascii() && !written.contains(' '), "{written}");
        let asked = Asked::parse(written.strip_prefix("/why?").unwrap());
        assert_eq!(asked.bytes("path"), Some(&*path));
        assert_eq!((asked.text("path"), asked.bytes("space")), (None, None));
        assert_eq!(asked.text("kind"), Some("a b"));
        for (odd, plain) in
            [("%", "%"), ("%4", "%4"), ("%zz", "%zz"), ("%+4", "% 4"), ("a+b%2b", "a b+")]
        {
            assert_eq!(Asked::parse(&format!("x={odd}")).text("x"), Some(plain), "{odd}");
        }
    }
}
