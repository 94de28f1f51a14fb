//! What people are asked at a terminal.

use std::fmt::Display;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, IsTerminal as _, Write as _};
use std::path::Path;

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

use crate::daemon::body::bucket::Secret;
use crate::failure::{Exit, Failure};
use crate::output;

/// The longest passphrase, in bytes.
const SECRET_BYTES_MAX: u64 = 4096;

/// Asks whether something is meant; nobody who is no person is asked. `unasked` is what to type then.
pub fn confirm(what_stays: impl Display, question: &str, unasked: &str) -> Result<(), Failure> {
    let unsure = |cause: &str| {
        let hint = format!("`{unasked}` does not ask");
        Err(Failure::new(format!("{what_stays} stays"), cause, hint))
    };
    if !io::stdin().is_terminal() {
        return unsure("nobody is there to be asked").map_err(|failure| failure.exit(Exit::Unable));
    }
    output::say(format_args!("{question} [y/N] "));
    let mut answer = String::new();
    match io::stdin().read_line(&mut answer) {
        Ok(_) if matches!(answer.trim(), "y" | "Y" | "yes") => Ok(()),
        Ok(_) | Err(_) => unsure("the answer was not yes"),
    }
}

/// Reads a secret from a file, `-` for standard input, or asks for it at the terminal.
pub fn secret(question: &str, file: Option<&Path>) -> Result<Secret, Failure> {
    let failure = |cause: &dyn Display| {
        let hint = "give it in a file of your own: --passphrase-file FILE, or - for standard input";
        Failure::new("no passphrase was read", cause, hint).exit(Exit::Unable)
    };
    let read = match file {
        Some(path) if path == Path::new("-") => read_line(io::stdin().lock()),
        Some(path) => File::open(path).and_then(|file| read_line(BufReader::new(file))),
        None => ask_hidden(question),
    };
    read.map(Secret).map_err(|error| failure(&error))
}

/// Asks for a new secret; at a terminal twice, for nobody sees what is typed.
pub fn new_secret(file: Option<&Path>) -> Result<Secret, Failure> {
    let one = secret("New passphrase: ", file)?;
    if file.is_none() && secret("The same again: ", None)?.0 != one.0 {
        let failure = Failure::new("no passphrase was read", "they differ", "try again");
        return Err(failure.exit(Exit::Unable));
    }
    Ok(one)
}

fn read_line(from: impl io::BufRead) -> io::Result<Zeroizing<String>> {
    // It is never moved in memory, which would leave a copy behind.
    let mut line = Zeroizing::new(String::with_capacity(SECRET_BYTES_MAX as usize + 1));
    from.take(SECRET_BYTES_MAX + 1).read_line(&mut line)?;
    if line.len() as u64 > SECRET_BYTES_MAX {
        let message = format!("it has more than {SECRET_BYTES_MAX} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    if line.ends_with('\n') {
        line.pop();
    }
    Ok(line)
}

fn ask_hidden(question: &str) -> io::Result<Zeroizing<String>> {
    let terminal = OpenOptions::new().read(true).write(true).open("/dev/tty");
    let terminal = terminal.map_err(|_| io::Error::other("there is no terminal to ask for it"))?;
    let hidden = Hidden::begin(&terminal)?;
    write!(&terminal, "{question}")?;
    let line = read_line(BufReader::with_capacity(1, &terminal));
    drop(hidden);
    writeln!(&terminal)?;
    line
}

/// A terminal that does not show what is typed, until this is dropped.
struct Hidden<'a> {
    terminal: &'a File,
    before: Termios,
}

impl Hidden<'_> {
    fn begin(terminal: &File) -> io::Result<Hidden<'_>> {
        let before = tcgetattr(terminal)?;
        let mut hidden = before.clone();
        // Whom Ctrl-C ends leaves it so; the shell puts that right, as for everybody.
        hidden.local_modes.remove(LocalModes::ECHO);
        tcsetattr(terminal, OptionalActions::Now, &hidden)?;
        Ok(Hidden { terminal, before })
    }
}

impl Drop for Hidden<'_> {
    fn drop(&mut self) {
        let _it_is_gone = tcsetattr(self.terminal, OptionalActions::Now, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_a_line_without_its_end() {
        for (text, secret) in
            [("open sesame\nmore", "open sesame"), ("x", "x"), (" y \r\n", " y \r")]
        {
            assert_eq!(&**read_line(text.as_bytes()).unwrap(), secret);
        }
        let long = "x".repeat(SECRET_BYTES_MAX as usize + 1);
        read_line(long.as_bytes()).unwrap_err();
        assert_eq!(read_line(&long.as_bytes()[1..]).unwrap().len(), long.len() - 1);
    }
}
