//! What was dropped stays dropped, also when it was being looked up.

use tokio::task::JoinHandle;
use tokio::time::advance;

use super::*;

fn start(world: &World, credential: Credential) -> JoinHandle<Result<Known<Caller>, Failure>> {
    let (identity, plan) = (world.identity.clone(), Arc::clone(&world.plan));
    tokio::spawn(async move { identity.caller(&plan, &credential, HERE).await })
}

/// Answers as [`me`] does, with these roles.
fn with_roles(roles: &'static [&'static str]) -> impl Fn(&Question) -> Result<Reply, AskError> + Send + Sync {
    move |_| ok(&json!({"_id": "u1", "roles": roles}))
}

/// A lookup that began before `drop` and whose answer is of that time is not what anybody gets.
async fn a_drop_during_a_lookup(drop: impl Fn(&World)) {
    let world = World::new(settings());
    let answered = Arc::new(Mutex::new(0));
    let count = Arc::clone(&answered);
    world.upstream.answers(move |_| {
        *count.lock() += 1;
        ok(&json!({"_id": "u1", "roles": [if *count.lock() == 1 { "before" } else { "after" }]}))
    });
    world.upstream.hold();
    let waiting = start(&world, login("u1", "t"));
    world.upstream.until_asked(1).await;
    drop(&world);
    world.upstream.release();
    assert_eq!(*waiting.await.unwrap().unwrap().value.subject.roles, ["after".into()], "the waiter looked again");
    assert_eq!(*world.caller(&login("u1", "t")).await.unwrap().value.subject.roles, ["after".into()]);
    assert_eq!(world.upstream.asked(), 2);
}

#[tokio::test]
async fn a_dropped_credential_is_not_refilled_by_the_lookup_under_way() {
    a_drop_during_a_lookup(|world| assert!(world.identity.drop_credential(&world.plan, &login("u1", "t")))).await;
}

#[tokio::test]
async fn an_invalidated_subject_is_not_refilled_by_the_lookup_under_way() {
    a_drop_during_a_lookup(|world| {
        world.identity.invalidate(Selection::Subject("u1"));
    })
    .await;
}

#[tokio::test]
async fn nothing_is_refilled_after_everything_was_invalidated() {
    a_drop_during_a_lookup(|world| {
        world.identity.invalidate(Selection::All);
    })
    .await;
}

#[tokio::test]
async fn a_dropped_lookup_that_ends_late_does_not_pass_for_the_one_that_followed_it() {
    let world = World::new(settings());
    let answered = Arc::new(Mutex::new(0));
    world.upstream.answers(move |_| {
        *answered.lock() += 1;
        ok(&json!({"_id": "u1", "roles": [if *answered.lock() == 1 { "before" } else { "after" }]}))
    });
    world.upstream.hold();
    let first = start(&world, bearer("t"));
    world.upstream.until_asked(1).await;
    world.identity.invalidate(Selection::All);
    let second = start(&world, bearer("t"));
    world.upstream.until_asked(2).await;
    world.upstream.release_one();
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
    world.upstream.release();
    for known in [first, second] {
        assert_eq!(*known.await.unwrap().unwrap().value.subject.roles, ["after".into()]);
    }
    assert_eq!(*world.caller(&bearer("t")).await.unwrap().value.subject.roles, ["after".into()]);
    assert_eq!(world.upstream.asked(), 2);
}

#[tokio::test]
async fn what_is_dropped_again_and_again_is_unavailable_in_the_end() {
    let world = World::new(settings());
    let identity = world.identity.clone();
    world.upstream.answers(move |question| {
        identity.invalidate(Selection::All);
        me(question)
    });
    assert!(matches!(world.caller(&bearer("t")).await, Err(Failure::Unavailable { .. })));
    assert_eq!(world.upstream.asked(), 3, "a bounded number of attempts");
    world.upstream.answers(me);
    assert!(world.caller(&bearer("t")).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_credential_is_dropped_at_most_once_per_refused_ttl() {
    let world = World::new(settings());
    let (plan, alice, bob) = (&world.plan, login("alice", "t"), login("bob", "t"));
    assert!(!world.identity.drop_credential(plan, &alice), "nothing is known of it");
    world.caller(&alice).await.unwrap();
    world.caller(&bob).await.unwrap();
    assert!(world.identity.drop_credential(plan, &alice));
    world.caller(&alice).await.unwrap();
    assert_eq!(world.upstream.asked(), 3);
    assert!(!world.identity.drop_credential(plan, &alice), "a moment ago it was dropped");
    assert!(world.identity.drop_credential(plan, &bob), "another one");
    world.caller(&alice).await.unwrap();
    assert_eq!(world.upstream.asked(), 3);
    advance(Duration::from_secs(5)).await;
    assert!(world.identity.drop_credential(plan, &alice));
    assert_eq!(world.metric(r#"rolegate_fact_invalidations_total{cause="unauthorized"} "#), 3);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_credential_does_not_come_back_stale() {
    let world = World::new(Settings { max_stale: Duration::from_secs(60), ..settings() });
    world.caller(&bearer("t")).await.unwrap();
    world.identity.drop_credential(&world.plan, &bearer("t"));
    world.upstream.answers(|_| reply(502, &json!({})));
    assert!(matches!(world.caller(&bearer("t")).await, Err(Failure::Unavailable { .. })));
}

#[tokio::test]
async fn an_invalidated_subject_loses_every_credential_and_fact_and_no_one_else_does() {
    let world = World::new(settings());
    world.upstream.answers(|question| if question.target == "/api/v1/me" { me(question) } else { ok(&json!({"users": {}})) });
    let mut callers = Vec::new();
    for credential in [login("alice", "1"), login("alice", "2"), login("bob", "1")] {
        let caller = world.caller(&credential).await.unwrap().value;
        let inputs = [("room", "r1")];
        world.identity.fact(&world.plan, "power", &caller, &credential, &inputs, HERE).await.unwrap();
        callers.push(caller);
    }
    assert_eq!(world.identity.invalidate(Selection::Subject("alice")), 4, "two callers with a fact each");
    let sizes = world.identity.sizes();
    assert_eq!((sizes.callers, sizes.facts), (1, 1));
    assert_eq!(world.identity.invalidate(Selection::Subject("nobody")), 0);
    assert_eq!(world.identity.invalidate(Selection::All), 2);
    assert_eq!(world.metric(r#"rolegate_fact_invalidations_total{cause="admin"} "#), 3);
    assert_eq!(world.metric(r#"rolegate_fact_entries{fact="power"} "#), 0);
}

#[tokio::test]
async fn invalidating_everything_forgets_refusals() {
    let world = World::new(settings());
    world.upstream.answers(|_| reply(401, &json!({})));
    world.caller(&bearer("t")).await.unwrap_err();
    world.upstream.answers(with_roles(&["user"]));
    world.identity.invalidate(Selection::All);
    assert!(world.caller(&bearer("t")).await.is_ok());
}
