//! Who is in the way of a waiter, who is in the way of that one, and so on.

use gate_api::wire::{Line, LineState};

/// Links that are shown, at most.
const LINKS_MAX: usize = 16;

/// The way from a waiter to whoever it all waits for.
#[derive(Debug, PartialEq, Eq)]
pub struct Chain<'a> {
    /// From the waiter's next on.
    pub links: Vec<Link<'a>>,
    /// Why it goes no further.
    pub end: End,
}

/// One claim on that way.
#[derive(Debug, PartialEq, Eq)]
pub struct Link<'a> {
    /// The claim.
    pub line: &'a Line,
    /// How it comes after the one before.
    pub by: By,
}

/// How one claim comes after another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// It is in the way; and as many more are.
    Conflict { others: usize },
    /// It is what the holder's process waits for itself.
    SameProcess,
}

/// Why a chain goes no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Its last holds and waits for nothing that is known here.
    Holder,
    /// Its last waits, and nobody who is listed is in its way.
    Nobody,
    /// Its last leads back to one of the chain.
    Circle,
    /// It is longer than what is shown.
    TooLong,
}

/// Follows a waiter. `lines` are in the order of their tickets.
pub fn of<'a>(lines: &'a [Line], waiter: &'a Line) -> Chain<'a> {
    let mut links: Vec<Link<'a>> = Vec::new();
    let mut last = waiter;
    let end = loop {
        let next = match &last.state {
            LineState::Waiting { behind, .. } => match blocker(lines, behind) {
                Some(line) => {
                    Link { line, by: By::Conflict { others: behind.len().saturating_sub(1) } }
                }
                None => break End::Nobody,
            },
            LineState::Held { .. } => match wait_of_process(lines, last) {
                Some(line) => Link { line, by: By::SameProcess },
                None => break End::Holder,
            },
        };
        if next.line == waiter || links.iter().any(|link| link.line == next.line) {
            break End::Circle;
        }
        if links.len() >= LINKS_MAX {
            break End::TooLong;
        }
        last = next.line;
        links.push(next);
    };
    Chain { links, end }
}

/// Returns the first in the way that is listed: as a holder, if it is one.
fn blocker<'a>(lines: &'a [Line], behind: &[u64]) -> Option<&'a Line> {
    let of_ticket = |ticket: &u64| {
        let first = lines.partition_point(|line| line.ticket < *ticket);
        lines.get(first).filter(|line| line.ticket == *ticket)
    };
    behind.iter().find_map(of_ticket)
}

fn wait_of_process<'a>(lines: &'a [Line], holder: &Line) -> Option<&'a Line> {
    let process = holder.process?;
    let waits = |line: &&Line| matches!(line.state, LineState::Waiting { .. });
    lines.iter().filter(waits).find(|line| line.process == Some(process))
}

#[cfg(test)]
mod tests {
    use gate_core::lock::claim::Process;

    use super::super::lines::{held, waits};
    use super::*;

    fn by(pid: u32, line: Line) -> Line {
        Line { process: Some(Process { namespace: 1, pid, start: 1 }), ..line }
    }

    #[track_caller]
    fn check(lines: &[Line], from: usize, expected: (&[u64], End)) {
        let chain = of(lines, &lines[from]);
        let tickets: Vec<u64> = chain.links.iter().map(|link| link.line.ticket).collect();
        assert_eq!((&*tickets, chain.end), expected);
    }

    #[test]
    fn a_chain_leads_through_waiters_to_the_holder_and_on_to_what_that_waits_for() {
        let lines = [
            by(9, held(1, "w g", 0)),
            by(8, held(2, "r f", 0)),
            by(7, waits(3, "w f", &[2])),
            by(6, waits(4, "r f", &[3])),
            by(8, waits(5, "w g", &[1])),
        ];
        check(&lines, 3, (&[3, 2, 5, 1], End::Holder));
        assert_eq!(of(&lines, &lines[3]).links[2].by, By::SameProcess);
    }

    #[test]
    fn a_circle_ends() {
        let lines = [
            by(1, held(1, "w f", 0)),
            by(2, held(2, "w g", 0)),
            by(1, waits(3, "w g", &[2])),
            by(2, waits(4, "w f", &[1])),
        ];
        check(&lines, 2, (&[2, 4, 1], End::Circle));
    }

    #[test]
    fn who_is_not_listed_ends_it() {
        check(&[waits(2, "w f", &[1])], 0, (&[], End::Nobody));
        let many: Vec<Line> = (1..40).map(|n| waits(n, "w f", &[n - 1])).collect();
        let chain = of(&many, &many[38]);
        assert_eq!((chain.links.len(), chain.end), (LINKS_MAX, End::TooLong));
    }
}
