//! A process that does what it is told, one system call at a time.
//!
//! With arguments it does that one thing and exits with its errno. Without, it reads commands from
//! its input, a line each, words apart by tabs, and answers each with `ok VALUE` or `err ERRNO`;
//! a line feed within a value is told as `\n`.
//! It never retries and never sleeps: what blocks it is what it was told to do.

#[path = "actor/ears.rs"]
mod ears;
#[path = "actor/names.rs"]
mod names;
#[path = "actor/slots.rs"]
mod slots;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::{BufRead, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::process::ExitCode;

use rustix::fs::{AtFlags, CWD, FileType, FlockOperation, Mode, OFlags, SeekFrom, XattrFlags};
use rustix::io::{Errno, Result};

fn main() -> ExitCode {
    let mut actor = Actor::default();
    let words: Vec<OsString> = std::env::args_os().skip(1).collect();
    if !words.is_empty() {
        let words: Vec<&OsStr> = words.iter().map(OsString::as_os_str).collect();
        return match actor.act(&words) {
            Ok(_) => ExitCode::SUCCESS,
            Err(errno) => {
                eprintln!("actor: {errno}");
                ExitCode::from(u8::try_from(errno.raw_os_error()).unwrap_or(u8::MAX))
            }
        };
    }
    for line in std::io::stdin().lock().split(b'\n') {
        let Ok(line) = line else { break };
        let words: Vec<&OsStr> = line.split(|b| *b == b'\t').map(OsStr::from_bytes).collect();
        let answer = match actor.act(&words) {
            Ok(value) => [b"ok ", one_line(&value).as_slice(), b"\n"].concat(),
            Err(errno) => format!("err {}\n", errno.raw_os_error()).into_bytes(),
        };
        let mut out = std::io::stdout().lock();
        if out.write_all(&answer).and_then(|()| out.flush()).is_err() {
            break;
        }
    }
    ExitCode::SUCCESS
}

/// What the process has open and mapped.
#[derive(Default)]
struct Actor {
    files: BTreeMap<i32, OwnedFd>,
    mapped: Option<Mapped>,
    slots: slots::Slots,
    ears: ears::Ears,
}

impl Actor {
    fn act(&mut self, words: &[&OsStr]) -> Result<OsString> {
        let (verb, rest) = words.split_first().ok_or(Errno::INVAL)?;
        let verb = verb.to_str().ok_or(Errno::INVAL)?;
        match verb {
            "catch" => catch_interrupts(rest.first().is_some_and(|word| *word == "restart")),
            "cd" => rustix::process::chdir(word(rest, 0)?).map(none),
            "repeat" => self.repeat(number(rest, 0)?, rest.get(1..).ok_or(Errno::INVAL)?),
            "increment" => increment(word(rest, 0)?),
            "append" => append(word(rest, 0)?, word(rest, 1)?),
            "relock" => relock(word(rest, 0)?),
            "thread" => start_thread(),
            "capture" => capture(rest),
            "at" => self.slots.act(rest),
            "watch" => self.ears.watch(word(rest, 0)?),
            "heard" => self.ears.heard(),
            "load" => self.mapped.as_ref().map(Mapped::load).ok_or(Errno::INVAL),
            "leave" => {
                self.slots = slots::Slots::default();
                Ok(none(()))
            }
            "open" | "read" | "write" | "seek" | "fsync" | "ftruncate" | "fchmod" | "fstat"
            | "send" | "flock" | "lock" | "getlk" | "dup" | "mmap" | "store" | "close" => {
                self.on_file(verb, rest)
            }
            _ => by_path(verb, rest),
        }
    }

    fn repeat(&mut self, times: u64, words: &[&OsStr]) -> Result<OsString> {
        for _ in 0..times {
            self.act(words)?;
        }
        Ok(none(()))
    }

    fn on_file(&mut self, verb: &str, rest: &[&OsStr]) -> Result<OsString> {
        if verb == "open" {
            return Ok(self.keep(open(word(rest, 0)?, word(rest, 1)?)?));
        }
        let key = i32::try_from(number(rest, 0)?).map_err(|_| Errno::BADF)?;
        if verb == "close" {
            let file = self.files.remove(&key).ok_or(Errno::BADF)?;
            return close(file);
        }
        let file = self.files.get(&key).ok_or(Errno::BADF)?;
        if verb == "mmap" {
            let mapped = Mapped::of(file, number(rest, 1)?)?;
            return Ok(self.mapped.insert(mapped).load());
        }
        match verb {
            "dup" => rustix::io::fcntl_dupfd_cloexec(file, 0).map(|file| self.keep(file)),
            "read" => read(file, number(rest, 1)?),
            "write" => rustix::io::write(file, word(rest, 1)?.as_bytes()).map(counted),
            "seek" => rustix::fs::seek(file, SeekFrom::Start(number(rest, 1)?)).map(counted),
            "fsync" => rustix::fs::fsync(file).map(none),
            "ftruncate" => rustix::fs::ftruncate(file, number(rest, 1)?).map(none),
            "fchmod" => rustix::fs::fchmod(file, mode(rest, 1)?).map(none),
            "send" => {
                let (_read, write) = rustix::pipe::pipe()?;
                let most = usize::try_from(number(rest, 1)?).map_err(|_| Errno::INVAL)?;
                rustix::fs::sendfile(write, file, None, most).map(counted)
            }
            "fstat" => rustix::fs::fstat(file).map(|stat| counted(stat.st_size)),
            "flock" => flock(file, word(rest, 1)?),
            "lock" => Bytes::of(&rest[1..])?.lock(file),
            "getlk" => Bytes::of(&rest[1..])?.in_the_way(file),
            _ => store(file, word(rest, 1)?),
        }
    }

    fn keep(&mut self, file: OwnedFd) -> OsString {
        let number = file.as_raw_fd();
        self.files.insert(number, file);
        number.to_string().into()
    }
}

/// How: `s` shared, `x` exclusive, `u` unlock, and `w` to wait.
fn flock(file: &OwnedFd, how: &OsStr) -> Result<OsString> {
    let operation = match how.as_bytes() {
        b"s" => FlockOperation::NonBlockingLockShared,
        b"x" => FlockOperation::NonBlockingLockExclusive,
        b"sw" => FlockOperation::LockShared,
        b"xw" => FlockOperation::LockExclusive,
        b"u" => FlockOperation::Unlock,
        _ => return Err(Errno::INVAL),
    };
    rustix::fs::flock(file, operation).map(none)
}

/// Bytes of a file to be locked: how, the first, how many. How: as in `flock`, and `o` for a lock of
/// the open file rather than the process.
struct Bytes {
    wire: libc::flock,
    waits: bool,
    of_open_file: bool,
}

impl Bytes {
    fn of(words: &[&OsStr]) -> Result<Bytes> {
        let how = word(words, 0)?.as_bytes();
        let l_type = match how.first() {
            Some(b's') => libc::F_RDLCK,
            Some(b'x') => libc::F_WRLCK,
            Some(b'u') => libc::F_UNLCK,
            _ => return Err(Errno::INVAL),
        };
        let offset = |at| number(words, at).and_then(|at| at.try_into().map_err(|_| Errno::INVAL));
        let wire = libc::flock {
            l_type: i16::try_from(l_type).map_err(|_| Errno::INVAL)?,
            l_whence: 0,
            l_start: offset(1)?,
            l_len: offset(2)?,
            l_pid: 0,
        };
        Ok(Bytes { wire, waits: how.contains(&b'w'), of_open_file: how.contains(&b'o') })
    }

    fn lock(mut self, file: &OwnedFd) -> Result<OsString> {
        let command = match (self.of_open_file, self.waits) {
            (false, false) => libc::F_SETLK,
            (false, true) => libc::F_SETLKW,
            (true, false) => libc::F_OFD_SETLK,
            (true, true) => libc::F_OFD_SETLKW,
        };
        self.fcntl(file, command).map(none)
    }

    /// Tells kind, first, how many, and the process; nothing if nothing is in the way.
    fn in_the_way(mut self, file: &OwnedFd) -> Result<OsString> {
        let command = if self.of_open_file { libc::F_OFD_GETLK } else { libc::F_GETLK };
        self.fcntl(file, command)?;
        let libc::flock { l_type, l_start, l_len, l_pid, .. } = self.wire;
        let kind = match i32::from(l_type) {
            libc::F_RDLCK => "s",
            libc::F_WRLCK => "x",
            _ => return Ok(none(())),
        };
        Ok(format!("{kind} {l_start} {l_len} {l_pid}").into())
    }

    fn fcntl(&mut self, file: &OwnedFd, command: libc::c_int) -> Result<()> {
        // SAFETY: these commands take a pointer to such a struct, which outlives the call.
        match unsafe { libc::fcntl(file.as_raw_fd(), command, &raw mut self.wire) } {
            -1 => Err(last_errno()),
            _ => Ok(()),
        }
    }
}

fn by_path(verb: &str, rest: &[&OsStr]) -> Result<OsString> {
    let path = word(rest, 0)?;
    match verb {
        "stat" => rustix::fs::stat(path).map(|stat| counted(stat.st_size)),
        "access" => rustix::fs::access(path, rustix::fs::Access::EXISTS).map(none),
        "list" => list(path),
        "unlink" => rustix::fs::unlink(path).map(none),
        "rmdir" => rustix::fs::rmdir(path).map(none),
        "rename" => rustix::fs::rename(path, word(rest, 1)?).map(none),
        "link" => rustix::fs::link(path, word(rest, 1)?).map(none),
        "symlink" => rustix::fs::symlink(path, word(rest, 1)?).map(none),
        "mkdir" => rustix::fs::mkdir(path, Mode::from_raw_mode(0o755)).map(none),
        "mkfifo" => {
            rustix::fs::mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o644), 0).map(none)
        }
        "chmod" => rustix::fs::chmod(path, mode(rest, 1)?).map(none),
        "touch" => {
            let now = rustix::fs::Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW };
            let times = rustix::fs::Timestamps { last_access: now, last_modification: now };
            rustix::fs::utimensat(CWD, path, &times, AtFlags::empty()).map(none)
        }
        "setxattr" => {
            let value = word(rest, 2)?.as_bytes();
            rustix::fs::setxattr(path, word(rest, 1)?, value, XattrFlags::empty()).map(none)
        }
        "truncate" => truncate(path, number(rest, 1)?),
        _ => names::act(verb, rest),
    }
}

/// Flags: `r`, `w`, `rw` or `P` (path), then any of `+` create, `!` exclusive, `0` truncate,
/// `a` append, `d` directory, `f` do not follow, `D` direct, `n` do not block, `t` temporary.
fn open(flags: &OsStr, path: &OsStr) -> Result<OwnedFd> {
    let flags = flags.as_bytes();
    let has = |flag: u8| flags.contains(&flag);
    let mut how = match (has(b'r'), has(b'w')) {
        (true, true) => OFlags::RDWR,
        (true, false) => OFlags::RDONLY,
        (false, true) => OFlags::WRONLY,
        (false, false) if has(b'P') => OFlags::PATH,
        (false, false) => return Err(Errno::INVAL),
    };
    how.set(OFlags::CREATE, has(b'+'));
    how.set(OFlags::EXCL, has(b'!'));
    how.set(OFlags::TRUNC, has(b'0'));
    how.set(OFlags::APPEND, has(b'a'));
    how.set(OFlags::DIRECTORY, has(b'd'));
    how.set(OFlags::NOFOLLOW, has(b'f'));
    how.set(OFlags::DIRECT, has(b'D'));
    how.set(OFlags::NONBLOCK, has(b'n'));
    how.set(OFlags::TMPFILE, has(b't'));
    rustix::fs::open(path, how | OFlags::CLOEXEC, Mode::from_raw_mode(0o644))
}

fn read(file: &OwnedFd, length: u64) -> Result<OsString> {
    let mut bytes = vec![0; usize::try_from(length).map_err(|_| Errno::INVAL)?];
    let count = rustix::io::read(file, &mut bytes)?;
    bytes.truncate(count);
    Ok(OsString::from_vec(bytes))
}

/// Adds one to the number in a file, by the way that loses updates when two do it at once.
fn increment(path: &OsStr) -> Result<OsString> {
    let file = open(OsStr::new("r"), path)?;
    let text = read(&file, 32)?;
    drop(file);
    let old: u64 = text.to_str().and_then(|t| t.trim().parse().ok()).ok_or(Errno::INVAL)?;
    let file = open(OsStr::new("w0"), path)?;
    rustix::io::write(&file, (old + 1).to_string().as_bytes())?;
    close(file)
}

/// Locks a file as the only one who does, and lets it go by closing it.
fn relock(path: &OsStr) -> Result<OsString> {
    let file = open(OsStr::new("rw"), path)?;
    flock(&file, OsStr::new("x"))?;
    close(file)
}

/// Appends by writing at the length seen after the open, without `O_APPEND`.
fn append(path: &OsStr, text: &OsStr) -> Result<OsString> {
    let file = open(OsStr::new("w+"), path)?;
    let end = rustix::fs::fstat(&file)?.st_size;
    rustix::fs::seek(&file, SeekFrom::Start(end.cast_unsigned()))?;
    rustix::io::write(&file, text.as_bytes())?;
    close(file)
}

fn list(path: &OsStr) -> Result<OsString> {
    let dir = rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(dir)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(name);
        }
    }
    names.sort();
    Ok(OsString::from_vec(names.join(&b' ')))
}

fn truncate(path: &OsStr, length: u64) -> Result<OsString> {
    let path = std::ffi::CString::new(path.as_bytes()).map_err(|_| Errno::INVAL)?;
    let length = i64::try_from(length).map_err(|_| Errno::INVAL)?;
    // SAFETY: the path is a NUL-terminated string that outlives the call.
    if unsafe { libc::truncate(path.as_ptr(), length) } == 0 {
        return Ok(none(()));
    }
    Err(last_errno())
}

/// The start of a file, mapped to memory for as long as the process lives.
struct Mapped(*const u8);

impl Mapped {
    fn of(file: &OwnedFd, length: u64) -> Result<Mapped> {
        use rustix::mm::{MapFlags, ProtFlags, mmap};
        let length = usize::try_from(length).map_err(|_| Errno::INVAL)?;
        let no_address = std::ptr::null_mut();
        // SAFETY: the kernel chooses the address, and the mapping is never undone.
        let first =
            unsafe { mmap(no_address, length, ProtFlags::READ, MapFlags::SHARED, file, 0)? };
        Ok(Mapped(first.cast()))
    }

    /// Reads its first byte.
    fn load(&self) -> OsString {
        // SAFETY: the mapping is readable and at least one byte long, or mmap had refused.
        let byte = unsafe { self.0.read_volatile() };
        OsString::from_vec(vec![byte])
    }
}

/// Writes at the start of a file through a mapping that is undone again.
fn store(file: &OwnedFd, text: &OsStr) -> Result<OsString> {
    use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
    let (no_address, bytes) = (std::ptr::null_mut(), text.as_bytes());
    let access = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: the kernel chooses the address; the bytes fit the mapping, which nobody else knows
    // of and which is not used after it is undone.
    unsafe {
        let first = mmap(no_address, bytes.len(), access, MapFlags::SHARED, file, 0)?;
        first.cast::<u8>().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
        munmap(first, bytes.len())?;
    }
    Ok(none(()))
}

/// Starts a thread that does nothing, for as long as the process lives.
fn start_thread() -> Result<OsString> {
    let idle = || {
        loop {
            std::thread::park();
        }
    };
    let started = std::thread::Builder::new().spawn(idle);
    started.map(|_| none(())).map_err(|_| Errno::AGAIN)
}

/// Runs a command and returns what it writes; its end of the pipe is what this thread sleeps for.
fn capture(words: &[&OsStr]) -> Result<OsString> {
    let mut command = std::process::Command::new(word(words, 0)?);
    command.args(&words[1..]).stdin(std::process::Stdio::null());
    let child = command.stdout(std::process::Stdio::piped()).spawn();
    let output = child.and_then(std::process::Child::wait_with_output);
    let output = output.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    Ok(OsString::from_vec(output.stdout))
}

/// Closes a file and tells what close said; dropping it would hide that.
fn close(file: OwnedFd) -> Result<OsString> {
    let number = std::os::fd::IntoRawFd::into_raw_fd(file);
    // SAFETY: the descriptor was just given up by its owner, so nobody else closes it.
    if unsafe { libc::close(number) } == 0 { Ok(none(())) } else { Err(last_errno()) }
}

/// Lets SIGINT interrupt a system call (EINTR) rather than end the process; or asks the kernel to
/// begin the call anew.
fn catch_interrupts(restart: bool) -> Result<OsString> {
    extern "C" fn note(_signal: libc::c_int) {}
    // SAFETY: an all-zero sigaction is valid and has no flags, and the handler does nothing, which is
    // safe in a signal.
    let failed = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = note as *const () as usize;
        action.sa_flags = if restart { libc::SA_RESTART } else { 0 };
        libc::sigaction(libc::SIGINT, &raw const action, std::ptr::null_mut())
    };
    if failed == 0 { Ok(none(())) } else { Err(last_errno()) }
}

fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

fn one_line(value: &OsStr) -> Vec<u8> {
    value.as_bytes().split(|b| *b == b'\n').collect::<Vec<_>>().join(b"\\n".as_slice())
}

fn word<'a>(words: &[&'a OsStr], index: usize) -> Result<&'a OsStr> {
    words.get(index).copied().ok_or(Errno::INVAL)
}

fn number(words: &[&OsStr], index: usize) -> Result<u64> {
    word(words, index)?.to_str().and_then(|text| text.parse().ok()).ok_or(Errno::INVAL)
}

fn mode(words: &[&OsStr], index: usize) -> Result<Mode> {
    let text = word(words, index)?.to_str().ok_or(Errno::INVAL)?;
    u32::from_str_radix(text, 8).map(Mode::from_raw_mode).map_err(|_| Errno::INVAL)
}

fn none((): ()) -> OsString {
    OsString::new()
}

fn counted(count: impl ToString) -> OsString {
    count.to_string().into()
}
