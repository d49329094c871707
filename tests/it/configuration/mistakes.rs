//! The table of mistakes: each is told at its place, with its key and a way out; `run` does not start with it; and no secret is told.

use std::collections::BTreeMap;
use std::fs;

use rolegate::config::{Config, Flags};
use rolegate::proxy::Server;
use serde::Deserialize;

use super::{Folder, PLAIN, place};

#[derive(Deserialize)]
struct Table {
    mistake: Vec<Mistake>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Mistake {
    what: String,
    #[serde(default = "configuration")]
    file: String,
    from: Option<String>,
    to: String,
    from2: Option<String>,
    to2: Option<String>,
    /// Further files.
    #[serde(default)]
    also: BTreeMap<String, String>,
    /// Written in the encoding of old editors.
    #[serde(default)]
    latin1: bool,
    at: String,
    says: String,
    hint: String,
    #[serde(default)]
    others: bool,
}

/// What the table says, with places for `<text>`.
fn placed(says: &str, text: &str) -> String {
    match says.split_once('<').and_then(|(before, rest)| Some((before, rest.split_once('>')?))) {
        Some((before, (needle, behind))) => format!("{before}{}{behind}", place(text, needle)),
        None => says.to_owned(),
    }
}

fn configuration() -> String {
    "rolegate.toml".to_owned()
}

impl Mistake {
    /// Makes it in a folder; the text that holds it.
    fn make(&self, folder: &Folder) -> String {
        let mut text = fs::read_to_string(folder.path(&self.file)).unwrap();
        let mut replace = |from: &Option<String>, to: &Option<String>| match (from, to) {
            (Some(from), Some(to)) => {
                assert!(text.contains(from.as_str()), "{}: no `{from}`", self.what);
                text = text.replacen(from.as_str(), to, 1);
            }
            (None, Some(to)) => text.clone_from(to),
            (_, None) => {}
        };
        replace(&self.from, &Some(self.to.clone()));
        if self.from2.is_some() {
            replace(&self.from2, &self.to2);
        }
        let bytes = if self.latin1 {
            text.chars().map(|letter| u8::try_from(u32::from(letter)).unwrap()).collect()
        } else {
            text.clone().into_bytes()
        };
        fs::write(folder.path(&self.file), bytes).unwrap();
        for (name, text) in &self.also {
            fs::write(folder.path(name), text).unwrap();
        }
        text
    }
}

#[test]
fn every_mistake_is_told_where_it_was_made_with_a_way_out_and_run_does_not_start_with_it() {
    let Table { mistake: mistakes } = toml::from_str(include_str!("mistakes.toml")).unwrap();
    assert!(mistakes.len() > 80);
    for mistake in mistakes {
        let folder = Folder::new(PLAIN);
        let text = mistake.make(&folder);
        let told = folder.check(&[], 3).err;
        let Mistake { what, file, at, .. } = &mistake;
        let (says, hint) = (&placed(&mistake.says, &text), &placed(&mistake.hint, &text));
        let place = if at.is_empty() { file.clone() } else { format!("{file}:{}", place(&text, at)) };
        let mut blocks = told.split("\nrolegate").flat_map(|block| block.split("\npolicies/"));
        let is_it = |block: &str| {
            let block = block.trim_start_matches("policies/");
            let place = place.trim_start_matches("rolegate").trim_start_matches("policies/");
            block.trim_start_matches("rolegate").starts_with(&format!("{place}: "))
                && block.contains(says)
                && block.contains(hint)
        };
        assert!(blocks.any(is_it), "{what}: nothing at {place} says `{says}` with `{hint}`:\n{told}");
        assert!(mistake.others || told.ends_with("\n1 fault\n"), "{what}: more than one fault:\n{told}");
        assert!(!told.contains("hunter2") && !told.contains("p4ssw0rd"), "{what}: a secret is told:\n{told}");
        // The same in this process, where a gate that starts would not be waited for.
        let started = Config::load(Some(&folder.path("rolegate.toml")), &Flags::default()).map(Server::bind);
        assert!(!matches!(started, Ok(Ok(_))), "{what}: `run` starts");
    }
}

#[test]
fn the_folder_in_which_mistakes_are_made_has_no_fault() {
    let told = Folder::new(PLAIN).check(&[], 0).out;
    assert!(told.starts_with("no faults: 1 actions, 3 policies, 2 cases"), "{told}");
    let config = Folder::new(PLAIN);
    Server::bind(Config::load(Some(&config.path("rolegate.toml")), &Flags::default()).unwrap()).unwrap();
}

#[test]
fn all_faults_of_a_file_are_told_at_once() {
    let folder = Folder::new(PLAIN);
    folder.change(
        "rolegate.toml",
        "[policies]",
        "modee = 1\nhots = 2\nmode = \"x\"\n[policies]\nreloat = 3\n[facts]\nttl = \"x\"\n[nosuch]",
    );
    let told = folder.check(&[], 3).err;
    for place in ["8:1", "9:1", "10:8", "12:1", "14:7", "15:2"] {
        assert!(told.contains(&format!("rolegate.toml:{place}: ")), "nothing at {place}:\n{told}");
    }
    let folder = Folder::new(PLAIN);
    let file = "policies/small/provider.toml";
    folder.change(file, "empty = \"missing\"", "emty = \"missing\"");
    folder.change(file, "type = \"integer\"", "type = \"int\"");
    folder.change(file, "then = \"deny\"", "then = \"close\"");
    let told = folder.check(&[], 3).err;
    assert!(
        told.contains("`emty`") && told.contains("`int`") && told.contains("`close`") && told.ends_with("\n3 faults\n"),
        "{told}"
    );
}

#[test]
fn a_policy_file_that_is_missing_is_one_fault_and_not_one_for_each_case() {
    let folder = Folder::new(PLAIN);
    fs::remove_file(folder.path("policies/small/policy.cedar")).unwrap();
    let told = folder.check(&[], 3).err;
    assert_eq!(
        told,
        "policies/small: has no `policy.cedar`\n  hint: `rolegate init DIR` writes the built-in policies\n1 fault\n"
    );
}

#[test]
fn a_byte_order_mark_is_read_over_in_every_file() {
    let folder = Folder::new(PLAIN);
    for name in ["rolegate.toml", "policies/small/policy.cedar", "policies/small/provider.toml", "policies/small/cases.toml"] {
        let text = fs::read_to_string(folder.path(name)).unwrap();
        fs::write(folder.path(name), format!("\u{feff}{text}")).unwrap();
    }
    folder.check(&[], 0);
    folder.change("rolegate.toml", "[listen]", "listn = 1\n[listen]");
    assert!(folder.check(&[], 3).err.starts_with("rolegate.toml:1:1: unknown field `listn`"));
}

#[test]
fn a_policy_folder_on_the_command_line_one_level_off_is_told_with_the_right_one() {
    let folder = Folder::new(PLAIN);
    for wrong in ["policies/small", "."] {
        let told = folder.check(&["--policies", wrong], 3).err;
        assert!(told.starts_with(&format!("--policies: `{wrong}`: holds no provider")), "{told}");
        assert!(told.contains("policies`, which holds `small/provider.toml`?"), "{told}");
    }
}

#[test]
fn no_refusal_of_a_url_tells_the_password_in_it() {
    for url in [
        "http://user:p4ssw0rd@127.0.0.1:9",
        "https://user:p4ssw0rd@127.0.0.1:9/path",
        "ftp://user:p4ssw0rd@h",
        "user:p4ssw0rd@h",
        "http://user:p4ssw0rd@h:99999",
        "http://user:p4ss/w0rd@h",
        "http:///user:p4ssw0rd@h",
        "user:p4ssw0rd",
    ] {
        for key in ["url", "account_url", "host", "path_prefix"] {
            let folder = Folder::new(PLAIN);
            if key == "url" {
                folder.change("rolegate.toml", "http://127.0.0.1:9", url);
            } else {
                folder.change("rolegate.toml", "[policies]", &format!("{key} = \"{url}\"\n[policies]"));
            }
            let told = folder.check(&[], 3);
            let secret = url.contains('@') && (told.err.contains("p4ss") || told.out.contains("p4ss"));
            assert!(!secret, "{key} = {url}:\n{}", told.err);
        }
        let run = crate::support::Program::new(&["run", "--provider", "rocketchat", "--upstream", url]).run();
        assert!(run.code == 3 && (!url.contains('@') || !run.err.contains("p4ss")), "{url}:\n{}", run.err);
    }
}

#[test]
fn an_account_server_of_a_provider_that_asks_none_is_told_where_it_is_named() {
    for provider in ["rocketchat", "matrix"] {
        let folder = Folder::new(PLAIN);
        let account = "account_url = \"https://account.example.org\"\n";
        folder.change("rolegate.toml", "[policies]\ndirectory = \"policies\"\n", account);
        let text = folder.change("rolegate.toml", "\"small\"", &format!("\"{provider}\""));
        let told = folder.check(&[], 3).err;
        let at = place(&text, "\"https://account");
        let says =
            format!("rolegate.toml:{at}: `upstream.account_url`: the provider `{provider}` asks no account server\n  hint: ");
        assert!(told.starts_with(&says), "{told}");
        let run = crate::support::Program::new(&["run", "--config", "rolegate.toml"]).within(folder.0.path()).run();
        assert_eq!((run.code, run.err.as_str()), (3, told.as_str()), "`run` says the same");
    }
}
