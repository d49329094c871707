//! A credential becomes a caller.

use tokio::task::JoinSet;
use tokio::time::{Instant, advance};

use super::*;

/// An upstream that fails in one way.
type Failing = fn(&Question) -> Result<Reply, AskError>;

const SECOND: Duration = Duration::from_secs(1);

/// Starts `count` needs for one credential while the upstream answers nothing, and gives their outcomes.
async fn all_at_once(world: &World, credential: &Credential, count: usize) -> Vec<Result<Known<Caller>, Failure>> {
    world.upstream.hold();
    let mut needs = JoinSet::new();
    for _ in 0..count {
        let (identity, plan, credential) = (world.identity.clone(), Arc::clone(&world.plan), credential.clone());
        needs.spawn(async move { identity.caller(&plan, &credential, HERE).await });
    }
    world.upstream.until_asked(1).await;
    world.upstream.release();
    needs.join_all().await
}

#[tokio::test(start_paused = true)]
async fn a_caller_is_asked_about_once_and_known_afterwards() {
    let world = World::new(settings());
    let first = world.caller(&login("u7", "t")).await.unwrap();
    advance(SECOND).await;
    let again = world.caller(&login("u7", "t")).await.unwrap();
    assert!(Arc::ptr_eq(&first.value, &again.value), "what is prepared for the first serves the second");
    assert_eq!(again.age, SECOND);
    assert!(!again.stale);
    let subject = &again.value.subject;
    assert_eq!((&*subject.id, &*subject.name), ("u7", "name of u7"));
    assert_eq!(*subject.roles, ["user".into()]);
    assert_eq!(subject.attributes["email"], ["Alice@Example.org"]);
    assert_eq!(subject.attributes["accounts"], ["A-1", "A-2"]);
    assert_eq!(world.upstream.targets(), ["/api/v1/me"]);
    assert_eq!((world.counted("caller", "miss"), world.counted("caller", "hit")), (1, 1));
}

#[tokio::test]
async fn a_question_carries_the_credential_and_an_address_and_nothing_else() {
    for (lookup_address, own) in [(LookupAddress::Caller, true), (LookupAddress::Client, false)] {
        let world = World::new(Settings { lookup_address, ..settings() });
        world.caller(&login("a", "t")).await.unwrap();
        world.caller(&login("b", "t")).await.unwrap();
        let questions = world.upstream.questions();
        assert_eq!(questions[0].headers, login("a", "t").headers);
        assert_eq!(questions[0].base, None);
        assert_eq!(questions[0].client != questions[1].client, own, "an address of its own for each caller");
        assert_eq!(questions[0].client == Some(HERE), !own);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_at_once_with_one_new_credential_ask_once() {
    let world = World::new(settings());
    let got = all_at_once(&world, &login("u1", "t"), 1000).await;
    assert!(got.iter().all(|known| known.as_ref().is_ok_and(|known| &*known.value.subject.id == "u1")));
    assert_eq!(world.upstream.asked(), 1);
    assert_eq!(world.counted("caller", "miss"), 1);
    assert_eq!(world.counted("caller", "coalesced") + world.counted("caller", "hit"), 999);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_at_once_with_one_refused_credential_ask_once() {
    let world = World::new(settings());
    world.upstream.answers(|_| reply(401, &json!({"status": "error"})));
    let got = all_at_once(&world, &login("u1", "bad"), 1000).await;
    assert!(got.iter().all(|known| matches!(known, Err(Failure::Refused))));
    assert_eq!(world.upstream.asked(), 1);
    assert_eq!(world.counted("caller", "refused"), 1000);
}

#[tokio::test(start_paused = true)]
async fn a_refused_credential_is_remembered_for_its_time_only() {
    let world = World::new(settings());
    world.upstream.answers(|_| reply(401, &json!({})));
    for _ in 0..3 {
        assert_eq!(world.caller(&login("u1", "t")).await.unwrap_err(), Failure::Refused);
    }
    assert_eq!(world.upstream.asked(), 1);
    world.upstream.answers(me);
    advance(5 * SECOND).await;
    assert_eq!(&*world.caller(&login("u1", "t")).await.unwrap().value.subject.id, "u1");
}

#[tokio::test]
async fn a_spray_of_refused_credentials_evicts_no_good_one() {
    let world = World::new(Settings { capacity: 20, ..settings() });
    world.caller(&login("good", "t")).await.unwrap();
    world.upstream.answers(|_| reply(401, &json!({})));
    for number in 0..500 {
        world.caller(&login("bad", &number.to_string())).await.unwrap_err();
    }
    world.caller(&login("good", "t")).await.unwrap();
    assert_eq!(world.upstream.asked(), 501, "the good one was still known");
    let sizes = world.identity.sizes();
    assert!(sizes.refused <= 2, "{sizes:?}");
    assert_eq!(sizes.callers, 1);
}

#[tokio::test]
async fn what_does_not_fit_is_evicted_and_counted() {
    let world = World::new(Settings { capacity: 10, ..settings() });
    for number in 0..100 {
        world.caller(&login(&format!("u{number}"), "t")).await.unwrap();
    }
    let kept = world.identity.sizes().callers;
    assert!(kept <= 10);
    assert_eq!(world.metric(r#"rolegate_fact_entries{fact="caller"} "#), kept);
    assert_eq!(world.metric(r#"rolegate_fact_evictions_total{fact="caller"} "#), 100 - kept);
}

#[tokio::test]
async fn an_answered_id_other_than_the_sent_one_is_a_refusal() {
    let world = World::new(settings());
    world.upstream.answers(|_| ok(&json!({"_id": "u1", "roles": []})));
    assert_eq!(world.caller(&login("u2", "t")).await.unwrap_err(), Failure::Refused);
    assert_eq!(world.caller(&login("U1", "t")).await.unwrap_err(), Failure::Refused, "byte for byte");
    assert_eq!(world.caller(&login("u2", "t")).await.unwrap_err(), Failure::Refused);
    assert_eq!(world.upstream.asked(), 2, "remembered like any refusal");
    assert!(world.caller(&bearer("t")).await.is_ok(), "a credential that claims no id cannot claim a wrong one");
}

#[tokio::test(start_paused = true)]
async fn a_caller_is_asked_about_again_when_the_time_is_over_and_not_before() {
    let world = World::new(settings());
    world.caller(&bearer("t")).await.unwrap();
    advance(30 * SECOND - Duration::from_millis(1)).await;
    world.caller(&bearer("t")).await.unwrap();
    assert_eq!(world.upstream.asked(), 1);
    advance(Duration::from_millis(1)).await;
    world.caller(&bearer("t")).await.unwrap();
    assert_eq!(world.upstream.asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_older_caller_stands_in_for_a_failed_lookup_within_max_stale_only() {
    let world = World::new(Settings { max_stale: 60 * SECOND, ..settings() });
    world.caller(&bearer("t")).await.unwrap();
    world.upstream.answers(|_| reply(502, &json!({})));
    advance(89 * SECOND).await;
    let known = world.caller(&bearer("t")).await.unwrap();
    assert!(known.stale);
    assert_eq!(known.age, 89 * SECOND);
    assert_eq!(world.counted("caller", "stale"), 1);
    advance(SECOND).await;
    assert!(matches!(world.caller(&bearer("t")).await, Err(Failure::Unavailable { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_limit_and_a_refusal_are_never_covered_by_an_older_caller() {
    let world = World::new(Settings { max_stale: 60 * SECOND, ..settings() });
    world.caller(&bearer("t")).await.unwrap();
    advance(31 * SECOND).await;
    world.upstream.answers(|_| reply(429, &json!({})));
    assert_eq!(world.caller(&bearer("t")).await.unwrap_err(), Failure::Limited { retry_after: 5 });
    world.upstream.answers(|_| reply(401, &json!({})));
    assert_eq!(world.caller(&bearer("t")).await.unwrap_err(), Failure::Refused);
    advance(6 * SECOND).await;
    world.upstream.answers(|_| reply(502, &json!({})));
    assert!(
        matches!(world.caller(&bearer("t")).await, Err(Failure::Unavailable { .. })),
        "a refusal drops what could have stood in"
    );
}

#[tokio::test]
async fn a_limit_is_known_by_its_status_or_by_its_error_code_and_told_in_seconds() {
    let world = World::new(settings());
    let limited = |status: u16, body: Json| {
        move |_: &Question| {
            let headers = vec![("x-ratelimit-reset".to_owned(), "17".to_owned())];
            Ok(Reply { status, headers, body: body.to_string().into_bytes() })
        }
    };
    let hourly = json!({"errorCode": "HOURLY_APIINVOCATION_LIMIT_EXCEEDED"});
    for (status, body) in [(429, json!({})), (400, hourly.clone()), (401, hourly.clone()), (200, hourly)] {
        world.upstream.answers(limited(status, body));
        assert_eq!(world.caller(&bearer("t")).await.unwrap_err(), Failure::Limited { retry_after: 17 }, "{status}");
    }
    assert_eq!(world.upstream.asked(), 4, "a limit is not remembered");
}

#[tokio::test]
async fn no_failure_is_remembered() {
    let world = World::new(settings());
    let failures: [Failing; 11] = [
        |_| Err(AskError::Timeout),
        |_| Err(AskError::Connect("refused".into())),
        |_| Err(AskError::TooLarge),
        |_| Err(AskError::Broken("reset".into())),
        |_| reply(500, &json!({"_id": "u1", "roles": []})),
        |_| reply(403, &json!({"_id": "u1", "roles": []})),
        |_| reply(302, &json!({"_id": "u1", "roles": []})),
        |_| Ok(Reply { status: 200, headers: vec![], body: b"<html>".to_vec() }),
        |_| ok(&json!({"roles": []})),
        |_| ok(&json!({"_id": "", "roles": []})),
        |_| ok(&json!({"_id": "u1", "roles": "admin"})),
    ];
    for (index, failure) in failures.into_iter().enumerate() {
        world.upstream.answers(failure);
        assert!(matches!(world.caller(&bearer("t")).await, Err(Failure::Unavailable { .. })), "failure {index}");
        assert_eq!(world.upstream.asked(), index + 1);
    }
    world.upstream.answers(me);
    assert!(world.caller(&bearer("t")).await.is_ok());
}

#[tokio::test]
async fn a_caller_without_a_list_of_roles_has_none() {
    for roles in [json!({}), json!({"roles": null}), json!({"roles": []})] {
        let world = World::new(settings());
        let mut document = json!({"_id": "u1"});
        document.as_object_mut().unwrap().extend(roles.as_object().unwrap().clone());
        world.upstream.answers(move |_| ok(&document));
        assert!(world.caller(&bearer("t")).await.unwrap().value.subject.roles.is_empty());
    }
    for roles in [json!("admin"), json!({"0": "admin"}), json!([null]), json!([{}]), json!(true)] {
        let world = World::new(settings());
        let document = json!({"_id": "u1", "roles": roles});
        world.upstream.answers(move |_| ok(&document));
        assert!(matches!(world.caller(&bearer("t")).await, Err(Failure::Unavailable { .. })), "{roles}");
    }
}

#[tokio::test]
async fn what_is_not_the_servers_own_whole_answer_is_not_believed() {
    let good = br#"{"_id":"u1","roles":["user"]}"#;
    let told = |status: u16, headers: &[(&str, &str)], body: &[u8]| {
        let headers: Vec<(String, String)> =
            headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let body = body.to_vec();
        move |_: &Question| Ok(Reply { status, headers: headers.clone(), body: body.clone() })
    };
    let world = World::new(settings());
    for (name, answer) in [
        ("a name twice", told(200, &[], br#"{"_id":"u1","roles":["user"],"roles":["admin"]}"#)),
        ("two ids and two lists", told(200, &[], br#"{"_id":"uAdmin","_id":"u1","roles":["user"],"roles":["admin"]}"#)),
        ("two ids", told(200, &[], br#"{"_id":"uAdmin","_id":"uUser","roles":["user"]}"#)),
        ("a name twice, far inside", told(200, &[], br#"{"_id":"u1","roles":["user"],"x":[{"a":1,"a":1}]}"#)),
        ("no success", told(200, &[], br#"{"success":false,"_id":"u1","roles":["admin"]}"#)),
        ("no success, in words", told(200, &[], br#"{"success":"true","_id":"u1","roles":["admin"]}"#)),
        ("an error", told(200, &[], br#"{"errorCode":"X","_id":"u1","roles":["admin"]}"#)),
        ("a part", told(206, &[], good)),
        ("none", told(204, &[], good)),
        ("somebody else's", told(203, &[], good)),
        ("a coding", told(200, &[("content-encoding", "gzip")], good)),
        ("two codings", told(200, &[("content-encoding", "identity, br")], good)),
        ("a coding behind another", told(200, &[("content-encoding", "identity"), ("content-encoding", "GZIP")], good)),
    ] {
        world.upstream.answers(answer);
        assert!(matches!(world.caller(&bearer("t")).await, Err(Failure::Unavailable { .. })), "{name}");
    }
    world.upstream.answers(told(200, &[("content-encoding", "Identity")], br#"{"success":true,"_id":"u1","roles":[]}"#));
    assert!(world.caller(&bearer("t")).await.is_ok());
}

#[tokio::test]
async fn a_route_that_the_server_lacks_is_told_and_is_not_an_answer() {
    let world = World::new(settings());
    let lacks: [Failing; 4] = [
        |_| Ok(Reply { status: 404, headers: vec![], body: b"404 Not Found".to_vec() }),
        |_| Ok(Reply { status: 405, headers: vec![], body: b"<html>".to_vec() }),
        |_| reply(404, &json!({"success": false, "error": "Invalid URL"})),
        |_| reply(400, &json!({"success": false, "error": "Invalid URL"})),
    ];
    let caller = world.caller(&bearer("t")).await.unwrap().value;
    let room = |number: usize| {
        let (identity, plan, caller) = (world.identity.clone(), Arc::clone(&world.plan), Arc::clone(&caller));
        async move { identity.fact(&plan, "room", &caller, &bearer("t"), &[("room", &number.to_string())], HERE).await }
    };
    let subscription = "GET /api/v1/subscriptions.getOne?roomId={room}";
    for (number, answer) in lacks.into_iter().enumerate() {
        world.upstream.answers(answer);
        let failure = room(number).await.unwrap_err();
        assert_eq!(failure, Failure::Unavailable { detail: format!("the server has no route `{subscription}`") });
        assert_eq!(world.identity.missing_routes(), [subscription]);
    }
    world.upstream.answers(|question| match question.target.starts_with("/api/v1/subscriptions") {
        true => ok(&json!({"subscription": null, "success": true})),
        false => reply(404, &json!({"success": false, "error": "not there"})),
    });
    assert!(room(9).await.is_ok(), "a room that is not there is an answer");
    assert!(world.identity.missing_routes().is_empty());
}

#[tokio::test]
async fn each_lookup_is_tried_once_without_a_credential() {
    let world = World::new(settings());
    world.upstream.answers(|question| {
        assert!(question.headers.is_empty());
        match question.target.as_str() {
            "/v2/roles/rolegate" => Ok(Reply { status: 404, headers: vec![], body: b"<html>".to_vec() }),
            "/api/v1/permissions.listAll" => Err(AskError::Timeout),
            _ => reply(401, &json!({})),
        }
    });
    world.identity.probe(&world.plan).await;
    assert_eq!(world.upstream.asked(), world.plan.lookups().count());
    assert_eq!(world.identity.missing_routes(), ["GET /v2/roles/{role}"]);
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_does_not_answer_is_given_up_after_the_bound() {
    let world = World::new(settings());
    world.upstream.hold();
    let began = Instant::now();
    let failure = world.caller(&bearer("t")).await.unwrap_err();
    assert_eq!(failure, Failure::Unavailable { detail: "no answer within 3s".into() });
    assert_eq!(began.elapsed(), 3 * SECOND);
    world.upstream.release();
    assert!(world.caller(&bearer("t")).await.is_ok());
}

#[tokio::test]
async fn a_client_that_goes_away_cancels_nothing() {
    let world = World::new(settings());
    world.upstream.hold();
    let (identity, plan) = (world.identity.clone(), Arc::clone(&world.plan));
    let gone = tokio::spawn(async move { identity.caller(&plan, &bearer("t"), HERE).await });
    world.upstream.until_asked(1).await;
    gone.abort();
    assert!(gone.await.unwrap_err().is_cancelled());
    world.upstream.release();
    assert!(world.caller(&bearer("t")).await.is_ok());
    assert_eq!(world.upstream.asked(), 1, "the second waited for the first one's lookup");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lookup_that_panics_is_a_failure_for_all_who_wait_and_for_nobody_after() {
    let world = World::new(settings());
    world.upstream.answers(|_| panic!("a fault in the connector (expected by this test)"));
    let got = tokio::time::timeout(10 * SECOND, all_at_once(&world, &bearer("t"), 100)).await.expect("nobody hangs");
    assert!(got.iter().all(|known| matches!(known, Err(Failure::Unavailable { .. }))));
    world.upstream.answers(me);
    assert!(world.caller(&bearer("t")).await.is_ok());
}

#[tokio::test]
async fn too_many_lookups_are_turned_away_at_once_and_waiting_for_another_counts_as_none() {
    let world = World::new(Settings { lookups: 3, lookups_per_address: 2, ..settings() });
    world.upstream.hold();
    let mut needs = JoinSet::new();
    let mut start = |token: &str, client: IpAddr| {
        let (identity, plan, credential) = (world.identity.clone(), Arc::clone(&world.plan), bearer(token));
        needs.spawn(async move { identity.caller(&plan, &credential, client).await });
    };
    start("a", HERE);
    start("b", HERE);
    world.upstream.until_asked(2).await;
    assert_eq!(world.identity.caller(&world.plan, &bearer("c"), HERE).await.unwrap_err(), Failure::Overloaded);
    start("a", HERE);
    start("b", HERE);
    start("d", THERE);
    world.upstream.until_asked(3).await;
    assert_eq!(world.identity.caller(&world.plan, &bearer("e"), THERE).await.unwrap_err(), Failure::Overloaded);
    world.upstream.release();
    assert!(needs.join_all().await.iter().all(Result::is_ok));
    assert_eq!(world.upstream.asked(), 3);
    assert!(world.identity.caller(&world.plan, &bearer("c"), HERE).await.is_ok(), "every right was given back");
}

#[tokio::test]
async fn another_version_of_the_plan_shares_nothing() {
    let world = World::new(settings());
    world.caller(&bearer("t")).await.unwrap();
    let other = Arc::new(Plan { digest: [2; 32], ..(*world.plan).clone() });
    world.identity.caller(&other, &bearer("t"), HERE).await.unwrap();
    assert_eq!(world.upstream.asked(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_has_an_answer_may_ask_the_next_question_at_once() {
    let world = World::new(Settings { lookups: 1, ..settings() });
    for number in 0..2000 {
        assert!(world.caller(&bearer(&number.to_string())).await.is_ok(), "question {number}");
    }
}

#[test]
fn a_runtime_that_has_shut_down_is_a_failure_and_not_a_hang() {
    let world = World::new(settings());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let handle = runtime.handle().clone();
    drop(runtime);
    let _entered = handle.enter();
    let known = futures_util::FutureExt::now_or_never(world.caller(&bearer("t"))).expect("an answer at once");
    assert!(matches!(known, Err(Failure::Unavailable { .. })));
}
