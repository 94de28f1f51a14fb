//! `gate top`

mod chain;
mod draw;
mod forecast;
mod keys;
#[cfg(test)]
mod lines;
mod news;
mod picture;
mod screen;

use std::io::{self, IsTerminal as _};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use gate_api::{ClientInfo, Watcher};
use rustix::process::Signal;

use crate::board;
use crate::config::Settings;
use crate::failure::{Exit, Failure};
use crate::reach::{BrokerFlags, Wanted};
use draw::Palette;
use keys::Deed;
use news::{Asker, Ear, News, Question};
use picture::{Picture, Sheet};
use screen::Screen;

/// The shortest time between two frames.
const FRAME: Duration = Duration::from_millis(100);
/// The longest: the board says for how long things have lasted.
const TICK: Duration = Duration::from_secs(1);
/// Claims that may be asked for in each frame's time: a longer list is asked for more rarely.
const CLAIMS_PER_FRAME: usize = 2_048;

/// Watch who holds and who waits, live
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    broker: BrokerFlags,
}

/// The board while it runs.
struct Top {
    picture: Picture,
    screen: Screen,
    palette: Palette,
    asker: Asker,
    news: Receiver<News>,
    /// When the locks are to be asked for again; `None` while an answer is awaited.
    locks_due: Option<Instant>,
    is_status_asked: bool,
}

/// What news lead to.
enum Step {
    /// There is something to draw.
    Changed,
    /// There is not.
    Unchanged,
    End(Exit),
}

impl Args {
    pub fn run(self) -> Result<Exit, Failure> {
        must_be_terminal()?;
        let (tell, news) = mpsc::channel();
        news::listen_to_signals(tell.clone())?;
        let client = ClientInfo::named("gate top");
        let ear: Arc<dyn Watcher> = Arc::new(Ear(tell.clone()));
        let wanted = Wanted::find(&self.broker, &Settings::load()?)?;
        let reached = wanted.reach_one(&client, &ear)?;
        let asker = Asker::start(&reached.session, &tell);
        let screen = Screen::take().map_err(no_terminal)?;
        news::listen_to_keys(tell);
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let palette = if plain { Palette::plain() } else { Palette::colourful() };
        let picture = Picture::new(reached.address.to_string(), board::now_ms());
        let locks_due = Some(Instant::now());
        let is_status_asked = false;
        Top { picture, screen, palette, asker, news, locks_due, is_status_asked }.run()
    }
}

impl Top {
    fn run(mut self) -> Result<Exit, Failure> {
        let mut tick = Instant::now();
        let mut frame = tick;
        let mut is_new = true;
        loop {
            let now = Instant::now();
            if now >= tick {
                tick = now + TICK;
                is_new |= self.tick();
            }
            if self.locks_due.is_some_and(|due| now >= due) && self.wants_news() {
                self.locks_due = None;
                self.asker.ask_locks(self.picture.version());
            }
            if is_new && now >= frame {
                self.draw()?;
                (is_new, frame) = (false, now + FRAME);
            }
            let next_draw = is_new.then_some(frame);
            let next_locks = self.locks_due.filter(|_| self.wants_news());
            let next = [next_draw, next_locks].into_iter().flatten().fold(tick, Instant::min);
            match self.news.recv_timeout(next.saturating_duration_since(now)) {
                Ok(news) => match self.hear(news)? {
                    Step::Changed => is_new = true,
                    Step::Unchanged => {}
                    Step::End(exit) => return Ok(exit),
                },
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(Exit::Success),
            }
        }
    }

    /// Lets time pass on the board; returns whether there is something to draw.
    fn tick(&mut self) -> bool {
        if self.picture.is_paused {
            return false;
        }
        self.picture.now_ms = board::now_ms();
        self.picture.age();
        if self.wants_news() && !self.is_status_asked {
            self.is_status_asked = true;
            self.asker.ask(Question::Status);
            if let Sheet::Details(details) = &self.picture.sheet {
                self.asker.ask(Question::Why(details.scope.clone()));
            }
        }
        true
    }

    fn wants_news(&self) -> bool {
        !self.picture.is_paused && self.picture.away_since_ms.is_none()
    }

    fn draw(&mut self) -> Result<(), Failure> {
        let Top { screen, picture, palette, .. } = self;
        screen.draw(|frame| draw::draw(frame, picture, palette)).map_err(no_terminal)
    }

    fn hear(&mut self, news: News) -> Result<Step, Failure> {
        match news {
            News::Key(key) => return self.press(key),
            News::Resized => {}
            News::Deaf => return Ok(Step::End(Exit::Success)),
            News::Signalled(Signal::TSTP) => self.screen.suspend().map_err(no_terminal)?,
            News::Signalled(signal) => return Ok(Step::End(ended_by(signal))),
            News::Locks(answer) => {
                let claims = self.picture.lines().len();
                let frames = 1 + u32::try_from(claims / CLAIMS_PER_FRAME).unwrap_or(u32::MAX - 1);
                self.locks_due = Some(Instant::now() + FRAME.saturating_mul(frames));
                // Who was away says so by itself.
                let (Ok((epoch, locks)), false) = (answer, self.picture.is_paused) else {
                    return Ok(Step::Unchanged);
                };
                self.picture.now_ms = board::now_ms();
                self.picture.learn_locks(epoch, locks);
            }
            News::Status(answer, views) => {
                self.is_status_asked = false;
                let (Ok(status), false) = (answer, self.picture.is_paused) else {
                    return Ok(Step::Unchanged);
                };
                self.picture.views = views;
                self.picture.learn_status(*status, board::now_ms());
            }
            News::Why(scope, text) => match &mut self.picture.sheet {
                Sheet::Details(details) if details.scope == scope => details.text = Some(text),
                _ => return Ok(Step::Unchanged),
            },
            News::Ordered(outcome) => self.picture.notice = Some(outcome),
            News::Away => self.picture.away_since_ms = Some(board::now_ms()),
            News::Back => {
                self.picture.away_since_ms = None;
                self.picture.forget_version();
            }
        }
        Ok(Step::Changed)
    }

    fn press(&mut self, key: ratatui::crossterm::event::KeyEvent) -> Result<Step, Failure> {
        match keys::press(&mut self.picture, key) {
            Deed::None => {}
            Deed::Quit => return Ok(Step::End(Exit::Success)),
            // The whole group stops, whoever is in it; this process once it hears of it.
            Deed::Suspend => {
                rustix::process::kill_current_process_group(Signal::TSTP)
                    .map_err(|errno| no_terminal(errno.into()))?;
            }
            Deed::Order(order) => self.asker.ask(Question::Order(order)),
            Deed::AskWhy(scope) => self.asker.ask(Question::Why(scope)),
        }
        Ok(Step::Changed)
    }
}

fn ended_by(signal: Signal) -> Exit {
    Exit::Signal(u8::try_from(signal.as_raw()).unwrap_or(0))
}

fn must_be_terminal() -> Result<(), Failure> {
    let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    if io::stdout().is_terminal() && !is_dumb {
        return Ok(());
    }
    let cause = if is_dumb { "TERM says that it is dumb" } else { "the output is not a terminal" };
    Err(Failure::new("cannot show a board here", cause, "use `gate locks --watch`")
        .exit(Exit::Unable))
}

fn no_terminal(error: io::Error) -> Failure {
    Failure::new("cannot use this terminal", error, "use `gate locks --watch`").exit(Exit::Unable)
}
