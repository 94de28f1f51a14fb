//! Bearer tokens: who may come from other machines, and what each may do there.
//!
//! A token file has one `SCOPE TOKEN` on each line; a line that begins with `#` says nothing. It is
//! its owner's secret: one that others may read is refused, and a token shows itself nowhere, not
//! in errors and not in `Debug` (N12).

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// Characters of a token, at least: 128 bits, were they all hexadecimal digits.
pub const TOKEN_CHARACTERS_MIN: usize = 32;
/// Characters of a token, at most.
pub const TOKEN_CHARACTERS_MAX: usize = 256;
/// Different characters of a token, at least: random ones have more, `xxxx…` has fewer.
const TOKEN_VARIETY_MIN: usize = 8;
/// Tokens in one file.
pub const TOKENS_MAX: usize = 256;
/// Bytes of a token file.
const FILE_BYTES_MAX: u64 = 128 * 1024;
/// What the mode of a token file may allow.
const MODE_MOST: u32 = 0o600;

/// What a client may do; each scope includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rights {
    /// Look: who holds, who waits, why, what happened.
    Read,
    /// Take turns too.
    Lock,
    /// End what others hold, too.
    Admin,
}

/// A secret that says what its bearer may do.
pub struct BearerToken(Zeroizing<String>);

/// The tokens of one file, in its order.
pub struct TokenFile(Vec<(Rights, BearerToken)>);

/// Why a token file is of no use.
#[derive(Debug)]
pub struct TokenFileError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub fault: Fault,
}

/// What is wrong with a token file.
#[derive(Debug)]
pub enum Fault {
    /// It cannot be read: check the path.
    Unreadable(io::Error),
    /// It is no file.
    NoFile,
    /// Others may read or change it; this is its mode.
    Exposed(u32),
    /// It belongs to this user, who could change it.
    Foreign(u32),
    /// It is larger, or has more tokens, than any need be.
    TooLarge,
    /// It holds no token.
    Empty,
    /// The line with this number makes no sense.
    Line(usize, BadLine),
}

/// Why a line of a token file is no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadLine {
    /// It is not two words.
    NotTwoWords,
    /// The first word is no scope.
    NoScope,
    /// The token is too short.
    Short,
    /// The token is too long.
    Long,
    /// The token has other characters than bearer tokens may have.
    Characters,
    /// The token repeats itself: nobody drew it at random.
    NotRandom,
}

impl Rights {
    /// All of them, the least first.
    pub const ALL: [Rights; 3] = [Rights::Read, Rights::Lock, Rights::Admin];

    /// Returns the scope's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Rights::Read => "read",
            Rights::Lock => "lock",
            Rights::Admin => "admin",
        }
    }

    fn parse(name: &str) -> Option<Rights> {
        Rights::ALL.into_iter().find(|rights| rights.as_str() == name)
    }
}

impl BearerToken {
    fn parse(text: &str) -> Result<BearerToken, BadLine> {
        let is_allowed = |c: u8| c.is_ascii_alphanumeric() || b"-._~+/=".contains(&c);
        let mut seen = [false; 128];
        for c in text.bytes() {
            if !is_allowed(c) {
                return Err(BadLine::Characters);
            }
            seen[usize::from(c)] = true;
        }
        match text.len() {
            ..TOKEN_CHARACTERS_MIN => Err(BadLine::Short),
            TOKEN_CHARACTERS_MIN..=TOKEN_CHARACTERS_MAX => {
                let variety = seen.into_iter().filter(|is_used| *is_used).count();
                let token = || BearerToken(Zeroizing::new(text.to_owned()));
                (variety >= TOKEN_VARIETY_MIN).then(token).ok_or(BadLine::NotRandom)
            }
            _ => Err(BadLine::Long),
        }
    }

    /// Returns the header by which its bearer shows it.
    pub fn header(&self) -> Zeroizing<String> {
        Zeroizing::new(format!("Authorization: Bearer {}\r\n", *self.0))
    }
}

impl TokenFile {
    /// Reads a file that is its owner's secret, and this user's or root's.
    pub fn load(path: &Path) -> Result<TokenFile, TokenFileError> {
        let text = read(path);
        text.and_then(|text| TokenFile::parse(&text))
            .map_err(|fault| TokenFileError { path: path.to_owned(), fault })
    }

    fn parse(text: &str) -> Result<TokenFile, Fault> {
        let mut tokens = Vec::new();
        for (line, number) in text.lines().zip(1..) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if tokens.len() >= TOKENS_MAX {
                return Err(Fault::TooLarge);
            }
            tokens.push(parse_line(line).map_err(|bad| Fault::Line(number, bad))?);
        }
        if tokens.is_empty() { Err(Fault::Empty) } else { Ok(TokenFile(tokens)) }
    }

    /// Returns the first token, which a client shows.
    pub fn first(&self) -> &BearerToken {
        &self.0.first().expect("a token file is not empty: checked by parse").1
    }

    /// Returns what the bearer of a token may do, if it is one of these. How long that takes tells
    /// nothing of how much of it is right.
    pub fn rights_of(&self, shown: &[u8]) -> Option<Rights> {
        let matching = |(rights, token): &(Rights, BearerToken)| {
            bool::from(token.0.as_bytes().ct_eq(shown)).then_some(*rights)
        };
        self.0.iter().map(matching).max().flatten()
    }
}

fn parse_line(line: &str) -> Result<(Rights, BearerToken), BadLine> {
    let mut words = line.split_ascii_whitespace();
    let (Some(scope), Some(token), None) = (words.next(), words.next(), words.next()) else {
        return Err(BadLine::NotTwoWords);
    };
    Ok((Rights::parse(scope).ok_or(BadLine::NoScope)?, BearerToken::parse(token)?))
}

/// Reads the file that was checked, not one that takes its name meanwhile.
fn read(path: &Path) -> Result<Zeroizing<String>, Fault> {
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = File::options().read(true).custom_flags(flags).open(path);
    let file = file.map_err(Fault::Unreadable)?;
    let metadata = file.metadata().map_err(Fault::Unreadable)?;
    let (mode, uid) = (metadata.mode() & 0o7777, metadata.uid());
    if !metadata.is_file() {
        return Err(Fault::NoFile);
    }
    if uid != 0 && uid != rustix::process::geteuid().as_raw() {
        return Err(Fault::Foreign(uid));
    }
    if mode & !MODE_MOST != 0 {
        return Err(Fault::Exposed(mode));
    }
    let mut text = Zeroizing::new(String::new());
    let read = file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text);
    match read.map_err(Fault::Unreadable)? as u64 {
        ..=FILE_BYTES_MAX => Ok(text),
        _ => Err(Fault::TooLarge),
    }
}

impl fmt::Debug for TokenFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(rights, _)| rights)).finish()
    }
}

impl fmt::Display for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for TokenFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match &self.fault {
            Fault::Unreadable(error) => write!(f, "the token file {path} cannot be read: {error}"),
            Fault::NoFile => write!(f, "the token file {path} is no file"),
            Fault::Exposed(mode) => {
                write!(f, "the token file {path} has mode {mode:04o}: others may get at it")
            }
            Fault::Foreign(uid) => write!(f, "the token file {path} belongs to the user {uid}"),
            Fault::TooLarge => write!(f, "the token file {path} has more than {TOKENS_MAX} tokens"),
            Fault::Empty => write!(f, "the token file {path} has no token"),
            Fault::Line(number, bad) => write!(f, "the token file {path}, line {number}: {bad}"),
        }
    }
}

impl fmt::Display for BadLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadLine::NotTwoWords => f.write_str("not a scope and a token"),
            BadLine::NoScope => f.write_str("the scope is none of read, lock and admin"),
            BadLine::Short => {
                write!(f, "the token has fewer than {TOKEN_CHARACTERS_MIN} characters")
            }
            BadLine::Long => write!(f, "the token has more than {TOKEN_CHARACTERS_MAX} characters"),
            BadLine::Characters => {
                f.write_str("the token has other characters than letters, digits and -._~+/=")
            }
            BadLine::NotRandom => f.write_str("the token is not random"),
        }
    }
}

impl std::error::Error for TokenFileError {}

/// Reads text as a token file. What makes sense says the same when it is written again; what does not is
/// told without any word of it (N12).
#[cfg(fuzzing)]
pub(crate) fn read_any(text: &str) {
    let read = |text: &str| TokenFile::parse(text).map(|file| file.0);
    let tokens = match read(text) {
        Ok(tokens) => tokens,
        Err(fault) => {
            let error = TokenFileError { path: "t".into(), fault };
            let said = format!("{error} {error:?}");
            let long = text.split_ascii_whitespace().filter(|w| w.len() >= TOKEN_CHARACTERS_MIN);
            return long.for_each(|word| assert!(!said.contains(word), "{said}"));
        }
    };
    assert!((1..=TOKENS_MAX).contains(&tokens.len()));
    let line = |(rights, token): &(Rights, BearerToken)| format!("{rights} {}\n", *token.0);
    let again = read(&tokens.iter().map(line).collect::<String>()).expect("just written");
    let are_same = |(one, other): (&(Rights, BearerToken), &(Rights, BearerToken))| {
        one.0 == other.0 && one.1.0 == other.1.0
    };
    assert!(again.len() == tokens.len() && again.iter().zip(&tokens).all(are_same));
    let file = TokenFile(tokens);
    for (rights, token) in &file.0 {
        assert!(file.rights_of(token.0.as_bytes()) >= Some(*rights));
    }
    assert_eq!(file.rights_of(b""), None);
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const ONE: &str = "0123456789abcdef0123456789abcdef";
    const TWO: &str = "Zm9vYmFyYmF6cXV4cXV1eGNvcmdlZ3JhdWx0";

    fn fault(text: &str) -> Fault {
        TokenFile::parse(text).unwrap_err()
    }

    #[test]
    fn each_token_has_its_scope_and_no_other_has_any() {
        let file = TokenFile::parse(&format!("# ours\n\n read {ONE}\n\tadmin\t{TWO}\r\n")).unwrap();
        assert_eq!(file.rights_of(ONE.as_bytes()), Some(Rights::Read));
        assert_eq!(file.rights_of(TWO.as_bytes()), Some(Rights::Admin));
        for wrong in ["", "read", &ONE[1..], &format!("{ONE} "), &ONE.replace('f', "e")] {
            assert_eq!(file.rights_of(wrong.as_bytes()), None, "{wrong}");
        }
        assert!(Rights::Read < Rights::Lock && Rights::Lock < Rights::Admin);
    }

    #[test]
    fn a_line_that_makes_no_sense_is_named_by_its_number() {
        let short = &ONE[1..];
        for (line, why) in [
            (ONE.to_owned(), BadLine::NotTwoWords),
            (format!("lock {ONE} more"), BadLine::NotTwoWords),
            (format!("write {ONE}"), BadLine::NoScope),
            (format!("lock {short}"), BadLine::Short),
            (format!("lock {}", ONE.repeat(9)), BadLine::Long),
            (format!("lock {ONE}\u{e9}"), BadLine::Characters),
            (format!("lock {ONE},"), BadLine::Characters),
            (format!("lock {}", "x".repeat(40)), BadLine::NotRandom),
        ] {
            let text = format!("read {ONE}\n{line}\n");
            assert!(matches!(fault(&text), Fault::Line(2, bad) if bad == why), "{line}");
        }
        assert!(matches!(fault("# nothing\n"), Fault::Empty));
        let many = format!("read {ONE}\n").repeat(TOKENS_MAX + 1);
        assert!(matches!(fault(&many), Fault::TooLarge));
    }

    #[test]
    fn a_file_that_others_may_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens");
        std::fs::write(&path, format!("lock {ONE}\n")).unwrap();
        for (mode, is_secret) in [(0o600, true), (0o400, true), (0o640, false), (0o602, false)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            match TokenFile::load(&path) {
                Ok(file) => assert!(is_secret && file.rights_of(ONE.as_bytes()).is_some()),
                Err(TokenFileError { fault: Fault::Exposed(shown), .. }) => {
                    assert!(!is_secret && shown == mode, "{mode:o}");
                }
                Err(error) => panic!("{mode:o}: {error}"),
            }
        }
        let is_fault = |path: &Path, expected: fn(&Fault) -> bool| {
            assert!(expected(&TokenFile::load(path).unwrap_err().fault), "{}", path.display());
        };
        is_fault(dir.path(), |fault| matches!(fault, Fault::NoFile));
        is_fault(&dir.path().join("none"), |fault| matches!(fault, Fault::Unreadable(_)));
        let text = vec![b' '; usize::try_from(FILE_BYTES_MAX).unwrap() + 1];
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        is_fault(&path, |fault| matches!(fault, Fault::TooLarge));
    }

    #[test]
    fn n12_no_token_shows_itself() {
        let file = TokenFile::parse(&format!("lock {ONE}\nread {TWO}")).unwrap();
        let shown = format!("{file:?}");
        assert_eq!(shown, "[Lock, Read]");
        for text in [format!("{ONE}\n"), format!("{ONE} lock\n"), format!("lock {ONE}!\n")] {
            let error = TokenFileError { path: "/t".into(), fault: fault(&text) };
            assert!(!format!("{error} {error:?}").contains(ONE), "{error:?}");
        }
    }
}
