//! What is on the screen, as text.

use gate_api::mounts;
use gate_api::wire::{Line, Locks, Status};
use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::super::lines::{held, status, waits};
use super::super::picture::{Details, Order, OrderKind, Picture, Rates, Sheet};
use super::{Palette, draw};

fn picture(lines: Vec<Line>) -> Picture {
    let mut picture = Picture::new("/state/gate.sock".into(), 61_000);
    picture.views = mounts::parse(b"36 22 0:98 / /mnt rw - fuse.gate /src rw,user_id=0");
    picture.learn_status(status(1), 1_000);
    picture.rates = Rates { grants: Some(12.34), waits: Some(0.5) };
    picture.learn_locks(1, Locks { version: 1, lines, more: false });
    picture
}

fn some() -> Vec<Line> {
    vec![
        held(1, "w a/f", 58_000),
        held(2, "r b", 1_000),
        waits(3, "w a/f", &[1]),
        waits(4, "r a/f", &[1, 3]),
    ]
}

fn screen(picture: &mut Picture, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, picture, &Palette::plain())).unwrap();
    let buffer = terminal.backend().buffer();
    let row = |y: u16| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>();
    (0..height).map(|y| row(y).trim_end().to_owned() + "\n").collect()
}

/// A screen as text, each line after a `|`; a wide character is followed by the cell it covers.
#[track_caller]
fn check(picture: &mut Picture, size: (u16, u16), expected: &str) {
    let found = screen(picture, size.0, size.1);
    let expected = expected.lines().skip(1).map(|line| line.trim_start().trim_start_matches('|'));
    assert_eq!(found.lines().collect::<Vec<_>>(), expected.collect::<Vec<_>>(), "\n{found}");
}

#[test]
fn holders_waiters_and_the_chain_of_the_chosen_one() {
    let mut picture = picture(vec![held(9, "w a/f", 41_000)]);
    picture.learn_locks(1, Locks { version: 2, lines: some(), more: false });
    picture.choose_by(2);
    check(
        &mut picture,
        (80, 18),
        r"
        |gate top  /state/gate.sock, process 7, up 1m1s
        |3 held  2 waiting  4 sessions  12.3 grants/s  0.5 waits/s  1 refused
        |space default: /src, clients 1, shown at /mnt
        |STATE        MODE  PATH                         WHO              SINCE   STILL
        |held         write a/f                          owner1           3s
        |waiting #1   write a/f                          owner3           1m1s    ~17s
        |waiting #2   read  a/f                          owner4           1m1s    ~37s
        |held         read  b                            owner2           1m0s
        |
        |
        |
        |ticket 4 waits behind
        |  owner1 holds a/f to write since 3s (and 1 more)
        |
        |
        |
        |
        |? help  q quit | by longest line | rows 4",
    );
}

#[test]
fn a_wide_terminal_has_all_columns() {
    check(
        &mut picture(some()),
        (120, 12),
        r"
        |gate top  /state/gate.sock, process 7, up 1m1s
        |3 held  2 waiting  4 sessions  12.3 grants/s  0.5 waits/s  1 refused
        |STATE        MODE  OP       PATH                               WHO                      PID     SINCE   STILL   TICKET
        |held         write open     a/f                                owner1                           3s              1
        |waiting #1   write open     a/f                                owner3                           1m1s    ?       3
        |waiting #2   read  open     a/f                                owner4                           1m1s    ?       4
        |held         read  open     b                                  owner2                           1m0s            2
        |
        |
        |ticket 1: 2 wait behind it
        |
        |? help  q quit | by longest line | rows 4",
    );
}

#[test]
fn a_narrow_terminal_has_the_end_of_the_path() {
    let lines =
        vec![held(1, "w src/very/long/path/to/some/file.rs", 0), held(2, "w 漢字漢字漢字漢字", 0)];
    check(
        &mut picture(lines),
        (40, 10),
        r"
        |gate top  /state/gate.sock, process 7, u
        |3 held  2 waiting  4 sessions  12.3 gran
        |STATE        PATH     WHO        SINCE
        |held         …file.rs owner1     1m1s
        |held         …字 漢 字   owner2     1m1s
        |
        |
        |ticket 1: 0 wait behind it
        |
        |? help  q quit | by longest line | rows",
    );
}

#[test]
fn a_tiny_terminal_is_told_what_is_needed() {
    check(&mut picture(some()), (30, 1), "\nat least 40x10 needed");
}

#[test]
fn an_outage_a_pause_and_a_grace_are_told() {
    let mut picture = picture(vec![]);
    picture.learn_status(Status { in_grace: true, ..status(1) }, 2_000);
    let title = |picture: &mut Picture| screen(picture, 80, 10).lines().next().unwrap().to_owned();
    let expected = "gate top  GRACE: former sessions may still come back  /state/gate.sock";
    assert!(title(&mut picture).starts_with(expected), "{}", title(&mut picture));
    picture.away_since_ms = Some(59_000);
    picture.is_paused = true;
    check(
        &mut picture,
        (80, 10),
        r"
        |gate top  BROKER AWAY for 2s  PAUSED  /state/gate.sock, process 7, up 1m1s
        |3 held  2 waiting  4 sessions  0.0 grants/s  ? waits/s  1 refused
        |nobody holds anything and nobody waits
        |
        |
        |
        |
        |
        |
        |? help  q quit | by longest line | rows 0",
    );
}

#[test]
fn names_cannot_steer_the_terminal_and_bytes_are_shown() {
    let mut lines = vec![held(1, "w x", 0)];
    let path = gate_core::path::ViewPath::parse(b"a\x1b[2Jb\xff").unwrap();
    lines[0].places[0].path = Some(path);
    lines[0].reason = "\x07".into();
    check(
        &mut picture(lines),
        (80, 10),
        r"
        |gate top  /state/gate.sock, process 7, up 1m1s
        |3 held  2 waiting  4 sessions  12.3 grants/s  0.5 waits/s  1 refused
        |STATE        MODE  PATH                         WHO              SINCE   STILL
        |held         write a\u{1b}[2Jb\xff              owner1           1m1s
        |
        |
        |
        |ticket 1: 0 wait behind it
        |
        |? help  q quit | by longest line | rows 1",
    );
}

#[test]
fn details_and_help_lie_over_the_board() {
    let mut picture = picture(some());
    picture.sheet = Sheet::Help { scrolled: 0 };
    check(
        &mut picture,
        (80, 20),
        r"
        |gate top  /state/gate.sock, process 7, up 1m1s
        |3┌ j and k scroll, any other key goes back ───────────────────────────────────┐
        |s│up, down, j, k  choose a row; PgUp, PgDn, Home, End, g, G                   │
        |S│Enter           all about its path, as `gate why` tells it                  │
        |h│/               show only paths that contain what you type                  │
        |w│s               sort: longest line, oldest, path                            │
        |w│p               pause, go on                                                │
        |h│r               ask who holds to let go, as `gate recall`                   │
        | │b               take a lock away, for a reason, as `gate break`             │
        | │q, Esc, Ctrl-C  quit; Ctrl-Z suspends                                       │
        | │                                                                            │
        | │STILL is how much longer a waiter may wait: the holders in its way          │
        | │and the waiters before it are each taken to hold as long as the             │
        |t│median of those seen to end on the same path while this board ran.          │
        | │?: none was seen. overdue: the holder takes longer than usual.              │
        | │waits/s counts requests that could not be granted at once.                  │
        | │                                                                            │
        | │                                                                            │
        | └────────────────────────────────────────────────────────────────────────────┘
        |? help  q quit | by longest line | rows 4",
    );
    let scope = gate_api::wire::Scope::Everything;
    let text = Some("one\ntwo\nthree".to_owned());
    picture.sheet = Sheet::Details(Details { scope, text, scrolled: 1 });
    check(
        &mut picture,
        (60, 10),
        r"
        |gate top  /state/gate.sock, process 7, up 1m1s
        |3┌ j and k scroll, any other key goes back ───────────────┐1
        |S│two                                                     │
        |h│three                                                   │
        |w│                                                        │
        |w│                                                        │
        |h│                                                        │
        |t│                                                        │
        | └────────────────────────────────────────────────────────┘
        |? help  q quit | by longest line | rows 4",
    );
}

#[test]
fn an_order_is_asked_for_and_what_became_of_it_is_told() {
    let mut picture = picture(some());
    let foot = |picture: &mut Picture| screen(picture, 80, 10).lines().last().unwrap().to_owned();
    let reason = "it \x07 hangs".to_owned();
    picture.sheet = Sheet::Order(Order { what: OrderKind::Break, ticket: 1, reason });
    assert_eq!(foot(&mut picture), r"break ticket 1? Enter, or Esc. reason: it \u{7} hangs_");
    picture.sheet = Sheet::None;
    picture.notice = Some("ticket 1 is broken".into());
    assert_eq!(foot(&mut picture), "ticket 1 is broken");
}

#[test]
fn what_a_terminal_has_to_spare_goes_to_names_and_paths() {
    let widths = |total| [super::Column::Who, super::Column::Path].map(|c| c.width(total));
    let ([who, path], [who_wide, path_wide]) = (widths(80), widths(100));
    assert_eq!((who_wide - who, path_wide - path), (10, 10));
}
