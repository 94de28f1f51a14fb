//! Token files: in words for people, and the one that a daemon makes for itself.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use gate_api::bearer::{BadLine, Fault, TokenFileError};
use uuid::Uuid;

/// The name of the daemon's own token file in its state directory.
const NAME: &str = "api.tokens";

/// Returns the token file of a state directory; makes it, with one token that may do everything, if
/// there is none.
pub fn own(state_dir: &Path) -> io::Result<PathBuf> {
    let path = state_dir.join(NAME);
    std::fs::create_dir_all(state_dir)?;
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
    match made {
        Ok(mut file) => {
            // Each draws 122 random bits.
            let [one, two] = [Uuid::new_v4(), Uuid::new_v4()].map(Uuid::simple);
            writeln!(file, "admin {one}{two}")?;
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    Ok(path)
}

/// Returns what to type when a token file is of no use.
pub fn hint(error: &TokenFileError) -> String {
    let path = error.path.display();
    match &error.fault {
        Fault::Unreadable(_) | Fault::NoFile => "check the path".to_owned(),
        Fault::Exposed(_) => {
            format!("`chmod 600 {path}`, and draw new tokens if others may have read them")
        }
        Fault::Foreign(_) => format!("make it yours: `chown $(id -u) {path}`"),
        Fault::TooLarge => "remove tokens that nobody uses".to_owned(),
        Fault::Empty | Fault::Line(_, BadLine::NotTwoWords | BadLine::NoScope) => {
            "write `lock TOKEN`, or `read` or `admin` before it, one on each line".to_owned()
        }
        Fault::Line(_, _) => "draw one: `head -c 32 /dev/urandom | base64`".to_owned(),
    }
}
