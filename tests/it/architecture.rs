//! The floors of the house: a module names only modules below its own.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Every module with its floor; the words are those of the design. A module names only modules of lower floors, and one of
/// its own floor only when that one does not name it in turn.
const FLOORS: &[(&str, u8)] = &[
    ("model", 1),
    ("files", 2),
    ("log", 2),
    ("metrics", 2),
    ("traces", 2),
    ("policy", 3),
    ("identity", 3),
    ("audit", 3),
    ("rules", 4),
    ("config", 4),
    ("pipeline", 5),
    ("reload", 6),
    ("proxy", 7),
    ("demo", 8),
    ("cli", 9),
];

/// Outside crates that have one door each; `pingora` stands for its sub-crates too.
const ONLY_IN: &[(&str, &[&str])] = &[
    ("prometheus", &["metrics"]),
    ("opentelemetry", &["traces"]),
    ("opentelemetry_otlp", &["traces"]),
    ("opentelemetry_sdk", &["traces"]),
    ("cedar_policy", &["policy"]),
    ("moka", &["identity"]),
    ("toml", &["rules", "config"]),
    ("notify", &["reload"]),
    ("tracing_subscriber", &["log"]),
    ("pingora", &["proxy"]),
    ("clap", &["cli"]),
];

const LONGEST_FILE: usize = 600;

#[test]
fn a_module_names_only_modules_on_lower_floors() {
    let floor = |module: &str| FLOORS.iter().find(|(name, _)| *name == module).map(|(_, floor)| *floor);
    let mut names: BTreeMap<(String, String), String> = BTreeMap::new();
    for file in product() {
        let Some(module) = &file.module else { continue };
        for named in file.named().into_iter().filter(|named| named != module) {
            names.entry((module.clone(), named)).or_insert_with(|| file.path.display().to_string());
        }
    }
    assert!(names.len() > 20, "the reader found next to nothing: {names:?}");
    for ((module, named), file) in &names {
        let (from, to) = (floor(module), floor(named));
        assert!(from.is_some(), "{file}: `{module}` is on no floor");
        assert!(to.is_some(), "{file}: `crate::{named}` is on no floor");
        assert!(from >= to, "{file}: `{module}` (floor {from:?}) names `{named}` (floor {to:?})");
        let mutual = names.get(&(named.clone(), module.clone()));
        assert!(mutual.is_none(), "{file} and {mutual:?}: `{module}` and `{named}` name each other");
    }
}

#[test]
fn the_library_has_the_modules_of_the_table_and_the_program_names_one() {
    let files = product();
    let root = files.iter().find(|file| file.path.ends_with("src/lib.rs")).unwrap();
    let words = words(&root.code);
    let declared: BTreeSet<&str> =
        words.windows(3).filter(|three| three[0] == "mod" && three[2] == ";").map(|three| three[1]).collect();
    assert_eq!(declared, FLOORS.iter().map(|(name, _)| *name).collect());
    let program = files.iter().find(|file| file.path.ends_with("src/main.rs")).unwrap();
    assert_eq!(roots(&program.code, "rolegate"), BTreeSet::from(["cli".to_owned()]));
}

#[test]
fn an_outside_crate_has_one_door() {
    let files = product();
    for (outside, doors) in ONLY_IN {
        let mut used = BTreeSet::new();
        for file in files.iter().filter(|file| file.uses(outside)) {
            let module = file.module.as_deref().unwrap_or("the crate's root");
            assert!(doors.contains(&module), "{}: only {doors:?} may name `{outside}`", file.path.display());
            used.insert(module);
        }
        assert_eq!(used.len(), doors.len(), "`{outside}` is not named where it should be: this test does not see it");
    }
}

#[test]
fn the_vocabulary_knows_no_clock_no_files_and_no_network() {
    for file in product().iter().filter(|file| file.module.as_deref() == Some("model")) {
        for far in ["std::fs", "std::io", "std::time", "std::env", "std::process", "tokio", "pingora", "tracing", "jiff"] {
            assert!(!file.code.contains(&format!("{far}::")), "{}: names `{far}`", file.path.display());
        }
    }
}

#[test]
fn every_file_opens_with_a_sentence_and_ends_before_it_is_too_long() {
    let tests = files_below("tests").into_iter().filter(|file| file.path.extension().is_some_and(|extension| extension == "rs"));
    for file in product().into_iter().chain(tests) {
        let shown = file.path.display();
        let paragraph: Vec<&str> = file
            .text
            .lines()
            .map_while(|line| line.strip_prefix("//!").map(str::trim))
            .take_while(|line| !line.is_empty())
            .collect();
        let sentence = paragraph.join(" ");
        assert!(sentence.starts_with(|first: char| first.is_uppercase() || first == '`'), "{shown} opens with `{sentence}`");
        assert!(sentence.ends_with(['.', '?', '!', ':']), "{shown}: this is no sentence: {sentence}");
        let lines = file.text.lines().count();
        assert!(lines <= LONGEST_FILE, "{shown} has {lines} lines, more than {LONGEST_FILE}");
    }
}

#[test]
fn every_dependency_says_what_it_is_for() {
    let manifest = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).unwrap();
    let (mut dependencies, mut silent, mut before) = (false, Vec::new(), "");
    for line in manifest.lines() {
        if line.starts_with('[') {
            dependencies = line.contains("dependencies]");
        } else if dependencies && line.starts_with(|first: char| first.is_alphanumeric()) {
            let own = line.split_once("# ").map(|(_, reason)| reason);
            let above = before.strip_prefix("# ");
            if own.or(above).is_none_or(|reason| reason.split(' ').count() < 2) {
                silent.push(line.split_whitespace().next().unwrap());
            }
        }
        before = line;
    }
    assert_eq!(silent, Vec::<&str>::new(), "these stand in Cargo.toml without a comment above or behind them");
}

#[test]
fn the_reader_of_this_test_sees_through_groups_comments_and_texts() {
    let text = r##"
        //! See [`crate::cli`].
        use crate::{model::{Fault, Place}, rules as laws};
        use crate::audit::Event; /* crate::demo */
        const A: &str = "crate::proxy"; const B: &str = r#"" crate::proxy"#; const C: char = '"';
        fn f(x: pingora_core::Error) -> Option<toml::Spanned<String>> { super::super::reload::watch("//"); crate::VERSION }
        pub(crate) mod inner { use super::*; }
    "##;
    let file = File::read(PathBuf::from("src/policy/deep.rs"), text.to_owned());
    assert_eq!(file.module.as_deref(), Some("policy"));
    assert_eq!(file.named(), BTreeSet::from(["model", "rules", "audit", "reload"].map(str::to_owned)));
    assert!(file.uses("pingora") && file.uses("toml") && !file.uses("notify"));
}

/// A source file, and its code: the text without comments and without what stands between quotes.
struct File {
    path: PathBuf,
    text: String,
    code: String,
    /// The module below the crate's root; nothing for `lib.rs`, `main.rs` and `build.rs`.
    module: Option<String>,
    /// How many modules below the root its items are.
    depth: usize,
}

impl File {
    fn read(path: PathBuf, text: String) -> Self {
        let below: Vec<String> = path.with_extension("").iter().map(|part| part.to_string_lossy().into_owned()).collect();
        let at = below.iter().position(|part| part == "src");
        let mut modules = at.map(|at| below[at + 1..].to_vec()).unwrap_or_default();
        modules.retain(|part| part != "mod");
        let root = modules.len() == 1 && ["lib", "main", "build"].contains(&modules[0].as_str());
        let module = modules.first().filter(|_| !root).cloned();
        Self { code: code(&text), depth: modules.len(), path, text, module }
    }

    /// The modules below the crate's root that it names, by `crate::` or by climbing up to the root.
    fn named(&self) -> BTreeSet<String> {
        let climb = "super :: ".repeat(self.depth);
        let words = words(&self.code).join(" ");
        let mut named = roots(&self.code, "crate");
        for (at, _) in words.match_indices(&climb).filter(|(at, _)| !words[..*at].ends_with(":: ")) {
            let next = words[at + climb.len()..].split(' ').next().unwrap();
            // Within an inline module one `super` leads only to this file; a module of the crate's root is a name of ours.
            if FLOORS.iter().any(|(name, _)| *name == next) {
                named.insert(next.to_owned());
            }
        }
        named
    }

    /// Whether it names the outside crate `name` or one whose name begins with it and an underscore.
    fn uses(&self, name: &str) -> bool {
        let words = words(&self.code);
        let is =
            |word: &str| word == name || word.strip_prefix(name).is_some_and(|rest| name == "pingora" && rest.starts_with('_'));
        (0..words.len()).any(|at| {
            let before = at.checked_sub(1).map_or("", |before| words[before]);
            let after = words.get(at + 1).copied().unwrap_or_default();
            is(words[at]) && before != "::" && before != "." && (after == "::" || before == "use")
        })
    }
}

/// What stands behind `root::` in `code`, in groups too; constants of the root are no modules.
fn roots(code: &str, root: &str) -> BTreeSet<String> {
    let words = words(code);
    let mut found = BTreeSet::new();
    for at in (0..words.len()).filter(|at| words[*at] == root) {
        match (words.get(at + 1), words.get(at + 2)) {
            (Some(&"::"), Some(&"{")) => {
                let mut depth = 0;
                for index in at + 2.. {
                    match words[index] {
                        "{" => depth += 1,
                        "}" => depth -= 1,
                        word if depth == 1 && ["{", ","].contains(&words[index - 1]) => {
                            found.insert(word.to_owned());
                        }
                        _ => {}
                    }
                    if depth == 0 {
                        break;
                    }
                }
            }
            (Some(&"::"), Some(word)) => {
                found.insert((*word).to_owned());
            }
            (Some(&")"), _) => {}
            other => panic!("`{root}` followed by {other:?} is read by nobody"),
        }
    }
    found.retain(|name| !name.chars().all(|letter| letter.is_uppercase() || letter == '_'));
    found
}

/// Names, `::`, and every other sign by itself.
fn words(code: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let mut rest = code.trim_start();
    while let Some(first) = rest.chars().next() {
        let is_name = |letter: char| letter.is_alphanumeric() || letter == '_';
        let length = if is_name(first) {
            rest.find(|letter| !is_name(letter)).unwrap_or(rest.len())
        } else if rest.starts_with("::") {
            2
        } else {
            first.len_utf8()
        };
        words.push(&rest[..length]);
        rest = rest[length..].trim_start();
    }
    words
}

/// The text without comments and without what stands between quotes.
fn code(text: &str) -> String {
    let mut code = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let hashes = rest.strip_prefix('r').map_or(0, |raw| raw.len() - raw.trim_start_matches('#').len());
        let is_raw = rest.starts_with('r') && rest[1 + hashes..].starts_with('"') && !code.ends_with(char::is_alphanumeric);
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if is_raw {
            let end = format!("\"{}", "#".repeat(hashes));
            let open = 2 + hashes;
            rest[open..].find(&end).map_or(rest.len(), |at| open + at + end.len())
        } else if first == '"' {
            let mut escaped = false;
            let end = rest[1..].find(|letter| {
                let ends = letter == '"' && !escaped;
                escaped = letter == '\\' && !escaped;
                ends
            });
            end.map_or(rest.len(), |end| end + 2)
        } else if rest.starts_with("'\"'") || rest.starts_with("'/'") {
            3
        } else if let Some(escaped) = rest.strip_prefix("'\\") {
            escaped.find('\'').map_or(rest.len(), |end| end + 3).max(4)
        } else {
            code.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        };
        code.push(' ');
        rest = &rest[length.min(rest.len())..];
    }
    code
}

#[test]
fn each_program_that_the_stories_start_is_one_that_every_debian_has_or_that_the_tests_install() {
    const EVERYWHERE: [&str; 5] = ["bash", "mkfifo", "prlimit", "script", "sh"];
    let run = include_str!("../run");
    let files = files_below("tests/it");
    let (begin, mut started) = (concat!("Command::", "new(\""), 0);
    for program in files.iter().flat_map(|file| file.text.split(begin).skip(1)).filter_map(|rest| rest.split('"').next()) {
        let installed = run.lines().any(|line| line.starts_with(&format!("need {program} ")));
        assert!(installed || EVERYWHERE.contains(&program), "tests/run does not install what brings `{program}`");
        started += 1;
    }
    assert!(started > 10, "only {started} found");
}

fn product() -> Vec<File> {
    files_below("src").into_iter().filter(|file| file.path.extension().is_some_and(|extension| extension == "rs")).collect()
}

fn files_below(folder: &str) -> Vec<File> {
    let mut files = Vec::new();
    let mut folders = vec![PathBuf::from(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(&folder)).unwrap() {
            let entry = entry.unwrap();
            let path = folder.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                folders.push(path);
            } else if let Ok(text) = std::fs::read_to_string(entry.path()) {
                files.push(File::read(path, text));
            }
        }
    }
    assert!(!files.is_empty(), "{folder} holds no file");
    files
}
