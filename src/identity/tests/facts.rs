//! What is known about a caller, by the steps of a fact.

use tokio::time::{Instant, advance};

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// A world in which everything but the caller lookup is answered by `responder`.
fn world(responder: impl Fn(&str) -> Result<Reply, AskError> + Send + Sync + 'static) -> World {
    let world = World::new(settings());
    answers(&world, responder);
    world
}

fn answers(world: &World, responder: impl Fn(&str) -> Result<Reply, AskError> + Send + Sync + 'static) {
    world.upstream.answers(move |question| match question.target.as_str() {
        "/api/v1/me" => me(question),
        other => responder(other),
    });
}

impl World {
    async fn ask(&self, fact: &str, inputs: &[(&str, &str)]) -> Result<Known<Record>, Failure> {
        let caller = self.caller(&bearer("t")).await?.value;
        self.identity.fact(&self.plan, fact, &caller, &bearer("t"), inputs, HERE).await
    }

    /// What was asked beside the caller lookup.
    fn asked_about_facts(&self) -> Vec<String> {
        self.upstream.targets().into_iter().filter(|target| target != "/api/v1/me").collect()
    }
}

fn record(known: &Known<Record>) -> Json {
    serde_json::to_value(&*known.value).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_member_of_a_room_is_known_by_one_question() {
    let world = world(|_| ok(&json!({"subscription": {"roles": ["owner"]}})));
    let known = world.ask("room", &[("room", "r1")]).await.unwrap();
    assert_eq!(record(&known), json!({"member": true, "roles": ["owner"], "kind": "none"}));
    advance(9 * SECOND).await;
    assert_eq!(world.ask("room", &[("room", "r1")]).await.unwrap().age, 9 * SECOND);
    assert_eq!(world.asked_about_facts(), ["/api/v1/subscriptions.getOne?roomId=r1"]);
    advance(SECOND).await;
    world.ask("room", &[("room", "r1")]).await.unwrap();
    assert_eq!(world.asked_about_facts().len(), 2, "the fact's own time is over");
    world.ask("room", &[("room", "r2")]).await.unwrap();
    assert_eq!(world.asked_about_facts().len(), 3, "another room is another fact");
}

#[tokio::test]
async fn what_a_later_step_finds_or_does_not_find_completes_the_fact() {
    let world = world(|target| match target {
        "/api/v1/rooms.info?roomId=public" => ok(&json!({"room": {"t": "c"}})),
        "/api/v1/rooms.info?roomId=strange" => ok(&json!({"room": {}})),
        "/api/v1/rooms.info?roomId=broken" => reply(500, &json!({})),
        target if target.starts_with("/api/v1/rooms.info") => reply(404, &json!({})),
        _ => ok(&json!({"subscription": null})),
    });
    let public = world.ask("room", &[("room", "public")]).await.unwrap();
    assert_eq!(record(&public), json!({"member": false, "roles": [], "kind": "c"}));
    for unknown in ["secret", "strange"] {
        let known = world.ask("room", &[("room", unknown)]).await.unwrap();
        assert_eq!(record(&known), json!({"member": false, "roles": [], "kind": "none"}), "{unknown}");
    }
    assert!(matches!(world.ask("room", &[("room", "broken")]).await, Err(Failure::Unavailable { .. })));
}

#[tokio::test]
async fn a_thousand_needs_for_one_fact_ask_once() {
    let world = world(|_| ok(&json!({"subscription": null, "room": {"t": "c"}})));
    let caller = world.caller(&bearer("t")).await.unwrap().value;
    let mut needs = tokio::task::JoinSet::new();
    for _ in 0..1000 {
        let (identity, plan, caller) = (world.identity.clone(), Arc::clone(&world.plan), Arc::clone(&caller));
        needs.spawn(async move { identity.fact(&plan, "room", &caller, &bearer("t"), &[("room", "r")], HERE).await });
    }
    assert!(needs.join_all().await.iter().all(Result::is_ok));
    assert_eq!(world.asked_about_facts().len(), 2, "one for each of its steps");
}

#[tokio::test]
async fn a_step_without_a_value_for_its_placeholder_asks_nothing() {
    let world = world(|target| panic!("asked for {target}"));
    for inputs in [&[("room", "")][..], &[], &[("other", "r1")]] {
        let known = world.ask("room", inputs).await.unwrap();
        assert_eq!(record(&known), json!({"member": false, "roles": [], "kind": "none"}), "{inputs:?}");
    }
    for dots in [".", ".."] {
        let known = world.ask("power", &[("room", dots)]).await.unwrap();
        assert_eq!(record(&known), json!({"roles": []}), "{dots} would be asked of another path");
    }
    assert!(world.asked_about_facts().is_empty());
}

#[tokio::test]
async fn a_step_that_could_not_read_its_answer_asks_nothing() {
    let mut world = world(|target| panic!("asked for {target}"));
    let mut plan = (*world.plan).clone();
    plan.facts = vec![FactPlan {
        name: "phone".into(),
        needs: Vec::new(),
        ttl: None,
        steps: vec![Step {
            outputs: vec![at("line", Kind::Text, "/lines/{caller.phone}", None)],
            ..step(Source::Lookup(lookup("GET /lines")))
        }],
    }];
    world.plan = Arc::new(plan);
    assert_eq!(record(&world.ask("phone", &[]).await.unwrap()), json!({"line": ""}));
}

#[tokio::test]
async fn an_input_stays_one_value_of_the_question() {
    let world = world(|_| ok(&json!({"subscription": {}, "users": {}})));
    world.ask("room", &[("room", "a&roomId=b#c d")]).await.unwrap();
    world.ask("power", &[("room", "!a/b:c")]).await.unwrap();
    assert_eq!(
        world.asked_about_facts(),
        ["/api/v1/subscriptions.getOne?roomId=a%26roomId%3Db%23c%20d", "/state/%21a%2Fb%3Ac/m.room.power_levels"]
    );
    assert_eq!(world.upstream.questions()[2].base.as_deref(), Some("account"), "the lookup's own base");
}

#[tokio::test]
async fn one_row_is_found_over_all_pages_and_only_their_query_is_followed() {
    let world = world(|target| match target {
        "/v2/rooms/7/users?filter=Alice%40Example.org&count=100" => {
            ok(&json!({"users": [{"email": "malice@example.org"}], "nextUri": "https://evil.example/steal?page=2"}))
        }
        "/v2/rooms/7/users?page=2" => ok(&json!({"users": [{"email": "ALICE@example.ORG", "roleId": 12}, {}], "nextUri": null})),
        "/v2/roles/12" => ok(&json!({"isExternal": false})),
        other => panic!("asked for {other}"),
    });
    let known = world.ask("roster", &[("room", "7")]).await.unwrap();
    assert_eq!(record(&known), json!({"member": true, "role": "12", "external": false}));
    assert!(world.upstream.questions().iter().all(|question| question.base.is_none()));
}

#[tokio::test]
async fn no_row_and_two_rows_are_nothing_known() {
    let unknown = json!({"member": false, "role": "", "external": true});
    for rows in [json!([]), json!([{"email": "alice@example.org", "roleId": 1}, {"email": "Alice@example.org", "roleId": 2}])] {
        let world = world(move |_| ok(&json!({"users": rows})));
        assert_eq!(record(&world.ask("roster", &[("room", "7")]).await.unwrap()), unknown);
        assert_eq!(world.asked_about_facts().len(), 1, "no role is asked for without a row");
    }
    for status in [400, 401, 404] {
        let world = world(move |_| reply(status, &json!({})));
        assert_eq!(record(&world.ask("roster", &[("room", "7")]).await.unwrap()), unknown);
        assert_eq!(world.upstream.asked(), 2, "a listed 401 is an answer, not a doubt");
    }
}

#[tokio::test]
async fn rows_that_cannot_be_read_are_a_failure() {
    for body in [json!({}), json!({"users": null}), json!({"users": {}}), json!({"users": [{"email": "alice@example.org"}]})] {
        let world = world(move |_| ok(&body));
        assert!(matches!(world.ask("roster", &[("room", "7")]).await, Err(Failure::Unavailable { .. })));
    }
}

#[tokio::test]
async fn pages_without_end_are_given_up() {
    let world = world(|_| ok(&json!({"users": [], "nextUri": "?page=1"})));
    assert!(matches!(world.ask("roster", &[("room", "7")]).await, Err(Failure::Unavailable { .. })));
    assert_eq!(world.asked_about_facts().len(), 50);
}

/// Answers each question a second after it was put.
#[derive(Clone)]
struct Slow(Upstream);

impl Ask for Slow {
    async fn ask(&self, question: Question) -> Result<Reply, AskError> {
        tokio::time::sleep(SECOND).await;
        self.0.ask(question).await
    }
}

#[tokio::test(start_paused = true)]
async fn all_steps_and_pages_of_a_fact_share_one_bound_of_time() {
    let upstream = Upstream::answering(|question| match question.target.as_str() {
        "/api/v1/me" => me(question),
        _ => ok(&json!({"users": [], "nextUri": "?page=1"})),
    });
    let identity = Identity::new(settings(), Slow(upstream.clone()), Metrics::new().unwrap()).unwrap();
    let plan = rooms_plan();
    let caller = identity.caller(&plan, &bearer("t"), HERE).await.unwrap().value;
    let began = Instant::now();
    let failure = identity.fact(&plan, "roster", &caller, &bearer("t"), &[("room", "7")], HERE).await.unwrap_err();
    assert!(matches!(failure, Failure::Unavailable { .. }));
    assert_eq!(began.elapsed(), 3 * SECOND);
}

#[tokio::test]
async fn what_the_caller_lookup_already_told_needs_no_question() {
    let world = world(|target| panic!("asked for {target}"));
    for (account, mine) in [("A-1", true), ("a-2", true), ("A-3", false), ("A", false), ("", false)] {
        let known = world.ask("account", &[("account", account)]).await.unwrap();
        assert_eq!(record(&known), json!({"mine": mine}), "{account}");
    }
}

#[tokio::test]
async fn a_number_means_the_roles_it_reaches() {
    for (body, roles) in [
        (json!({"users": {"u1": 100}}), json!(["admin", "moderator"])),
        (json!({"users": {"u1": 60}}), json!(["moderator"])),
        (json!({"users": {"u2": 100}}), json!([])),
    ] {
        let world = world(move |_| ok(&body));
        assert_eq!(record(&world.ask("power", &[("room", "r")]).await.unwrap()), json!({"roles": roles}));
    }
}

#[tokio::test]
async fn a_limit_is_a_limit_even_where_its_status_means_nothing_known() {
    let world = world(|_| reply(400, &json!({"errorCode": "BURST_APIINVOCATION_LIMIT_EXCEEDED"})));
    assert_eq!(world.ask("roster", &[("room", "7")]).await.unwrap_err(), Failure::Limited { retry_after: 5 });
}

#[tokio::test]
async fn an_unexpected_401_is_a_failure_while_the_credential_is_good() {
    let world = world(|_| reply(401, &json!({})));
    for asked in [3, 5] {
        assert!(matches!(world.ask("room", &[("room", "r")]).await, Err(Failure::Unavailable { .. })));
        assert_eq!(world.upstream.asked(), asked, "the caller once, then the fact and the caller again each time");
    }
}

#[tokio::test]
async fn an_unexpected_401_refuses_the_credential_when_the_caller_lookup_does() {
    let world = world(|_| reply(401, &json!({})));
    world.caller(&bearer("t")).await.unwrap();
    world.upstream.answers(|_| reply(401, &json!({})));
    assert_eq!(world.ask("room", &[("room", "r")]).await.unwrap_err(), Failure::Refused);
    assert_eq!(world.upstream.targets(), ["/api/v1/me", "/api/v1/subscriptions.getOne?roomId=r", "/api/v1/me"]);
    assert_eq!(world.caller(&bearer("t")).await.unwrap_err(), Failure::Refused);
    assert_eq!(world.upstream.asked(), 3, "the refusal is remembered and what was known is gone");
}

#[tokio::test]
async fn one_callers_fact_is_never_anothers() {
    let world = World::new(settings());
    world.upstream.answers(|question| {
        let owner = question.headers.iter().any(|(_, value)| value.reveal() == "alice");
        if question.target == "/api/v1/me" {
            return me(question);
        }
        ok(&json!({"subscription": if owner { json!({"roles": ["owner"]}) } else { Json::Null }, "room": {"t": "p"}}))
    });
    for (user, member) in [("alice", true), ("bob", false), ("alice", true)] {
        let caller = world.caller(&login(user, "t")).await.unwrap().value;
        let known = world.identity.fact(&world.plan, "room", &caller, &login(user, "t"), &[("room", "r")], HERE).await.unwrap();
        assert_eq!(known.value.value("member"), Some(&Value::Boolean(member)), "{user}");
    }
}

#[tokio::test]
async fn a_fact_of_an_unknown_name_is_unavailable() {
    let world = world(|target| panic!("asked for {target}"));
    assert!(matches!(world.ask("nothing", &[]).await, Err(Failure::Unavailable { .. })));
}
