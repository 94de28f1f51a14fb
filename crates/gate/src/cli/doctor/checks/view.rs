//! Of one view.

use std::path::Path;

use gate_api::wire::AttachRefusal;

use crate::cli::doctor::Finding;
use crate::cli::doctor::facts::view::{Answer, Outcome, Served, View};
use crate::processes::Server;

const CHECK: &str = "view";

pub fn one(view: &View) -> Finding {
    let point = view.point.display().to_string();
    let finding = match &view.outcome {
        Outcome::NotMounted => {
            let found = "no gated view is mounted there";
            Finding::fail(CHECK, found, format!("`gate mount SOURCE {point}`"))
        }
        Outcome::Hangs(server) => hangs(server.as_ref(), &view.point),
        Outcome::Unasked(why) => {
            Finding::warn(CHECK, format!("it could not be asked: {why}"), "try again")
        }
        Outcome::Answer(answer) => answered(answer, view),
    };
    finding.about(point)
}

fn answered(answer: &Answer, view: &View) -> Finding {
    let point = view.point.display();
    match answer {
        Answer::Serves(Served { source_removed: true, .. }) => {
            let found = "the directory behind it was removed, and nothing can be made in it";
            Finding::fail(CHECK, found, format!("`gate umount {point}`"))
        }
        Answer::Serves(Served { broker_gone: Some((why, mend)), .. }) => {
            let found = format!("it answers, but what needs a turn waits: {why}");
            Finding::fail(CHECK, found, mend.as_str())
        }
        Answer::Serves(Served { refused: Some(AttachRefusal { reason, fix }), .. }) => {
            let found =
                format!("it answers, but what needs a turn is refused by its broker: {reason}");
            Finding::fail(CHECK, found, fix.as_str())
        }
        Answer::Serves(Served { pid: Some(pid), .. }) => {
            Finding::ok(CHECK, format!("it answers, served by process {pid}"))
        }
        Answer::Serves(Served { pid: None, .. }) => {
            Finding::ok(CHECK, "it answers, served from another pid namespace")
        }
        Answer::Dead => {
            let mend = match view.is_in_place {
                true => format!("`gate mount {point}` puts a new one in its place"),
                false => format!("`gate umount {point}`, then mount it again"),
            };
            Finding::fail(CHECK, "its server has died, and every call there fails", mend)
        }
        Answer::Closed => Finding::skip(CHECK, "it is another user's, who alone may look at it"),
        Answer::Version(theirs) => {
            let found = format!("it speaks version {theirs}, and this gate does not");
            Finding::warn(CHECK, found, "use the release that mounted it, or mount it again")
        }
        Answer::Failed(error) => {
            let found = format!("it does not say what it is: {error}");
            Finding::fail(
                CHECK,
                found,
                format!("look into the log of its server, or `gate umount {point}`"),
            )
        }
    }
}

fn hangs(server: Option<&Server>, point: &Path) -> Finding {
    let point = point.display();
    match server {
        Some(Server { pid, is_stopped: true }) => {
            let found = format!("it hangs: its server, process {pid}, is stopped");
            Finding::fail(CHECK, found, format!("`kill -CONT {pid}`"))
        }
        Some(Server { pid, is_stopped: false }) => {
            let found = format!("it hangs: its server, process {pid}, does not answer");
            let mend = format!("`kill -KILL {pid}`, `gate umount {point}`, then mount it again");
            Finding::fail(CHECK, found, mend)
        }
        None => {
            let found = "it hangs: its server does not answer";
            let mend =
                format!("end that process (`gate mount … {point}`), then `gate umount {point}`");
            Finding::fail(CHECK, found, mend)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::Level;

    #[track_caller]
    fn check(outcome: Outcome, level: Level, said: &str) {
        let finding = one(&View { point: "/m".into(), is_in_place: false, outcome });
        assert_eq!(finding.level, level, "{finding:?}");
        assert_eq!(finding.subject.as_deref(), Some("/m"));
        let text = format!("{} {}", finding.found, finding.mend.unwrap_or_default());
        assert!(text.contains(said), "`{said}` is not in: {text}");
    }

    #[test]
    fn a_view_that_answers_is_as_good_as_its_broker() {
        let served = |served| Outcome::Answer(Answer::Serves(served));
        let broker = || "/b".to_owned();
        let serves = |pid, broker_gone| {
            let (broker, refused) = (broker(), None);
            served(Served { pid, broker, broker_gone, refused, source_removed: false })
        };
        check(serves(Some(7), None), Level::Ok, "process 7");
        check(serves(None, None), Level::Ok, "another pid namespace");
        let gone = Some(("nobody there".to_owned(), "`gate daemon start`".to_owned()));
        check(serves(Some(7), gone), Level::Fail, "waits: nobody there `gate daemon start`");
        let [reason, fix] = ["served by process 8", "stop it"].map(str::to_owned);
        let (pid, broker_gone) = (Some(7), None);
        let refused = Some(AttachRefusal { reason, fix });
        let refused = Served { pid, broker: broker(), broker_gone, refused, source_removed: false };
        check(served(refused), Level::Fail, "by its broker: served by process 8 stop it");
        let (broker_gone, refused) = (None, None);
        let removed = Served { pid, broker: broker(), broker_gone, refused, source_removed: true };
        check(served(removed), Level::Fail, "was removed, and nothing can be made in it `gate um");
    }

    #[test]
    fn a_view_that_does_not_answer_is_told_with_the_way_out() {
        check(Outcome::Answer(Answer::Dead), Level::Fail, "`gate umount /m`");
        let server = |is_stopped| Outcome::Hangs(Some(Server { pid: 7, is_stopped }));
        check(server(true), Level::Fail, "`kill -CONT 7`");
        check(server(false), Level::Fail, "`kill -KILL 7`, `gate umount /m`");
        check(Outcome::Hangs(None), Level::Fail, "`gate umount /m`");
        check(Outcome::NotMounted, Level::Fail, "`gate mount SOURCE /m`");
        check(Outcome::Answer(Answer::Failed("EIO".into())), Level::Fail, "EIO");
    }

    #[test]
    fn a_dead_view_over_its_own_source_is_not_unmounted_first() {
        let outcome = Outcome::Answer(Answer::Dead);
        let finding = one(&View { point: "/m".into(), is_in_place: true, outcome });
        assert!(finding.mend.is_some_and(|mend| mend.starts_with("`gate mount /m`")));
    }

    #[test]
    fn what_this_user_may_not_see_is_no_fault() {
        check(Outcome::Answer(Answer::Closed), Level::Skip, "another user's");
        check(Outcome::Answer(Answer::Version(9)), Level::Warn, "version 9");
        check(Outcome::Unasked("no room".into()), Level::Warn, "no room");
    }
}
