//! Actions and closed routes outside of the guarded spaces.

use proptest::prelude::*;
use reqwest::Url;
use rolegate::model::{Body, RawRequest};
use rolegate::pipeline::{Evaluation, Open, evaluate_request};
use rolegate::rules::Known;

use super::{assert_refused, gate_with, site_with};
use crate::support::gate::login;

/// A closed route and an action where nothing is guarded.
const BESIDE: &str = r#"
[[route]]
rest = "POST /hooks/{integration}/{token}"
reveals = "whatever an incoming integration does"
then = "deny"

[[route]]
rest = "GET /custom-sounds/{rest*}"
reveals = "the workspace's sounds"
then = "deny"

[[action]]
id = "admin.report"
summary = "Read the nightly report"
resource = { type = "Workspace", param = [] }
rest = "GET /reports/nightly"
"#;

const REPORT: &str = r#"
@id("report-admin")
permit (principal in RocketChat::Role::"admin", action == RocketChat::Action::"admin.report", resource);
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_route_that_is_closed_outside_of_the_guarded_spaces_is_closed_in_every_spelling() {
    let gate = gate_with(BESIDE, REPORT, |_| {}).await;
    let host = gate.address();
    for (method, target) in [
        ("POST", "/hooks/a1/t0ken"),
        ("POST", "/hooks/a1/t0ken?x=1"),
        ("POST", "/HOOKS/a1/t0ken"),
        ("POST", "/hooks/a1/t0ken/"),
        ("POST", "/%68ooks/a1/t0ken"),
        ("POST", "/%2568ooks/a1/t0ken"),
        ("POST", "//hooks/a1/t0ken"),
        ("POST", "/hooks//a1/t0ken"),
        ("POST", "/x/../hooks/a1/t0ken"),
        ("POST", "/x/%2e%2e/hooks/a1/t0ken"),
        ("POST", "/./hooks/a1/t0ken"),
        ("POST", "/hooks\\a1\\t0ken"),
        ("POST", "/hooks%2fa1%2ft0ken"),
        ("POST", "/hooks;v=1/a1/t0ken"),
        ("POST", "/hooks/a1/t0ken#x"),
        ("POST", "/hooks/a1/t0ken.json"),
        ("POST", &format!("http://{host}/hooks/a1/t0ken")),
        ("GET", "/hooks/a1/t0ken"),
        ("HEAD", "/hooks/a1/t0ken"),
        ("PUT", "/hooks/a1/t0ken"),
        ("DELETE", "/hooks/a1/t0ken"),
        ("OPTIONS", "/hooks/a1/t0ken"),
        ("GET", "/custom-sounds/ring.mp3"),
        ("GET", "/custom-sounds/a/b/c"),
        ("HEAD", "/custom-sounds/a/b/c"),
        ("GET", "/Custom-Sounds/a/b/c"),
        ("GET", "/custom-sounds/a/%2e%2e/b"),
        ("GET", "/custom%2dsounds/a"),
    ] {
        let before = gate.records_of("decision").len();
        let answer = gate.connect().await.request(method, target, &login("alice"), b"").await;
        assert!((400..=405).contains(&answer.status), "{method} {target}: {}", answer.status);
        assert_refused(
            &gate,
            before,
            &format!("{method} {target}"),
            &["route_unlisted", "target_ambiguous", "method_not_declared"],
        );
    }
    let overridden = [login("alice"), vec![("X-HTTP-Method-Override", "POST".to_owned())]].concat();
    let before = gate.records_of("decision").len();
    assert_eq!(gate.get("/hooks/a1/t0ken", &overridden).await.status, 400);
    assert_refused(&gate, before, "another method in a header", &["header_ambiguous"]);
    let rerouted = [login("alice"), vec![("X-Original-URL", "/hooks/a1/t0ken".to_owned())]].concat();
    assert_eq!(gate.get("/home", &rerouted).await.status, 400);
    assert_refused(&gate, before + 1, "another target in a header", &["header_ambiguous"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_action_outside_of_the_guarded_spaces_is_judged_and_its_neighbours_are_not() {
    let gate = gate_with(BESIDE, REPORT, |_| {}).await;
    let mut connection = gate.connect().await;
    assert_eq!(connection.get("/reports/nightly", &[]).await.status, 401);
    assert_eq!(connection.get("/reports/nightly", &login("eve")).await.status, 403);
    assert_eq!(connection.get("/reports/nightly?x=1", &login("alice")).await.status, 400, "nothing is declared but the path");
    assert_eq!(connection.get("/Reports/nightly", &login("alice")).await.status, 400);
    assert_eq!(connection.request("PUT", "/reports/nightly", &login("alice"), b"").await.header("allow"), Some("GET, HEAD"));
    assert_eq!(gate.sample.count("/reports/nightly"), 0);
    connection.get("/reports/nightly", &login("alice")).await;
    assert_eq!(gate.sample.count("/reports/nightly"), 1, "an administrator may");
    let record = gate.last_decision();
    assert_eq!((&record["decision"], &record["action"]["name"]), (&"permit".into(), &"admin.report".into()));

    let decisions = gate.records_of("decision").len();
    for target in
        ["/hooks", "/hooks/a", "/hooks/a/b/c", "/hooksx/a/b", "/custom-sounds", "/reports", "/reports/nightly/2", "/a%20b;c/d//e"]
    {
        connection.get(target, &[]).await;
        let seen = gate.sample.seen();
        assert!(format!("{:?}", seen.last()).contains(target), "{target}: {seen:?}");
    }
    assert_eq!(gate.records_of("decision").len(), decisions, "nothing else is judged");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_route_below_a_path_prefix_is_closed_there() {
    let gate = gate_with(BESIDE, "", |upstream| upstream.path_prefix = "/chat".into()).await;
    for target in ["/chat/hooks/a1/t0ken", "/CHAT/hooks/a1/t0ken", "/chat//hooks/a1/t0ken", "/x/../chat/hooks/a1/t0ken"] {
        let before = gate.records_of("decision").len();
        gate.connect().await.request("POST", target, &login("alice"), b"").await;
        assert_refused(&gate, before, target, &["route_unlisted", "target_ambiguous"]);
    }
}

fn request<'a>(method: &'a str, target: &'a [u8]) -> RawRequest<'a> {
    RawRequest {
        method,
        target,
        host: Some("chat.example.org"),
        headers: Vec::new(),
        body: Body::Absent,
        content: None,
        client: Some([127, 0, 0, 1].into()),
        correlation: None,
    }
}

/// What the URL standard makes of `target`, also when a server decodes it once or twice more.
fn standard_paths(target: &str) -> Vec<String> {
    let Ok(mut url) = Url::parse("http://upstream/").unwrap().join(target) else { return Vec::new() };
    let mut paths = vec![url.path().to_owned()];
    for _ in 0..2 {
        let decoded = percent_encoding::percent_decode_str(url.path()).decode_utf8_lossy().into_owned();
        url.set_path(&decoded);
        paths.extend([decoded, url.path().to_owned()]);
    }
    paths
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]
    #[test]
    fn what_the_url_standard_reads_as_a_declared_path_is_never_open(
        pieces in prop::collection::vec(
            prop::sample::select(vec![
                "/", "//", "\\", "%2f", "%5C", "hooks", "Hooks", "h%6foks", "%2568ooks", "a", "..", ".", "%2e%2e", ".%2E", "%252e%252e",
                ";x", "?", "#", "reports", "nightly", "custom-sounds", "custom%2dsounds", "http:", "x", "\t",
            ]),
            1..9,
        ),
        method in prop::sample::select(vec!["GET", "POST", "HEAD", "PUT"]),
    ) {
        use std::sync::LazyLock;
        static SITE: LazyLock<rolegate::pipeline::Site> = LazyLock::new(|| site_with(BESIDE, |_| {}));
        let target = format!("/{}", pieces.concat());
        let declared = |path: &String| {
            let parts: Vec<&str> = path.split('/').skip(1).collect();
            matches!(parts.as_slice(), ["hooks", a, b] if !a.is_empty() && !b.is_empty())
                || matches!(parts.as_slice(), ["reports", "nightly"])
                || matches!(parts.as_slice(), ["custom-sounds", a, ..] if !a.is_empty())
        };
        let evaluation = evaluate_request(SITE.clone(), &request(method, target.as_bytes()), &Known::default());
        if standard_paths(&target).iter().any(declared) {
            prop_assert!(!matches!(evaluation, Evaluation::Open(_)), "{} {}", method, target);
        } else if !pieces.iter().any(|piece| ["oks", "reports", "sounds"].iter().any(|name| piece.ends_with(name))) {
            prop_assert!(matches!(evaluation, Evaluation::Open(Open::Outside)), "{} {} is nothing declared", method, target);
        }
    }
}
