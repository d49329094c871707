//! What cases and `explain` state: it must exist, and the request must be able to have it.

use std::path::Path;

use proptest::prelude::*;
use rolegate::rules::{Ruleset, Sources};
use serde_json::json;

use crate::support::Program;
use crate::support::program::Ended;

const ROOM: &str = "GET /api/v1/rooms.roles?rid=abc";
const MEMBER: &str = r#"{"id":"u1","roles":["user"]}"#;

fn explain(arguments: &[&str]) -> Ended {
    Program::new(&[&["explain", "--provider", "rocketchat"], arguments].concat()).within(Path::new("/")).run()
}

#[test]
fn explain_refuses_what_does_not_exist_and_what_the_request_cannot_have() {
    let holders = "GET /api/v1/roles.getUsersInRole?role=admin";
    for (arguments, told) in [
        (
            &["--subject", MEMBER, "--facts", r#"{"rooom":{"member":true}}"#, ROOM][..],
            "--facts: unknown fact `rooom`\n  hint: did you mean `room`?",
        ),
        (
            &["--subject", MEMBER, "--facts", r#"{"room":{"membr":true}}"#, ROOM],
            "--facts: the fact `room` has no `membr`\n  hint: did you mean `member`?",
        ),
        (
            &["--subject", MEMBER, "--facts", r#"{"room":{"member":1}}"#, ROOM],
            "--facts: `room.member` is true or false, not a whole number",
        ),
        (
            &["--subject", MEMBER, "--facts", r#"{"room":{"member":true}}"#, holders],
            "--facts: the fact `room` is known only when `roomId` is given",
        ),
        (
            &["--subject", MEMBER, "--table", r#"{"role_scope":"Users"}"#, ROOM],
            "--table: a request for `rooms.roles` has no `context.table.role_scope`",
        ),
        (
            &["--subject", MEMBER, "--table", r#"{"role_scop":"Users"}"#, holders],
            "--table: no action knows `context.table.role_scop`\n  hint: did you mean `role_scope`?",
        ),
        (&["--subject", MEMBER, "--network", "nowhere", ROOM], "--network: unknown network `nowhere`"),
        (&["--subject", r#"{"id":"u1","roles":["usr"]}"#, ROOM], "--subject: unknown role `usr`\n  hint: did you mean `user`?"),
        (
            &["--subject", r#"{"id":"u1","permissions":["view-crom"]}"#, ROOM],
            "--subject: unknown permission `view-crom`\n  hint: did you mean `view-c-room`?",
        ),
        (&["--subject", r#"{"id":"u1","role":["user"]}"#, ROOM], "did you mean `roles`?"),
        (&["--subject", r#"{"id":"u1","id":"u2"}"#, ROOM], "`id` stands twice"),
        (&["--facts", r#"{"room":{"member":true}}"#, ROOM], "--facts: the fact `room` is one about a caller"),
        (
            &["--subject", MEMBER, "--facts", r#"{"room":{"member":true,"roles":["user","onwer"]}}"#, ROOM],
            "--facts: unknown role `onwer`\n  hint: did you mean `owner`?",
        ),
        (
            &["--subject", MEMBER, "--facts", r#"{"room":{"roles":["a-role-of-ours"]}}"#, ROOM],
            "--facts: unknown role `a-role-of-ours`\n  hint: add it to `roles` in the provider file",
        ),
        (&["--subject", r#"{"id":""}"#, ROOM], "--subject: the subject's `id` is empty\n  hint: write the caller's id"),
        (
            &["--subject", MEMBER, "--facts", r#"{"room":{"member":true,"invited":true}}"#, ROOM],
            "--facts: `room.member` is false where `invited` holds, not true\n  hint: leave `member` out",
        ),
        (
            &["--subject", MEMBER, "--facts", r#"{"room":{"member":true}}"#, "GET /api/v1/rooms.info?roomId=abc"],
            "--facts: the fact `room` is not asked for: the request is not judged",
        ),
        (
            &["--subject", MEMBER, "--facts", r#"{"room":{"member":true}}"#, "GET /api/v1/rooms.Roles?rid=abc"],
            "--facts: the fact `room` is not asked for: the request is refused before it is known for which action it is",
        ),
        (
            &["--subject", MEMBER, "--table", r#"{"role_scope":"Users"}"#, "GET /home"],
            "--table: `context.table.role_scope` is not asked for: the request is not judged",
        ),
        (
            &["--subject", MEMBER, "--content", "{}", ROOM],
            "--content: a request for `rooms.roles` has no parameters in its content\n  hint: leave it out",
        ),
        (&["--subject", MEMBER, "--content", "{}", "GET /home"], "--content: the content of a `GET` is not read"),
    ] {
        let ended = explain(arguments);
        assert_eq!(ended.code, 2, "{arguments:?}\n{}{}", ended.out, ended.err);
        assert!(ended.err.contains(told), "{arguments:?} tells `{told}`:\n{}", ended.err);
        assert_eq!(ended.out, "", "no verdict beside it");
    }
}

#[test]
fn explain_says_what_it_assumed_and_what_nobody_can_know() {
    let ended = explain(&["--subject", MEMBER, "--facts", r#"{"room":{"member":true}}"#, ROOM]);
    assert_eq!(ended.code, 0, "{}", ended.err);
    assert!(ended.out.contains("room.kind = \"\", room.roles = [], room.access = false\n"), "{}", ended.out);
    assert!(!ended.out.contains("room.member ="), "{}", ended.out);
    let told = explain(&["--format", "json", "--subject", MEMBER, ROOM]).json();
    assert_eq!((&told["assumed"]["room.member"], &told["assumed"]["room.kind"]), (&json!(false), &json!("")), "{told}");

    let holders = "GET /api/v1/roles.getUsersInRole?role=admin";
    let subject = r#"{"id":"u1","permissions":["access-permissions"]}"#;
    let ended = explain(&["--subject", subject, holders]);
    assert_eq!(ended.code, 6, "{}", ended.err);
    assert!(ended.out.contains("  lacks role_scope: nothing is known of it\n"), "{}", ended.out);
    assert_eq!(explain(&["--format", "json", "--subject", subject, holders]).json()["not_known"], json!(["role_scope"]));
}

/// The shipped texts, with the case file of `provider` changed.
fn with_cases(provider: &str, change: impl Fn(&str) -> String) -> Sources {
    let mut sources = Sources::built_in();
    sources.files.retain(|file| file.provider == provider);
    for file in sources.files.iter_mut().filter(|file| file.name == "cases.toml") {
        file.text = change(&file.text);
    }
    sources
}

/// Every fault of these cases, as `check` tells them.
fn faults(provider: &str, cases: &str) -> Vec<String> {
    let found = match Ruleset::load(&with_cases(provider, |_| cases.to_owned()), &[]) {
        Ok(ruleset) => rolegate::pipeline::rehearse::failing(&ruleset),
        Err(faults) => faults,
    };
    found.0.iter().map(ToString::to_string).collect()
}

const ROOM_CASE: &str = "name = \"n\"\nrequest = \"GET /api/v1/rooms.roles?rid=r1\"\nexpect = \"deny\"";
const HOLDERS_CASE: &str = "name = \"n\"\nrequest = \"GET /api/v1/roles.getUsersInRole?role=admin\"\nexpect = \"deny\"";

#[test]
fn what_does_not_exist_or_cannot_be_had_is_a_fault_at_its_place() {
    let at = |line: &str, told: &str| format!("{}:5:{}: {told}", "policies/rocketchat/cases.toml", column(line));
    for (case, line, told) in [
        (ROOM_CASE, "subject = { id = \"u\", ^roles = [^\"usr\"] }", "unknown role `usr`\n  hint: did you mean `user`?"),
        (
            ROOM_CASE,
            "subject = { id = \"u\", permissions = [^\"view-c-rom\"] }",
            "unknown permission `view-c-rom`\n  hint: did you mean `view-c-room`?",
        ),
        (
            ROOM_CASE,
            "facts = { ^rooom = { member = true } }\nsubject = { id = \"u\" }",
            "unknown fact `rooom`\n  hint: did you mean `room`?",
        ),
        (
            ROOM_CASE,
            "facts = { room = { ^kindd = \"p\" } }\nsubject = { id = \"u\" }",
            "the fact `room` has no `kindd`\n  hint: did you mean `kind`?",
        ),
        (
            ROOM_CASE,
            "facts = { room = { ^member = \"true\" } }\nsubject = { id = \"u\" }",
            "`room.member` is true or false, not a text",
        ),
        (
            HOLDERS_CASE,
            "table = { ^role_scop = \"Users\" }\nsubject = { id = \"u\" }",
            "no action knows `context.table.role_scop`\n  hint: did you mean `role_scope`?",
        ),
        (
            HOLDERS_CASE,
            "table = { ^role_scope = 1 }\nsubject = { id = \"u\" }",
            "`context.table.role_scope` is a text, not a whole number",
        ),
        (
            ROOM_CASE,
            "networks = [^\"nowhere\"]\nsubject = { id = \"u\" }",
            "unknown network `nowhere`\n  hint: name it under `[networks]` in the configuration",
        ),
        (
            ROOM_CASE,
            "by = [^\"rooms-role-member\"]\nsubject = { id = \"u\" }",
            "unknown policy `rooms-role-member`\n  hint: did you mean `rooms-roles-member`?",
        ),
        (
            ROOM_CASE,
            "table = { ^role_scope = \"Users\" }\nsubject = { id = \"u\" }",
            "the case `n` fails: a request for `rooms.roles` has no `context.table.role_scope`\n  hint: it has no tables",
        ),
        (
            HOLDERS_CASE,
            "facts = { ^room = { member = true } }\nsubject = { id = \"u\" }",
            "the case `n` fails: the fact `room` is known only when `roomId` is given, which this request does not\n  hint: leave it out, or give `roomId`",
        ),
        (
            "name = \"n\"\nrequest = \"GET /api/v1/users.info?userId=u\"\nexpect = \"permit\"",
            "facts = { ^room = { member = true } }\nsubject = { id = \"u\" }",
            "the case `n` fails: a request for `users.info` has no fact `room`\n  hint: it has no facts",
        ),
        (
            ROOM_CASE,
            "facts = { ^room = { member = false } }",
            "the case `n` fails: the fact `room` is one about a caller, and no `subject` is stated\n  hint: state the `subject`, or leave the fact out",
        ),
        (
            ROOM_CASE,
            "facts = { room = { ^roles = [\"moderatr\"] } }\nsubject = { id = \"u\" }",
            "unknown role `moderatr`\n  hint: did you mean `moderator`?",
        ),
        (
            ROOM_CASE,
            "subject = { id = ^\"\" }",
            "the subject's `id` is empty\n  hint: write the caller's id; for somebody who is not logged in leave the `subject` out",
        ),
        (
            "name = \"n\"\nrequest = \"GET /api/v1/rooms.roles/?rid=r1\"\nexpect = \"invalid\"",
            "facts = { ^room = { member = true } }\nsubject = { id = \"u\" }",
            "the case `n` fails: the fact `room` is not asked for: the request is refused before it is known for which action it is\n  hint: leave it out, or state a request for an action (`rolegate actions` lists them)",
        ),
    ] {
        let cases = format!("[[case]]\n{case}\n{}\n", line.replace('^', ""));
        assert_eq!(faults("rocketchat", &cases), [at(line, told)], "{cases}");
    }
}

/// The column of what stands behind the last mark in the first line.
fn column(line: &str) -> usize {
    let line = line.lines().next().unwrap();
    let marks = line.matches('^').count();
    line.rfind('^').unwrap() + 2 - marks
}

#[test]
fn callers_of_a_server_without_roles_have_none() {
    let case = "[[case]]\nname = \"n\"\nrequest = \"GET /_matrix/client/v3/joined_rooms\"\nexpect = \"permit\"\n\
                subject = { id = \"@a:b\", roles = [\"admin\"], permissions = [\"see\"] }\n";
    assert_eq!(
        faults("matrix", case),
        [
            "policies/matrix/cases.toml:5:35: callers of `matrix` have no roles\n  hint: leave `admin` out",
            "policies/matrix/cases.toml:5:60: callers of `matrix` have no permissions\n  hint: leave `see` out"
        ]
    );
}

#[test]
fn an_invitation_excludes_what_the_provider_file_says_it_excludes_and_nothing_else_does() {
    for bits in 0..32_u8 {
        let [member, invited, access, owner, private] = [0, 1, 2, 3, 4].map(|bit| bits >> bit & 1 == 1);
        let roles = if owner { r#"["owner"]"# } else { "[]" };
        let kind = if private { "p" } else { "" };
        let fact = format!("{{ member = {member}, invited = {invited}, access = {access}, roles = {roles}, kind = \"{kind}\" }}");
        let case = format!("[[case]]\n{ROOM_CASE}\nfacts = {{ room = {fact} }}\nsubject = {{ id = \"u\" }}\n");
        // What the policies make of it is not the question here.
        let mut found = faults("rocketchat", &case);
        found.retain(|found| !found.contains("expected deny, found permit"));
        let wrong = [("member", member), ("access", access), ("roles", owner)].into_iter().filter(|(_, set)| invited && *set);
        let wrong: Vec<&str> = wrong.map(|(name, _)| name).collect();
        assert_eq!(found.len(), wrong.len(), "{fact}: {found:?}");
        for name in wrong {
            assert!(found.iter().any(|found| found.contains(&format!("`room.{name}` is "))), "{fact}: {found:?}");
        }
    }
}

#[test]
fn roles_that_are_made_of_a_number_have_the_names_of_its_levels() {
    let case = |roles: &str| {
        format!(
            "[[case]]\nname = \"n\"\nrequest = \"GET /_matrix/client/v3/rooms/!r:a/members\"\nexpect = \"permit\"\n\
             subject = {{ id = \"@a:b\" }}\nfacts = {{ room = {{ joined = true }}, power = {{ roles = [{roles}] }} }}\n"
        )
    };
    let found = faults("matrix", &case("\"moderatr\""));
    assert!(found[0].contains("unknown role `moderatr`\n  hint: did you mean `moderator`?"), "{found:?}");
    let found = faults("matrix", &case("\"janitor\""));
    assert!(found[0].contains("unknown role `janitor`\n  hint: `power.roles` holds admin, moderator, member"), "{found:?}");
    assert_eq!(faults("matrix", &case("\"moderator\", \"member\"")), <[String; 0]>::default());
}

#[test]
fn two_cases_with_one_name_are_a_fault_that_names_both_lines() {
    let one = format!("[[case]]\n{ROOM_CASE}\nsubject = {{ id = \"u\" }}\n");
    assert_eq!(
        faults("rocketchat", &format!("{one}{one}")),
        [
            "policies/rocketchat/cases.toml:7:8: two cases are named `n`\n  hint: the first is at policies/rocketchat/cases.toml:2:8"
        ]
    );
}

/// Where the names of a case file stand: keys, roles, permissions, facts, values of facts, tables and policies. Ids, the names
/// of people and of cases, and the texts of facts and tables are free.
fn names(cases: &str) -> Vec<std::ops::Range<usize>> {
    let word = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
    let mut names = Vec::new();
    let mut offset = 0;
    for line in cases.split_inclusive('\n') {
        let free = ["name = ", "request = ", "sends = ", "content = ", "#"];
        let mut at = if free.iter().any(|free| line.starts_with(free)) { line.len() } else { 0 };
        while let Some(from) = line[at..].find(|letter| letter == '"' || word(letter)).map(|found| at + found) {
            let quoted = line[from..].starts_with('"');
            let begin = from + usize::from(quoted);
            let end = begin + line[begin..].find(|letter| if quoted { letter == '"' } else { !word(letter) }).unwrap();
            let open = [" id = ", " name = "].iter().any(|key| line[..from].ends_with(key))
                || ["facts", "table"].iter().any(|key| line.starts_with(key));
            if !(quoted && open) {
                names.push(offset + begin..offset + end);
            }
            at = end + usize::from(quoted);
        }
        offset += line.len();
    }
    names
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_shipped_case_with_a_letter_of_a_name_changed_is_a_fault(
        provider in proptest::sample::select(&["rocketchat", "matrix", "docusign-rooms"][..]),
        name in any::<proptest::sample::Index>(),
        letter in any::<proptest::sample::Index>(),
    ) {
        let shipped = with_cases(provider, str::to_owned);
        let cases = &shipped.files.iter().find(|file| file.name == "cases.toml").unwrap().text;
        let names = names(cases);
        let place = names[name.index(names.len())].clone();
        let written = &cases[place.clone()];
        let mut changed = written.to_owned();
        let at = letter.index(changed.len());
        let other = if &changed[at..=at] == "q" { "z" } else { "q" };
        changed.replace_range(at..=at, other);
        let cases = format!("{}{changed}{}", &cases[..place.start], &cases[place.end..]);
        prop_assert!(!faults(provider, &cases).is_empty(), "`{}` for `{}` is taken:\n{}", changed, written, cases);
    }
}
