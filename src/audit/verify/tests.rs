//! Stories of chains at rest: whole ones, changed ones, and files in any order.

use std::fs;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::audit::chain::Chain;

/// `count` chained lines, each with its newline.
fn chained(count: u64) -> Vec<Vec<u8>> {
    let mut chain = Chain::new();
    (1..=count)
        .map(|number| {
            let mut line = Vec::new();
            let body = format!(r#","time":"2026-01-02T03:04:05.000000Z","kind":"reload","text":"ü{number}""#);
            chain.seal(body.as_bytes(), &mut line);
            line
        })
        .collect()
}

/// Writes each of `files` to a file, and verifies them in this order.
fn verify_bytes(files: &[Vec<u8>]) -> Result<Verified, (usize, u64, String)> {
    let folder = TempDir::new().unwrap();
    let paths: Vec<_> = (0..files.len()).map(|index| folder.path().join(index.to_string())).collect();
    for (path, bytes) in paths.iter().zip(files) {
        fs::write(path, bytes).unwrap();
    }
    verify(&paths).map_err(|unverified| {
        let broken = match unverified {
            Unverified::Broken(broken) => broken,
            other => panic!("{other}"),
        };
        let index = paths.iter().position(|path| *path == broken.file).unwrap();
        (index, broken.line, broken.why)
    })
}

fn place(outcome: Result<Verified, (usize, u64, String)>) -> (usize, u64) {
    outcome.map_err(|(file, line, _)| (file, line)).unwrap_err()
}

#[test]
fn an_untouched_chain_over_files_is_whole_and_names_its_last_hash() {
    let lines = chained(5);
    let files = [lines[..2].concat(), Vec::new(), lines[2..].concat()];
    let verified = verify_bytes(&files).unwrap();
    assert_eq!((verified.records, verified.first, verified.last), (5, 1, 5));
    assert_eq!(verified.last_hash, hash(lines[4].trim_ascii_end()).as_str());
    assert!(verified.to_string().starts_with("5 records, seq 1 to 5, unbroken from the beginning"));
}

#[test]
fn a_chain_whose_beginning_is_not_at_hand_says_from_where_it_was_checked() {
    let verified = verify_bytes(&[chained(5)[2..].concat()]).unwrap();
    assert_eq!((verified.records, verified.first, verified.last), (3, 3, 5));
    assert!(verified.to_string().contains("unbroken from seq 3 on"), "{verified}");
}

/// A chain of `count` lines of which line `at` tells that the file up to line `last` with this hash was removed.
fn telling(count: u64, at: u64, last: u64, last_hash: &str) -> Vec<Vec<u8>> {
    let mut chain = Chain::new();
    let line = |number| {
        let mut line = Vec::new();
        let body = match number == at {
            true => format!(r#","kind":"expired","file":"a","first":1,"last":{last},"last_hash":"{last_hash}""#),
            false => r#","kind":"reload""#.to_owned(),
        };
        chain.seal(body.as_bytes(), &mut line);
        line
    };
    (1..=count).map(line).collect()
}

#[test]
fn a_beginning_that_was_removed_by_rule_is_told_from_one_that_is_missing() {
    let hash_of = |line: &[u8]| hash(line.trim_ascii_end()).as_str().to_owned();
    let original = chained(2);
    let second = hash_of(&telling(2, 0, 0, "")[1]);
    let told = |lines: &[Vec<u8>]| verify_bytes(&[lines.concat()]).unwrap();
    for (lines, before, why) in [
        (telling(5, 4, 2, &second), Before::Expired(4), "the record names the end of what is gone"),
        (telling(5, 4, 1, &second), Before::NotGiven, "it names another end"),
        (telling(5, 4, 2, &hash_of(&original[1])), Before::NotGiven, "it names another hash"),
        (telling(5, 2, 2, &second), Before::NotGiven, "the record itself is gone"),
    ] {
        let verified = told(&lines[2..]);
        assert_eq!((verified.first, verified.before), (3, before), "{why}");
    }
    let verified = told(&telling(5, 4, 2, &second)[2..]);
    assert!(verified.to_string().contains("removed by `keep` or `keep_age`, as seq 4 tells"), "{verified}");
    assert_eq!(told(&telling(5, 4, 2, &second)).before, Before::Nothing, "all of it is there");
    assert_eq!(told(&telling(5, 4, 2, &second)[3..]).before, Before::NotGiven, "more is gone than the record tells");
}

/// Writes each of `files` under its name in a folder.
fn lay(files: &[(&str, Vec<u8>)]) -> (TempDir, Vec<PathBuf>) {
    let folder = TempDir::new().unwrap();
    let paths: Vec<_> = files.iter().map(|(name, _)| folder.path().join(name)).collect();
    for (path, (_, bytes)) in paths.iter().zip(files) {
        fs::write(path, bytes).unwrap();
    }
    (folder, paths)
}

#[test]
fn files_in_any_order_are_sorted_by_their_first_record() {
    let lines = chained(9);
    let all = [("b", lines[..3].concat()), ("c", lines[3..6].concat()), ("a", lines[6..].concat()), ("empty", Vec::new())];
    let (_folder, paths) = lay(&all);
    let right = [0, 1, 2, 3];
    for order in [[0, 1, 2, 3], [3, 0, 1, 2], [0, 3, 1, 2], [2, 1, 0, 3], [1, 0, 2, 3], [3, 2, 0, 1], [2, 0, 3, 1]] {
        let given: Vec<_> = order.iter().map(|index| paths[*index].clone()).collect();
        let sorted = sorted(&given).unwrap();
        let is_right = order.iter().filter(|index| **index != 3).is_sorted();
        assert_eq!(sorted.is_none(), is_right, "{order:?}");
        if let Some(sorted) = &sorted {
            assert_eq!(*sorted, right.map(|index| paths[index].clone()), "{order:?}");
        }
        assert_eq!(verify(&sorted.unwrap_or(given)).unwrap().records, 9);
    }
}

#[test]
fn a_file_whose_first_line_was_changed_keeps_its_place_and_is_the_one_that_is_named() {
    let lines = chained(9);
    let damaged = [
        b"garbage
"
        .to_vec(),
        lines[4].clone(),
        lines[5].clone(),
    ]
    .concat();
    let (_folder, paths) = lay(&[("3", lines[6..].concat()), ("2", damaged), ("1", lines[..3].concat())]);
    let sorted = sorted(&paths).unwrap().unwrap();
    assert_eq!(sorted, [&paths[2], &paths[1], &paths[0]].map(Clone::clone));
    let unverified = verify(&sorted).unwrap_err();
    assert!(matches!(&unverified, Unverified::Broken(broken) if broken.file == paths[1] && broken.line == 1), "{unverified}");
}

#[test]
fn what_cannot_be_read_is_not_called_broken() {
    let (folder, mut paths) = lay(&[("log", chained(2).concat())]);
    paths.push(folder.path().join("typo"));
    for outcome in [verify(&paths).map(drop), sorted(&paths).map(drop)] {
        let missing = outcome.unwrap_err();
        assert!(matches!(&missing, Unverified::Missing(file) if *file == paths[1]), "{missing}");
        assert!(missing.to_string().ends_with("typo: there is no such file"), "{missing}");
    }
    let unreadable = verify(&[folder.path().to_owned()]).unwrap_err();
    assert!(matches!(unreadable, Unverified::Unreadable { .. }), "{unreadable}");
}

#[test]
fn no_record_at_all_is_no_flaw() {
    assert_eq!(verify_bytes(&[Vec::new()]).unwrap().to_string(), "no records");
}

#[test]
fn dropped_swapped_and_repeated_lines_are_named() {
    let lines = chained(5);
    let pick = |order: &[usize]| order.iter().flat_map(|index| lines[*index].clone()).collect::<Vec<u8>>();
    assert_eq!(place(verify_bytes(&[pick(&[0, 1, 3, 4])])), (0, 3));
    assert_eq!(place(verify_bytes(&[pick(&[0, 2, 1, 3, 4])])), (0, 2));
    assert_eq!(place(verify_bytes(&[pick(&[0, 1, 1, 2, 3, 4])])), (0, 3));
    assert_eq!(place(verify_bytes(&[pick(&[2, 3, 4]), pick(&[0, 1])])), (1, 1), "files in the wrong order");
    assert_eq!(place(verify_bytes(&[pick(&[0, 1]), pick(&[3, 4])])), (1, 1), "a file is missing");
}

#[test]
fn each_fault_of_form_is_told_in_its_own_words() {
    let lines = chained(3);
    let [first, last] = [&lines[0], &lines[2]].map(|line| String::from_utf8(line.clone()).unwrap());
    let before = lines[..2].concat();
    let zeros = "0".repeat(64);
    for (bad, why) in [
        (last.replace("\"v\":1", "\"v\":2"), "its `v` is 2"),
        (last.replace("\"seq\":3", "\"seq\":4"), "`seq` is 4 where 3 must follow 2"),
        (last.replace("\"seq\":3", "\"seq\":0"), "out of range"),
        (last.replace('}', ""), "not JSON"),
        (last.replace("\"kind\"", "\"seq\":3,\"kind\""), "duplicate field"),
        (last.replace("\"prev\":\"", "\"prev\":\"A"), "64 lower-case hex digits"),
        (last.trim_end().to_owned(), "no newline"),
        ("\n".to_owned(), "not JSON"),
        ("x".repeat(2 << 20), "longer than 1 MiB"),
        (format!("{}\n", "x".repeat(1 << 20)), "not JSON"),
    ] {
        let (_, line, told) = verify_bytes(&[[&before, bad.as_bytes()].concat()]).unwrap_err();
        assert!(line == 3 && told.contains(why), "line {line}: {told}, not {why}");
    }
    let mut latin = last.into_bytes();
    latin.retain(|byte| *byte != 0xc3);
    let (_, line, told) = verify_bytes(&[[before, latin].concat()]).unwrap_err();
    assert!(line == 3 && told.contains("not UTF-8"), "{told}");
    for (bad, why) in [
        (first.replace("\"prev\":\"0", "\"prev\":\"1"), "must be 64 zeros"),
        (first.replace("\"seq\":1", "\"seq\":2"), "the first line ever"),
    ] {
        let (_, line, told) = verify_bytes(&[bad.into_bytes()]).unwrap_err();
        assert!(line == 1 && told.contains(why), "{told}");
    }
    assert_eq!(zeros, NOTHING_BEFORE);
}

#[test]
fn a_changed_line_before_the_last_is_told_together_with_the_doubt() {
    let lines = chained(2);
    let changed = String::from_utf8(lines.concat()).unwrap().replace("ü1", "ü7");
    let (_, line, told) = verify_bytes(&[changed.into_bytes()]).unwrap_err();
    assert_eq!(line, 1);
    assert!(told.contains("or the next line's `prev`"), "{told}");
}

proptest! {
    #[test]
    fn the_order_in_which_files_are_given_changes_nothing(
        cuts in prop::collection::btree_set(1_usize..12, 0..5),
        swaps in any::<[prop::sample::Index; 8]>(),
    ) {
        let lines = chained(12);
        let mut ends: Vec<usize> = cuts.into_iter().collect();
        ends.push(lines.len());
        let mut begin = 0;
        let files: Vec<(String, Vec<u8>)> = ends
            .iter()
            .map(|end| {
                let file = (format!("{begin}"), lines[begin..*end].concat());
                begin = *end;
                file
            })
            .collect();
        let named: Vec<(&str, Vec<u8>)> = files.iter().map(|(name, bytes)| (name.as_str(), bytes.clone())).collect();
        let (_folder, mut paths) = lay(&named);
        let right = paths.clone();
        for (at, index) in swaps.iter().enumerate().take(paths.len()) {
            let other = index.index(paths.len());
            paths.swap(at, other);
        }
        let found = sorted(&paths).unwrap().unwrap_or_else(|| paths.clone());
        prop_assert_eq!(&found, &right);
        prop_assert_eq!(verify(&found).unwrap().records, 12);
    }

    #[test]
    fn any_one_changed_byte_in_any_line_but_the_last_breaks_the_chain_at_that_line(
        count in 3_u64..8,
        split in 0_usize..8,
        at in any::<prop::sample::Index>(),
        change in 1_u8..=255,
    ) {
        let mut lines = chained(count);
        let guarded = lines[..lines.len() - 1].concat().len();
        let mut offset = at.index(guarded);
        let mut number = 0;
        while offset >= lines[number].len() {
            offset -= lines[number].len();
            number += 1;
        }
        lines[number][offset] ^= change;
        let split = split.min(lines.len());
        let outcome = verify_bytes(&[lines[..split].concat(), lines[split..].concat()]);
        let (file, line) = place(outcome);
        let named = if file == 0 { line as usize - 1 } else { split + line as usize - 1 };
        // Only one line follows the last but one, so that its own `prev` and the line before it stay in doubt.
        let exact = number + 2 < lines.len();
        prop_assert!(named == number || !exact && named + 1 == number, "line {number} was changed, {named} named");
    }
}
