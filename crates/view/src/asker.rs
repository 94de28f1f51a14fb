//! Who asks: from the thread behind a request to a party at the broker.

use std::sync::Arc;
use std::time::Duration;

use gate_api::process;
use gate_api::session::Party;
use gate_core::lock::claim::{Caller, Label, Patience, Process};
use gate_core::lock::limits::TEXT_BYTES_MAX;

use crate::agent::{Agent, Agents};
use crate::source::Who;

/// How long a caller that cannot be told from others may wait: it could not be interrupted.
const UNKNOWN_WAITS_MAX: Duration = Duration::from_millis(50);

/// Who counts as one owner's kin from the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnerScope {
    /// Nobody: each open file is on its own.
    Handle,
    /// The handles of one process.
    Process,
    /// The handles of all processes of one agent.
    Agent,
    /// All handles of the mount.
    Mount,
}

/// The caller of one request.
#[derive(Clone, Debug)]
pub(crate) struct Asker {
    /// `None` if it lies beyond this pid namespace.
    pub caller: Option<Caller>,
    pub party: Party,
    pub patience: Patience,
    /// Whom it speaks for.
    pub agent: Option<Arc<Agent>>,
}

impl Asker {
    pub fn process(&self) -> Option<Process> {
        self.caller.map(|caller| caller.process)
    }

    pub fn who(&self) -> Who {
        Who { process: self.process(), agent: self.agent.as_ref().map(|agent| agent.tag.clone()) }
    }

    /// Returns the calling thread; 0 if it lies beyond this pid namespace.
    pub fn thread(&self) -> u32 {
        self.caller.map_or(0, |caller| caller.thread)
    }
}

/// How a view tells callers apart and what it says of them.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Who is one party.
    pub scope: OwnerScope,
    /// What all owners are called; empty: by their process.
    pub owner: String,
    /// The agent that all callers speak for, whoever they are; `None`: each its own.
    pub agent: Option<String>,
    /// How long calls wait; `None`: until they are interrupted.
    pub acquire_timeout: Option<Duration>,
}

impl Identity {
    /// Finds out who a thread is.
    pub(crate) fn asker(&self, thread: u32, agents: &Agents) -> Asker {
        let seen = process::of_thread(thread);
        let agent = agents.of(seen.map(|(caller, image)| (caller.process, image)));
        let caller = seen.map(|(caller, _)| caller);
        let process = caller.map(|caller| caller.process);
        let party = match (self.scope, process) {
            (OwnerScope::Mount, _) => Party::Session,
            (OwnerScope::Handle, _) | (_, None) => Party::Owner,
            (OwnerScope::Process, Some(process)) => Party::Process(process),
            (OwnerScope::Agent, Some(process)) => match &agent {
                Some(agent) => Party::Named(format!("agent {}", agent.name)),
                None => Party::Process(process),
            },
        };
        let patience = match (caller, self.acquire_timeout) {
            (None, _) => Patience::Limited(UNKNOWN_WAITS_MAX),
            (Some(_), Some(limit)) => Patience::Limited(limit),
            (Some(_), None) => Patience::Endless,
        };
        Asker { caller, party, patience, agent }
    }

    /// Says of a caller what the broker tells of it, and the log after its end: whose it is.
    pub(crate) fn label(&self, asker: &Asker) -> Label {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let asked_at_ms = now.map(|now| u64::try_from(now.as_millis()).unwrap_or(u64::MAX));
        Label {
            owner: self.owner_of(asker),
            reason: String::new(),
            asked_at_ms: asked_at_ms.unwrap_or_default(),
        }
    }

    fn owner_of(&self, asker: &Asker) -> String {
        let agent = match self.scope {
            // The whole view is one.
            OwnerScope::Mount => None,
            OwnerScope::Handle | OwnerScope::Process | OwnerScope::Agent => asker.agent.as_ref(),
        };
        match agent.filter(|_| self.owner.is_empty()) {
            // Whoever names an agent at too great a length still gets its turns.
            Some(agent) => agent.name[..agent.name.floor_char_boundary(TEXT_BYTES_MAX)].to_owned(),
            None => self.owner.clone(),
        }
    }
}
