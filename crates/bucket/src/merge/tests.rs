//! What merges, and the laws of it.

use proptest::prelude::*;

use super::*;

fn merged(base: &str, sides: &[&str]) -> Option<String> {
    let merged = merge(base.as_bytes(), sides.iter().map(|side| side.as_bytes()));
    merged.map(|bytes| String::from_utf8(bytes).unwrap())
}

/// Says in short: a letter for each line, and what has no line end at the end of it by a dot.
fn check(base: &str, sides: &[&str], expected: Option<&str>) {
    let long = |short: &str| {
        let text: String = short.chars().map(|letter| format!("{letter}\n")).collect();
        text.strip_suffix(".\n").map_or(text.clone(), |text| text.trim_end().to_owned())
    };
    let sides: Vec<_> = sides.iter().map(|side| long(side)).collect();
    let sides: Vec<_> = sides.iter().map(String::as_str).collect();
    let found = merged(&long(base), &sides);
    assert_eq!(found, expected.map(long), "{base}: {sides:?}");
}

#[test]
fn what_two_change_with_a_line_between_is_one_and_what_touches_is_not() {
    check("abcde", &["Abcde", "abcdE"], Some("AbcdE"));
    check("abcde", &["abcde", "abcdE"], Some("abcdE"));
    check("abc", &["Abc", "aBc"], None);
    check("abc", &["Abc", "abC"], Some("AbC"));
    check("abc", &["xabc", "abcy"], Some("xabcy"));
    check("abc", &["bc", "ab"], Some("b"));
    // Both insert at one place, or one inserts beside what the other changes.
    check("abc", &["axbc", "aybc"], None);
    check("abc", &["axbc", "aBc"], None);
    check("abcd", &["axbcd", "abCd"], Some("axbCd"));
    // The same is no contradiction, alone or in what is changed otherwise.
    check("abc", &["aXc", "aXc"], Some("aXc"));
    check("abcdef", &["aXcdef", "aXcdeF"], Some("aXcdeF"));
    check("abc", &["aXYc", "aXc"], None);
    check("abc", &["ac", "ac"], Some("ac"));
    check("abc", &["", "abc"], Some(""));
    check("abc", &["", "aBc"], None);
    check("", &["x", "y"], None);
    check("", &["x", "x"], Some("x"));
    check("", &["", "x"], Some("x"));
    check("", &["", ""], Some(""));
}

#[test]
fn the_end_of_the_last_line_belongs_to_it() {
    check("abc.", &["Abc.", "abcd."], Some("Abcd."));
    check("abc.", &["Abc.", "abc"], Some("Abc"));
    check("abc", &["abcd", "abc."], None);
    check("abc.", &["abcd.", "abc"], None);
    // A line that ends as elsewhere is another line.
    assert_eq!(merged("a\nb\nc\n", &["a\r\nb\nc\n", "a\nb\nC\n"]).unwrap(), "a\r\nb\nC\n");
}

#[test]
fn several_merge_each_into_what_the_others_became() {
    check("abcde", &["Abcde", "abCde", "abcdE"], Some("AbCdE"));
    check("abcde", &["Abcde", "abCde", "aBcde"], None);
    check("abcde", &["Abcde"], Some("Abcde"));
    check("abcde", &[], None);
}

#[test]
fn what_is_no_text_or_long_does_not_merge() {
    let (base, one) = ("a\nb\nc\n", "A\nb\nc\n");
    let merges = |base: &[u8], other: &[u8]| merge(base, [one.as_bytes(), other]).is_some();
    assert!(merges(base.as_bytes(), "a\nb\nC\u{e9}\n".as_bytes()));
    assert!(!merges(base.as_bytes(), b"a\nb\nC\0\n"));
    assert!(!merges(base.as_bytes(), b"a\nb\nC\xff\n"));
    assert!(!merges(b"a\nb\n\xff\n", base.as_bytes()));
    let long = |len: usize| [base.as_bytes(), &vec![b'x'; len - base.len()]].concat();
    assert!(merges(base.as_bytes(), &long(TEXT_BYTES_MAX)));
    assert!(!merges(base.as_bytes(), &long(TEXT_BYTES_MAX + 1)));
    let many = |lines: usize| base.to_owned() + &"x\n".repeat(lines - 3);
    assert!(merges(base.as_bytes(), many(LINES_MAX).as_bytes()));
    assert!(!merges(base.as_bytes(), many(LINES_MAX + 1).as_bytes()));
    // Each of them is short enough, and both together are not.
    let half = vec![b'x'; TEXT_BYTES_MAX / 2];
    let (before, behind) =
        ([&half, &b"\n"[..], base.as_bytes()].concat(), [base.as_bytes(), &half].concat());
    assert!(merge(base.as_bytes(), [&before[..], &behind]).is_none());
}

/// Lines of a few kinds, and so many that are met again and again.
fn text() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(0..12_u8, 0..24)
}

/// Edits, far from each other and near.
fn edited() -> impl Strategy<Value = (Vec<u8>, Vec<u8>, Vec<u8>)> {
    let edit = || {
        prop::collection::vec(
            (0..24_usize, 0..3_usize, prop::collection::vec(12..16_u8, 0..3)),
            0..4,
        )
    };
    (text(), edit(), edit()).prop_map(|(base, one, other)| {
        let apply = |edits: Vec<(usize, usize, Vec<u8>)>| {
            let mut side = base.clone();
            for (at, gone, new) in edits {
                let at = at.min(side.len());
                side.splice(at..(at + gone).min(side.len()), new);
            }
            side
        };
        let (one, other) = (apply(one), apply(other));
        (base, one, other)
    })
}

fn written(lines: &[u8]) -> String {
    lines.iter().map(|line| format!("line {line}\n")).collect()
}

proptest! {
    #[test]
    fn it_is_no_matter_who_is_first((base, one, other) in edited()) {
        let [base, one, other] = [base, one, other].map(|lines| written(&lines));
        prop_assert_eq!(merged(&base, &[&one, &other]), merged(&base, &[&other, &one]));
        prop_assert_eq!(merged(&base, &[&one, &base]), Some(one.clone()));
        prop_assert_eq!(merged(&base, &[&one, &one]), Some(one.clone()));
        prop_assert_eq!(merged(&one, &[&one, &other]), Some(other.clone()));
    }

    /// Each line has a number of its own: what anybody put there is there, what both left alone too, and nothing else.
    #[test]
    fn n13_no_line_that_somebody_wrote_is_lost(
        len in 1..40_usize,
        ones in prop::collection::btree_map(0..40_usize, 0..3_u8, 0..6),
        others in prop::collection::btree_map(0..40_usize, 0..3_u8, 0..6),
    ) {
        let base: Vec<_> = (0..len).map(|n| format!("{n}\n")).collect();
        let side = |edits: &std::collections::BTreeMap<usize, u8>, who: &str| {
            let line = |(n, line): (usize, &String)| match edits.get(&n) {
                None => vec![line.clone()],
                Some(0) => vec![],
                Some(1) => vec![format!("{n} of {who}\n")],
                Some(_) => vec![line.clone(), format!("after {n} of {who}\n")],
            };
            base.iter().enumerate().flat_map(line).collect::<Vec<_>>()
        };
        let (one, other) = (side(&ones, "one"), side(&others, "other"));
        let both = merged(&base.concat(), &[&one.concat(), &other.concat()]);
        let places = |edits: &std::collections::BTreeMap<usize, u8>| {
            edits.keys().copied().filter(|n| *n < len).collect::<Vec<_>>()
        };
        let (here, there) = (places(&ones), places(&others));
        let is_apart = here.iter().all(|n| there.iter().all(|m| n.abs_diff(*m) > 1));
        prop_assert!(both.is_some() || !is_apart);
        let Some(both) = both else { return Ok(()) };
        // Who has merged it and who has not come to the same.
        let again = merged(&base.concat(), &[&both, &one.concat()]);
        prop_assert_eq!(again.as_ref(), Some(&both));
        let both: Vec<String> = both.split_inclusive('\n').map(str::to_owned).collect();
        let has = |lines: &[String], line: &String| lines.contains(line);
        for line in one.iter().chain(&other).filter(|line| !has(&base, line)) {
            prop_assert!(has(&both, line), "{line} is lost");
        }
        for line in &base {
            prop_assert_eq!(has(&both, line), has(&one, line) && has(&other, line));
        }
        prop_assert!(both.iter().all(|line| has(&one, line) || has(&other, line)));
    }
}

/// Peers see the same whatever they were built of: if this fails, the rule has changed, and that is another version of
/// it.
#[test]
fn the_rule_is_what_it_was() {
    // The same numbers everywhere and always.
    let mut seed = 1_u64;
    let mut next = |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    let mut told = Vec::new();
    let mut clean = 0;
    for round in 0..400_u64 {
        let (len, kinds) = (next(60 + round), 3 + next(40));
        let base: Vec<u64> = (0..len).map(|_| next(kinds)).collect();
        let sides = [0, 1, 2].map(|_| {
            let mut side = base.clone();
            for _ in 0..next(4) {
                let at = next(side.len() as u64 + 1) as usize;
                let gone = next(4) as usize;
                let end = (at + gone).min(side.len());
                let new: Vec<_> = (0..next(4)).map(|_| next(kinds + 2)).collect();
                side.splice(at..end, new);
            }
            side
        });
        let text = |lines: &[u64]| lines.iter().map(|n| format!("{n}\n")).collect::<String>();
        let sides = sides.map(|side| text(&side));
        let some: Vec<&str> =
            sides[..2 + (round % 2) as usize].iter().map(String::as_str).collect();
        let merged = merged(&text(&base), &some);
        clean += u32::from(merged.is_some());
        told.extend(merged.map_or(b"no".to_vec(), String::into_bytes));
        told.push(0);
    }
    let hash = blake3::hash(&told).to_hex();
    let known = "b7c22016a6d9c163699df953f770a21d8e9915cf584068d5165e6d370d504a99";
    assert_eq!((clean, hash.as_str()), (339, known));
}
