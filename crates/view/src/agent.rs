//! Which agent a process speaks for.
//!
//! `gate run` names an agent in the environment of the command it becomes, and all that is
//! started below inherits that, however it detaches itself. To read an environment takes longer
//! than an open may; so what was read is kept for as long as the process runs the same program:
//! what it was started with is all that `/proc` ever shows.

use std::sync::{Arc, Mutex, PoisonError};

use gate_api::process::Image;
use gate_core::lock::claim::Process;

use crate::asker::{Identity, OwnerScope};
use crate::recent::Recent;

/// The variable by which `gate run` names an agent to all below it.
pub const AGENT_VARIABLE: &str = "GATE_AGENT";

/// The variable by which trees of processes are told apart whose agents have the same name.
pub const RUN_VARIABLE: &str = "GATE_AGENT_RUN";

/// How many processes are remembered with their agents.
const PROCESSES_MAX: usize = 4096;

/// Who a tree of processes, or a whole view, speaks for.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Agent {
    /// What people call it.
    pub name: String,
    /// Which `gate run` of that name it is.
    run: Option<Vec<u8>>,
    /// Both as one.
    pub tag: Arc<str>,
}

/// How agents are found.
#[derive(Debug)]
pub(crate) enum Agents {
    /// The view speaks for one.
    Whole(Arc<Agent>),
    /// By the process.
    Processes(Mutex<Recent<Process, Known>>),
}

/// What was found out of a process.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    image: Image,
    agent: Option<Arc<Agent>>,
}

impl Agents {
    /// Says how agents are found in a view.
    pub fn new(identity: &Identity) -> Agents {
        let whole = |name: &str| Agents::Whole(Arc::new(Agent::new(name.to_owned(), None)));
        if let Some(agent) = &identity.agent {
            return whole(agent);
        }
        match identity.scope {
            OwnerScope::Mount if identity.owner.is_empty() => whole("the view"),
            OwnerScope::Mount => whole(&identity.owner),
            OwnerScope::Handle | OwnerScope::Process | OwnerScope::Agent => {
                Agents::Processes(Mutex::new(Recent::of_at_most(PROCESSES_MAX)))
            }
        }
    }

    /// Returns the agent of a caller, as far as it may be known.
    pub fn of(&self, caller: Option<(Process, Image)>) -> Option<Arc<Agent>> {
        let known = match self {
            Agents::Whole(agent) => return Some(agent.clone()),
            Agents::Processes(known) => known,
        };
        let (process, image) = caller?;
        let lock = || known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = lock().get(&process)
            && known.image == image
        {
            return known.agent.clone();
        }
        let environment = std::fs::read(format!("/proc/{}/environ", process.pid));
        let agent = environment.ok().and_then(|found| Agent::named_in(&found)).map(Arc::new);
        lock().insert(process, Known { image, agent: agent.clone() });
        agent
    }
}

impl Agent {
    fn new(name: String, run: Option<Vec<u8>>) -> Agent {
        let tag = match &run {
            Some(run) => format!("{name} {}", run.escape_ascii()).into(),
            None => name.as_str().into(),
        };
        Agent { name, run, tag }
    }

    fn named_in(environment: &[u8]) -> Option<Agent> {
        let value = |name: &str| {
            let mut variables = environment.split(|byte| *byte == 0);
            variables.find_map(|variable| {
                variable.strip_prefix(name.as_bytes())?.strip_prefix(b"=").map(<[u8]>::to_vec)
            })
        };
        let name =
            String::from_utf8(value(AGENT_VARIABLE)?).ok().filter(|name| !name.is_empty())?;
        Some(Agent::new(name, value(RUN_VARIABLE)))
    }

    #[cfg(test)]
    pub fn called(name: &str) -> Arc<Agent> {
        Arc::new(Agent::new(name.to_owned(), None))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::process::{Command, Stdio};

    use gate_api::process::Stat;

    use super::*;

    #[test]
    fn the_environment_names_an_agent_and_its_run() {
        let named = |text: &str| Agent::named_in(text.as_bytes());
        let ada = named("A=1\0GATE_AGENT=ada\0GATE_AGENT_RUN=7\0").unwrap();
        assert_eq!((ada.name.as_str(), ada.run.as_deref()), ("ada", Some(&b"7"[..])));
        assert_ne!(named("GATE_AGENT=ada\0GATE_AGENT_RUN=8\0").unwrap(), ada);
        assert_eq!(named("GATE_AGENT=\0"), None);
        assert_eq!(named("XGATE_AGENT=ada\0GATE_AGENTS=ada\0"), None);
    }

    /// A shell that becomes `gate run`'s command keeps its number and its start.
    #[test]
    fn who_becomes_an_agent_by_exec_is_one() {
        let identity = Identity {
            scope: OwnerScope::Process,
            owner: String::new(),
            agent: None,
            acquire_timeout: None,
        };
        let agents = Agents::new(&identity);
        let mut shell = Command::new("sh")
            .args(["-c", "echo x; read go; GATE_AGENT=ada exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let pid = shell.id();
        let agent = || {
            let process = gate_api::process::of_pid(pid).unwrap();
            let found = agents.of(Some((process, Stat::read(pid).unwrap().image)));
            found.map(|agent| agent.name.clone())
        };
        let mut out = shell.stdout.take().unwrap();
        out.read_exact(&mut [0; 2]).unwrap();
        assert_eq!((agent(), agent()), (None, None));
        shell.stdin.as_mut().unwrap().write_all(b"go\nx").unwrap();
        out.read_exact(&mut [0]).unwrap();
        assert_eq!((agent(), agent()), (Some("ada".into()), Some("ada".into())));
        drop(shell.stdin.take());
        shell.wait().unwrap();
    }
}
