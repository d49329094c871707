//! Rules that change while requests are judged.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rolegate::config::ReloadBy;
use rolegate::demo::Sample;
use rolegate::demo::world::workspace::BOARDROOM;
use rolegate::pipeline::rehearse;
use rolegate::rules::{Ruleset, Sources};
use serde_json::{Value, json};

use crate::support::gate::{login, records};
use crate::support::{Answer, Connection, Gate, GateBuilder, Policies, Process, Program, until};

/// What the contract allows an edit to take.
const SOON: Duration = Duration::from_secs(1);

/// A gate whose policies lie in `policies` of its folder, beside them `closed` with a set that closes `rooms.roles`.
async fn gate_by(by: ReloadBy) -> (Gate, Policies) {
    let builder = GateBuilder::rocketchat().await;
    let policies = Policies::write(&builder.folder.path().join("policies"));
    let directory = Some(policies.0.clone());
    let gate = builder.with(|config| config.policies = rolegate::config::Policies { directory, reload: by }).start();
    (gate, policies)
}

async fn carol(gate: &Gate) -> Answer {
    gate.get(&format!("/api/v1/rooms.roles?rid={BOARDROOM}"), &login("carol")).await
}

/// Edits, waits until carol is answered `status`, and holds that against the clock.
async fn edit(gate: &Gate, status: u16, what: &str, edit: impl FnOnce()) {
    let revision = || gate.running.as_ref().unwrap().gate().current.live().revision.clone();
    let mut before = revision();
    let began = Instant::now();
    edit();
    loop {
        before = until(&format!("{what}: another revision"), || (revision() != before).then(revision)).await;
        if carol(gate).await.status == status {
            return is_soon(began, what);
        }
    }
}

/// A second is what the contract allows; where others have the processors, eight times what loading the rules takes there.
fn is_soon(began: Instant, what: &str) {
    let elapsed = began.elapsed();
    if elapsed >= SOON {
        let began = Instant::now();
        let ruleset = Ruleset::load(&Sources::built_in(), &[]).unwrap();
        assert_eq!(rehearse::failing(&ruleset).0.len(), 0);
        let work = began.elapsed();
        assert!(elapsed < work * 8, "{what}: in force only after {elapsed:?}, where loading takes {work:?}");
    }
}

async fn status(gate: &Gate) -> Value {
    gate.admin_get("/status").await.json()
}

async fn post(gate: &Gate, path: &str) -> Answer {
    Connection::open(gate.admin()).await.request("POST", path, &[], b"").await
}

/// Points the link at `path` to `target` in one step, as Kubernetes does with `..data`.
fn point(path: &Path, target: &str) {
    let aside = path.with_file_name("..tmp");
    symlink(target, &aside).unwrap();
    fs::rename(aside, path).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_files_read_again_leave_the_very_rules_in_force_that_were() {
    let (gate, policies) = gate_by(ReloadBy::Signal).await;
    let live = || gate.running.as_ref().unwrap().gate().current.live();
    let before = live();
    let reload = || async { Connection::open(gate.admin()).await.request("POST", "/reload", &[], b"").await.status };
    for again in [policies.open(), policies.open()] {
        policies.put("policy.cedar", &again);
        assert_eq!(reload().await, 200);
        assert!(Arc::ptr_eq(&before, &live()), "callers who were prepared under them stay prepared");
    }
    policies.put("policy.cedar", &format!("{}\n// Another text.\n", policies.open()));
    assert_eq!(reload().await, 200);
    assert!(!Arc::ptr_eq(&before, &live()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_under_load_takes_effect_within_a_second_and_no_request_fails_or_sees_a_mixture() {
    let builder = GateBuilder::rocketchat().await;
    let folder = builder.folder.path().to_path_buf();
    for name in ["first", "second"] {
        let set = Policies::write(&folder.join(name));
        set.put("policy.cedar", &set.open().replace("rooms-roles-member", name));
        let words = Policies::built_in("provider.toml")
            .replace("User does not have the permissions", &format!("Not by the {name}: permissions"));
        set.put("provider.toml", &words);
    }
    let link = folder.join("policies");
    point(&link, "first");
    let gate = builder.with(|config| config.policies.directory = Some(link.clone())).start();
    let gate = Arc::new(gate);
    let stop = Arc::new(AtomicBool::new(false));
    let asked = Arc::new(AtomicUsize::new(0));
    let load = |who: &'static str| {
        let (gate, stop, asked) = (Arc::clone(&gate), Arc::clone(&stop), Arc::clone(&asked));
        tokio::spawn(async move {
            let target = format!("/api/v1/rooms.roles?rid={BOARDROOM}");
            let mut connection = gate.connect().await;
            let mut refusals = Vec::new();
            while !stop.load(Ordering::Acquire) {
                let answer = connection.get(&target, &login(who)).await;
                assert_eq!(answer.status, if who == "carol" { 200 } else { 403 }, "{}", answer.text());
                asked.fetch_add(1, Ordering::AcqRel);
                if who == "eve" {
                    let set = if answer.text().contains("Not by the first") { "first" } else { "second" };
                    assert!(answer.text().contains(&format!("Not by the {set}: ")), "{}", answer.text());
                    refusals.push((answer.header("x-request-id").unwrap().to_owned(), set));
                }
            }
            refusals
        })
    };
    let tasks: Vec<_> = ["carol", "eve"].into_iter().map(load).collect();
    let mut revisions = vec![status(&gate).await["policy_revision"].clone()];
    for name in ["second", "first", "second"] {
        let before = asked.load(Ordering::Acquire);
        point(&link, name);
        let edited = Instant::now();
        let answers = || async { gate.get(&format!("/api/v1/rooms.roles?rid={BOARDROOM}"), &login("eve")).await.text() };
        while !answers().await.contains(&format!("Not by the {name}: ")) {
            assert!(edited.elapsed() < SOON * 10, "{name} is never in force");
        }
        is_soon(edited, name);
        assert!(asked.load(Ordering::Acquire) > before, "nobody asked meanwhile");
        revisions.push(status(&gate).await["policy_revision"].clone());
    }
    stop.store(true, Ordering::Release);
    let mut refusals = Vec::new();
    for task in tasks {
        refusals.extend(task.await.unwrap());
    }
    assert_eq!((&revisions[0], &revisions[1]), (&revisions[2], &revisions[3]));
    let set_of = |record: &Value| if record["policy_revision"] == revisions[0] { "first" } else { "second" };
    let decisions = gate.records_of("decision");
    assert!(decisions.iter().all(|record| revisions.contains(&record["policy_revision"])));
    for record in decisions.iter().filter(|record| record["decision"] == "permit") {
        assert_eq!(record["policies"], json!([set_of(record)]), "a policy of one set, the revision of the other");
    }
    let told: std::collections::HashMap<_, _> = refusals.into_iter().collect();
    for record in decisions.iter().filter(|record| told.contains_key(record["id"].as_str().unwrap())) {
        assert_eq!(told[record["id"].as_str().unwrap()], set_of(record), "words of one set, the verdict of the other");
    }
    assert!(told.values().any(|set| *set == "first") && told.values().any(|set| *set == "second"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_may_be_written_in_place_renamed_over_removed_or_added() {
    let (gate, policies) = gate_by(ReloadBy::Watch).await;
    edit(&gate, 403, "written in place, right after the start", || policies.put("policy.cedar", &policies.closed())).await;
    edit(&gate, 200, "renamed over", || policies.replace("policy.cedar", &policies.open())).await;
    edit(&gate, 403, "a file added", || policies.put("extra.cedar", crate::support::policies::CLOSED)).await;
    edit(&gate, 200, "a file removed", || fs::remove_file(policies.path("extra.cedar")).unwrap()).await;
    let added = policies.0.join("matrix");
    fs::create_dir(&added).unwrap();
    fs::remove_dir(&added).unwrap();
    edit(&gate, 403, "after a folder came and went", || policies.put("policy.cedar", &policies.closed())).await;
    let reloads = || gate.records_of("reload").iter().filter(|record| record["succeeded"] == true).count();
    until("a record of each", || (reloads() >= 5).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_edits_within_a_second_end_with_the_second() {
    let (gate, policies) = gate_by(ReloadBy::Watch).await;
    for round in 0..3 {
        edit(&gate, 403, "the first edit", || policies.replace("policy.cedar", &policies.closed())).await;
        edit(&gate, 200, "the second edit", || policies.replace("policy.cedar", &policies.open())).await;
        policies.put("policy.cedar", "half of what is to be writ");
        edit(&gate, 403, "two at once", || policies.put("policy.cedar", &policies.closed())).await;
        edit(&gate, 200, "and back", || policies.put("policy.cedar", &format!("{}// {round}\n", policies.open()))).await;
    }
    // The gauge is set a moment after the swap.
    gate.until_metric("rolegate_policy_matches_disk", 1.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_config_map_is_swapped_by_its_data_link() {
    let builder = GateBuilder::rocketchat().await;
    let root = builder.folder.path().join("policies");
    let mount = root.join("rocketchat");
    fs::create_dir_all(&mount).unwrap();
    let scratch = builder.folder.path().join("scratch");
    let version = |name: &str, closed: bool| {
        let set = Policies::write(&scratch);
        fs::create_dir(mount.join(name)).unwrap();
        fs::copy(set.path("provider.toml"), mount.join(name).join("provider.toml")).unwrap();
        fs::write(mount.join(name).join("policy.cedar"), if closed { set.closed() } else { set.open() }).unwrap();
    };
    version("..2026_01", false);
    point(&mount.join("..data"), "..2026_01");
    for name in ["provider.toml", "policy.cedar"] {
        symlink(format!("..data/{name}"), mount.join(name)).unwrap();
    }
    let gate = builder.with(|config| config.policies.directory = Some(root.clone())).start();
    assert_eq!(carol(&gate).await.status, 200);
    for (name, closed) in [("..2026_02", true), ("..2026_03", false), ("..2026_04", true)] {
        version(name, closed);
        let old = fs::read_link(mount.join("..data")).unwrap();
        let swap = || {
            point(&mount.join("..data"), name);
            fs::remove_dir_all(mount.join(old)).unwrap();
        };
        edit(&gate, if closed { 403 } else { 200 }, name, swap).await;
    }
    assert!(gate.records_of("reload").iter().all(|record| record["succeeded"] == true));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_config_map_may_hold_every_provider_behind_one_link() {
    let builder = GateBuilder::rocketchat().await;
    let mount = builder.folder.path().join("mount");
    fs::create_dir(&mount).unwrap();
    Policies::write(&mount.join("..1"));
    point(&mount.join("..data"), "..1");
    symlink("..data/rocketchat", mount.join("rocketchat")).unwrap();
    let gate = builder.with(|config| config.policies.directory = Some(mount.clone())).start();
    for (name, closed) in [("..2", true), ("..3", false)] {
        let set = Policies::write(&mount.join(name));
        set.put("policy.cedar", &if closed { set.closed() } else { set.open() });
        edit(&gate, if closed { 403 } else { 200 }, name, || point(&mount.join("..data"), name)).await;
    }
    let set = Policies(mount.join("..3"));
    edit(&gate, 403, "an edit behind the link", || set.put("policy.cedar", &set.closed())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_folder_may_be_renamed_away_and_back_and_another_take_its_place() {
    let (gate, policies) = gate_by(ReloadBy::Watch).await;
    let revision = status(&gate).await["policy_revision"].clone();
    let away = policies.0.with_file_name("away");
    fs::rename(&policies.0, &away).unwrap();
    let failed = until("the vanished folder to be told", || gate.records_of("reload").pop()).await;
    assert_eq!(failed["succeeded"], false);
    assert!(failed["error"].as_str().unwrap().contains("No such file or directory"), "{failed}");
    assert_eq!(failed["policy_revision"], revision);
    assert_eq!(carol(&gate).await.status, 200, "the last good rules stay");
    assert_eq!(gate.metric("rolegate_policy_matches_disk").await, 0.0);
    fs::rename(&away, &policies.0).unwrap();
    until("the folder to be back", || (gate.records_of("reload").last()?["succeeded"] == true).then_some(())).await;
    gate.until_metric("rolegate_policy_matches_disk", 1.0).await;
    edit(&gate, 403, "an edit after the folder came back", || policies.put("policy.cedar", &policies.closed())).await;

    let other = Policies::write(&policies.0.with_file_name("other"));
    fs::rename(&policies.0, &away).unwrap();
    edit(&gate, 200, "another folder in its place", || fs::rename(&other.0, &policies.0).unwrap()).await;
    edit(&gate, 403, "an edit of the folder that took its place", || policies.put("policy.cedar", &policies.closed())).await;
    let part = Policies::write(&policies.0.with_file_name("part"));
    fs::rename(policies.0.join("rocketchat"), policies.0.with_file_name("gone")).unwrap();
    edit(&gate, 200, "another provider's folder in its place", || {
        fs::rename(part.0.join("rocketchat"), policies.0.join("rocketchat")).unwrap()
    })
    .await;
    edit(&gate, 403, "an edit of the provider's folder that took its place", || policies.put("policy.cedar", &policies.closed()))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_edit_changes_nothing_but_the_metrics_the_status_and_a_record() {
    let (gate, policies) = gate_by(ReloadBy::Signal).await;
    let running = status(&gate).await["policy_revision"].clone();
    let info = format!("rolegate_policy_info{{revision=\"{}\"}}", running.as_str().unwrap());
    let failing = "[[case]]\nname = \"eve may\"\nrequest = \"GET /api/v1/rooms.roles?rid=r1\"\nsubject = { id = \"u1\" }\nexpect = \"permit\"\n";
    let lines = policies.open().lines().count();
    let broken = [
        (
            "policy.cedar",
            format!("{}permit (principal, action, resource", policies.open()),
            format!("policy.cedar:{}:", lines + 1),
        ),
        (
            "policy.cedar",
            policies.open().replace(
                "context.params has fields && context.params.fields",
                "context.params has feilds && context.params.feilds",
            ),
            "feilds".to_owned(),
        ),
        ("cases.toml", failing.to_owned(), "cases.toml:1:1: the case `eve may` fails: expected permit, found deny".to_owned()),
        (
            "provider.toml",
            Policies::built_in("provider.toml").replace("\nsummary = ", "\nsumary = "),
            "did you mean `summary`?".to_owned(),
        ),
    ];
    for (name, text, told) in broken {
        let stamp = gate.metric("rolegate_config_last_reload_success_timestamp_seconds").await;
        policies.put(name, &text);
        let answer = post(&gate, "/reload").await;
        assert_eq!(answer.status, 422, "{name}: {}", answer.text());
        let error = answer.json()["error"].as_str().unwrap().to_owned();
        assert!(error.contains(&told), "{name}: {error}");
        let place = error.split(": ").next().unwrap();
        let numbers: Vec<&str> = place.rsplitn(3, ':').take(2).collect();
        assert!(numbers.iter().all(|number| number.parse::<usize>().is_ok()), "no line and column in {place}");
        let status = status(&gate).await;
        assert_eq!(status["policy_revision"], running);
        assert_eq!(status["last_reload"]["succeeded"], false);
        assert_eq!(status["last_reload"]["error"], error.as_str());
        let record = gate.records_of("reload").pop().unwrap();
        assert_eq!((&record["succeeded"], &record["error"]), (&json!(false), &json!(error)));
        assert_eq!((&record["policy_revision"], &record["previous_revision"]), (&running, &running));
        assert_eq!(gate.metric("rolegate_config_last_reload_successful").await, 0.0);
        assert_eq!(gate.metric("rolegate_config_last_reload_success_timestamp_seconds").await, stamp);
        assert_eq!(gate.metric("rolegate_policy_matches_disk").await, 0.0);
        assert_eq!(gate.metric(&info).await, 1.0);
        assert_eq!(carol(&gate).await.status, 200);
        assert_eq!(gate.admin_get("/readyz").await.status, 200, "what runs is still good");

        match name {
            "cases.toml" => fs::remove_file(policies.path(name)).unwrap(),
            _ => policies.put(name, Policies::built_in(name)),
        }
        assert_eq!(post(&gate, "/reload").await.json()["policy_revision"], running);
        let status = crate::reload::status(&gate).await;
        assert_eq!((&status["last_reload"]["succeeded"], &status["last_reload"]["error"]), (&json!(true), &Value::Null));
        assert_eq!(gate.metric("rolegate_config_last_reload_successful").await, 1.0);
        gate.until_metric("rolegate_policy_matches_disk", 1.0).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_edit_that_is_seen_is_told_once_and_mending_it_recovers() {
    let (gate, policies) = gate_by(ReloadBy::Watch).await;
    policies.put("policy.cedar", "permit (");
    let told = until("the broken edit to be told", || gate.records_of("reload").pop()).await;
    assert!(told["error"].as_str().unwrap().contains("policy.cedar:1:"), "{told}");
    assert_eq!(carol(&gate).await.status, 200);
    let other = policies.0.with_file_name("unrelated");
    fs::write(&other, "a change beside the folder").unwrap();
    policies.put("policy.cedar", &policies.open());
    until("the mended file", || (gate.records_of("reload").last()?["succeeded"] == true).then_some(())).await;
    assert_eq!(gate.records_of("reload").len(), 2, "{:?}", gate.records_of("reload"));
    assert_eq!(gate.metric("rolegate_config_last_reload_successful").await, 1.0);
    gate.until_metric("rolegate_policy_matches_disk", 1.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn by_signal_edits_wait_but_the_difference_shows() {
    let (gate, policies) = gate_by(ReloadBy::Signal).await;
    gate.until_metric("rolegate_policy_matches_disk", 1.0).await;
    policies.put("policy.cedar", &policies.closed());
    let seen = Instant::now();
    while gate.metric("rolegate_policy_matches_disk").await != 0.0 {
        assert!(seen.elapsed() < Duration::from_secs(10), "the difference never shows");
    }
    assert_eq!(carol(&gate).await.status, 200);
    assert_eq!(gate.records_of("reload").len(), 0);
    let answer = post(&gate, "/reload").await;
    assert_eq!(answer.status, 200);
    assert_eq!(carol(&gate).await.status, 403);
    let record = gate.records_of("reload").pop().unwrap();
    assert_eq!(record["policy_revision"], answer.json()["policy_revision"]);
    assert_ne!(record["policy_revision"], record["previous_revision"]);
    gate.until_metric("rolegate_policy_matches_disk", 1.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sighup_makes_the_program_read_its_policies_again() {
    let sample = Sample::rocketchat().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let policies = Policies::write(&folder.path().join("policies"));
    let config = format!(
        "[[upstream]]\nprovider = \"rocketchat\"\nurl = \"{}\"\n[policies]\ndirectory = \"policies\"\nreload = \"signal\"\n",
        sample.url()
    );
    fs::write(folder.path().join("rolegate.toml"), config).unwrap();
    let mut program = Process::run(folder, &["run", "--config", "rolegate.toml"]).await;
    let target = format!("/api/v1/rooms.roles?rid={BOARDROOM}");
    let mut connection = program.connect().await;
    assert_eq!(connection.get(&target, &login("carol")).await.status, 200);
    policies.put("policy.cedar", &policies.closed());
    program.signal("-HUP");
    let log = program.folder.path().join("audit/audit.jsonl");
    let reloads = || records(&log).into_iter().filter(|record| record["kind"] == "reload").collect::<Vec<_>>();
    until("the reload", || (reloads().len() == 1).then_some(())).await;
    assert_eq!(connection.get(&target, &login("carol")).await.status, 403);
    policies.put("policy.cedar", "broken");
    program.signal("-HUP");
    until("the refused reload", || (reloads().len() == 2).then_some(())).await;
    assert_eq!(connection.get(&target, &login("carol")).await.status, 403);
    until("the fault in the log", || program.log().contains("rules refused; the last good ones stay").then_some(())).await;
    program.terminate();
    assert_eq!(program.exit().await, 0);
}

#[test]
fn a_broken_set_at_the_start_exits_3_with_every_fault() {
    let folder = tempfile::tempdir().unwrap();
    let policies = Policies::write(&folder.path().join("policies"));
    let bad = "\n@id(\"a\") permit (principal, action == RocketChat::Action::\"rooms.rolls\", resource);\n\
               @id(\"b\") permit (principal in RocketChat::Permission::\"view-c-rooms\", action == RocketChat::Action::\"rooms.roles\", resource);\n";
    policies.put("policy.cedar", &format!("{}{bad}", policies.open()));
    policies.put("cases.toml", "[[case]]\nname = \"x\"\nrequest = \"GET /\"\nexpects = \"deny\"\n");
    let arguments = ["run", "--provider", "rocketchat", "--upstream", "http://127.0.0.1:9", "--policies", "policies"];
    let ended = Program::new(&arguments).within(folder.path()).run();
    assert_eq!(ended.code, 3, "{}", ended.err);
    let lines = policies.open().lines().count();
    for told in [
        format!("policies/rocketchat/policy.cedar:{}:", lines + 2),
        format!("policies/rocketchat/policy.cedar:{}:", lines + 3),
        "policies/rocketchat/cases.toml:4:1: unknown field `expects`".to_owned(),
        "did you mean `RocketChat::Action::\"rooms.roles\"`?".to_owned(),
        "did you mean `view-c-room`?".to_owned(),
        "did you mean `expect`?".to_owned(),
    ] {
        assert!(ended.err.contains(&told), "nothing tells `{told}`:\n{}", ended.err);
    }
    assert!(!folder.path().join("audit").exists(), "a start that fails leaves nothing behind");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_keeps_the_set_it_began_with() {
    let (gate, policies) = gate_by(ReloadBy::Signal).await;
    let began = status(&gate).await["policy_revision"].clone();
    let hold = gate.sample.hold("/api/v1/subscriptions.getOne");
    let gate = Arc::new(gate);
    let asking = {
        let gate = Arc::clone(&gate);
        tokio::spawn(async move { carol(&gate).await })
    };
    hold.until_waiting(1).await;
    policies.put("policy.cedar", &policies.closed());
    let now = post(&gate, "/reload").await.json()["policy_revision"].clone();
    assert_ne!(began, now);
    hold.release();
    assert_eq!(asking.await.unwrap().status, 200);
    assert_eq!(gate.last_decision()["policy_revision"], began);
    assert_eq!(carol(&gate).await.status, 403);
    let record = gate.last_decision();
    assert_eq!((&record["policy_revision"], &record["reason"]), (&now, &json!("policy_forbidden")));
    assert_eq!(record["policies"], json!(["closed"]));
}
