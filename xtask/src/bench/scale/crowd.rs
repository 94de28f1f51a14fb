//! Many sessions in one thread, spoken to frame by frame.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gate_api::link::{Connection, Connector};
use gate_api::wire::{Acquire, ClientMessage, Hello, Party, ServerMessage};
use gate_api::{Address, process};
use gate_core::id::SpaceId;
use gate_core::lock::claim::{Caller, Label, Patience, Process};
use gate_core::lock::key::FileKey;
use gate_core::lock::want::{Access, Node, Op, Place, Want};
use gate_core::path::ViewPath;
use rustix::process::{Resource, Rlimit};

use crate::bench::turns::source;

/// How long the broker may take to answer.
const ANSWERED_WITHIN: Duration = Duration::from_secs(60);
/// The number by which all speak of their source.
const SPACE: SpaceId = SpaceId(1);
/// The file that all queue for.
const SHARED: u64 = u64::MAX;

/// Sessions that hold, and wait for one path.
pub struct Crowd {
    members: Vec<Member>,
    held: usize,
    /// Who has the shared path, and behind it who waits for it: member and owner.
    line: VecDeque<(usize, u64)>,
}

struct Member {
    number: u32,
    connection: Connection,
    owners: u64,
}

impl Crowd {
    /// Begins so many sessions.
    pub fn of(count: u32, state_dir: &Path, lease: Duration) -> io::Result<Crowd> {
        let members = (0..count).map(|number| Member::connect(number, state_dir, lease));
        Ok(Crowd { members: members.collect::<io::Result<_>>()?, held: 0, line: VecDeque::new() })
    }

    /// Lets its members hold until they hold so many in all, each on a path of its own.
    pub fn hold(&mut self, count: usize) -> io::Result<()> {
        let each = (count - self.held) / self.members.len();
        for member in &mut self.members {
            let owners: Vec<u64> = (0..each)
                .map(|_| {
                    self.held += 1;
                    member.ask(self.held as u64)
                })
                .collect();
            for owner in owners {
                member.hear_granted(owner)?;
            }
        }
        Ok(())
    }

    /// Lets them queue until so many wait for one path.
    pub fn queue(&mut self, count: usize) -> io::Result<()> {
        if self.line.is_empty() {
            let owner = self.members[0].ask(SHARED);
            self.members[0].hear_granted(owner)?;
            self.line.push_back((0, owner));
        }
        while self.line.len() <= count {
            self.queue_up(self.line.len() % self.members.len())?;
        }
        Ok(())
    }

    /// Hands the shared path on, and lets who had it queue again; returns the time from the release
    /// to the next one's yes.
    pub fn hand_on(&mut self) -> io::Result<Duration> {
        let (member, owner) = self.line.pop_front().expect("somebody has the shared path");
        let (next, waiter) = *self.line.front().expect("somebody waits");
        let released = Instant::now();
        self.members[member].say(&ClientMessage::Release { owner, change: None });
        self.members[next].hear_granted(waiter)?;
        let took = released.elapsed();
        self.queue_up(member)?;
        Ok(took)
    }

    /// Ends all sessions.
    pub fn say_goodbye(&mut self) {
        for member in &mut self.members {
            member.say(&ClientMessage::Goodbye);
        }
    }

    /// Does not return before the broker says that it waits: the order of the line is known.
    fn queue_up(&mut self, member: usize) -> io::Result<()> {
        let owner = self.members[member].ask(SHARED);
        self.members[member].hear(
            |said| matches!(said, ServerMessage::Waiting { owner: of, .. } if *of == owner),
        )?;
        self.line.push_back((member, owner));
        Ok(())
    }
}

impl Member {
    fn connect(number: u32, state_dir: &Path, lease: Duration) -> io::Result<Member> {
        let connection = Address::of_state_dir(state_dir).connect().map_err(io::Error::other)?;
        let mut member = Member { number, connection, owners: 0 };
        let hello = Hello {
            client: "gate mount /home/somebody/project".into(),
            process: process::own(),
            machine: process::machine(),
            lease: Some(lease),
            max_hold: None,
            resume: None,
            private: None,
        };
        member.say(&ClientMessage::Hello(hello));
        member.say(&ClientMessage::Attach { space: SPACE, source: source() });
        member.hear(|said| matches!(said, ServerMessage::Attached { .. }))?;
        Ok(member)
    }

    /// Asks to write a file as a view asks for one of its callers; returns the owner's number.
    fn ask(&mut self, file: u64) -> u64 {
        self.owners += 1;
        let path = format!("packages/p{}/src/module-{}/file-{file}.rs", file % 10, file % 1_000);
        let path = ViewPath::parse(path.as_bytes()).expect("a plain path");
        let node = Node::File(FileKey { volume: 1, inode: file, generation: 0 });
        // Each a process of its own, and none of this machine: nobody is to look for it here.
        let (namespace, pid) = (!process::namespace(), self.number);
        let process = Process { namespace, pid, start: self.owners };
        let acquire = Acquire {
            owner: self.owners,
            party: Party::Process(process),
            caller: Some(Caller { process, thread: pid, single_threaded: true }),
            patience: Patience::Endless,
            read_wait: None,
            label: Label {
                owner: format!("cc1plus ({pid})"),
                reason: String::new(),
                asked_at_ms: 0,
            },
            want: Want {
                op: Op::Open(Access::Write),
                places: vec![Place { space: SPACE, path: Some(path), node }],
            },
        };
        self.say(&ClientMessage::Acquire(Arc::new(acquire)));
        self.owners
    }

    fn say(&mut self, message: &ClientMessage) {
        self.connection.say(message);
    }

    fn hear_granted(&mut self, owner: u64) -> io::Result<()> {
        self.hear(|said| matches!(said, ServerMessage::Granted(grant) if grant.owner == owner))
    }

    /// Hears until the broker says what is expected.
    fn hear(&mut self, is_expected: impl Fn(&ServerMessage) -> bool) -> io::Result<()> {
        loop {
            match self.connection.incoming.receive(Some(ANSWERED_WITHIN)) {
                Ok(Some(said)) if is_expected(&said) => return Ok(()),
                Ok(Some(
                    refused @ (ServerMessage::Refused { .. } | ServerMessage::Revoked { .. }),
                )) => return Err(io::Error::other(format!("{refused:?}"))),
                Ok(Some(_)) => {}
                Ok(None) => return Err(io::ErrorKind::TimedOut.into()),
                Err(broken) => return Err(io::Error::other(format!("{broken:?}"))),
            }
        }
    }
}

/// Lets this process have a connection for each of a crowd.
pub fn raise_descriptor_limit() -> io::Result<()> {
    let hard = rustix::process::getrlimit(Resource::Nofile).maximum;
    rustix::process::setrlimit(Resource::Nofile, Rlimit { current: hard, maximum: hard })?;
    Ok(())
}
