//! Names and words of others, as a page may show them: what would steer how it reads is spelt out. That
//! they are no markup the templates see to.

use std::fmt;
use std::path::Path;

use gate_api::wire::{Entry, Record};

use crate::output::printable;
use crate::{board, told};

/// Text in which nothing steers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shown(String);

impl Shown {
    pub fn new(text: impl AsRef<str>) -> Shown {
        Shown(printable(text.as_ref()))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Of bytes, those that are no text spelt out.
    pub fn bytes(bytes: &[u8]) -> Shown {
        let chunk = |chunk: std::str::Utf8Chunk<'_>| {
            let odd = chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}"));
            printable(chunk.valid()) + &odd.collect::<String>()
        };
        Shown(bytes.utf8_chunks().map(chunk).collect())
    }

    pub fn path(path: &Path) -> Shown {
        Shown::new(path.display().to_string())
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One thing that happened.
#[derive(Debug)]
pub struct Line {
    /// As this machine's clock has it.
    pub at: String,
    pub story: Shown,
}

impl Line {
    pub fn of(entry: &Entry) -> Line {
        let record: &Record<'_> = &entry.record;
        Line { at: board::local(record.at_ms), story: Shown::new(told::story(record)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_others_turn_nothing() {
        let shown = Shown::path(Path::new("gpj.\u{202e}exe\n<b>"));
        assert_eq!(shown.to_string(), "gpj.\\u{202e}exe\\n<b>");
        let shown = Shown::bytes(b"a\xff\xc3\n\xc3\xa4");
        assert_eq!(shown.to_string(), "a\\xff\\xc3\\n\u{e4}");
    }
}
