//! Token files, in words for people.

use gate_api::bearer::{BadLine, Fault, TokenFileError};

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
