//! Nothing that `RUST_LOG` asks for makes a line hold a credential or a content.

use std::fs;

use rolegate::demo::world::workspace::{ALICE, AUDREY, BOARDROOM, CAROL, EVE};
use rolegate::demo::{Behaviour, Sample};
use serde_json::json;

use crate::support::policies::CLOSED;
use crate::support::scripted::Scripted;
use crate::support::{Connection, Policies, Process};

/// Everything that one reader of the log must not learn: each is part of a request or an answer below.
const SECRETS: &[&str] = &[
    "carol-token",
    "eve-token",
    "s3cret-cookie",
    "s3cret-bearer",
    "s3cret-query",
    "s3cret-access",
    "audrey-token",
    "s3cret-body",
    "s3cret-basic",
    "s3cret-hop",
    "s3cret-answer",
    "s3cret-set-cookie",
];

/// Every way to ask for more lines; each is a level or a target for which the engine or a library below it has some.
const SPELLINGS: &[&str] = &[
    "trace",
    "TRACE",
    "debug",
    "5",
    "pingora_proxy=trace,pingora_core=trace,rolegate=trace",
    "trace,pingora=trace,h2=trace,hyper=trace,rustls=trace,log=trace",
    "error,pingora_core::protocols::http=debug,rolegate=trace",
    "p=trace,r=trace,h=trace",
    "bogus=zzz,trace",
    "[{headers}]=trace",
];

/// An answer of an upstream whose head cannot be read, and which is told in a line at the usual level.
const UNREADABLE: &[u8] = b"HTTP/1.1 200 OK\r\nset-cookie: sid=s3cret-set-cookie\r\nb\x01d header: s3cret-answer\r\n\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn no_rust_log_makes_a_line_hold_a_credential_or_a_content() {
    for spelling in SPELLINGS {
        let sample = Sample::rocketchat().await.unwrap();
        let address = sample.url().strip_prefix("http://").unwrap().parse().unwrap();
        let upstream = Scripted::before(address, "/api/v1/users.info").await;
        upstream.play(&[UNREADABLE], true);
        let folder = tempfile::tempdir().unwrap();
        let policies = Policies::write(&folder.path().join("policies"));
        let service = format!("x-auth-token = \"audrey-token\"\nx-user-id = \"{AUDREY}\"\n");
        fs::write(folder.path().join("service.toml"), service).unwrap();
        let config = format!(
            "[[upstream]]\nhost = \"whole\"\nprovider = \"rocketchat\"\nurl = \"{}\"\nservice = {{ headers_file = \"service.toml\" }}\n\
             [[upstream]]\nhost = \"odd\"\nprovider = \"rocketchat\"\nurl = \"http://{}\"\n\
             [policies]\ndirectory = \"policies\"\n",
            sample.url(),
            upstream.address
        );
        fs::write(folder.path().join("rolegate.toml"), config).unwrap();
        let mut program = Process::logging(folder, &["run", "--config", "rolegate.toml"], spelling).await;

        for (id, name) in [(CAROL, "carol"), (EVE, "eve")] {
            let mut connection = program.connect().await;
            let headers = |further: &[(&'static str, &str)]| {
                let host =
                    if further.iter().any(|(name, _)| *name == "Host") { None } else { Some(("Host", "whole".to_owned())) };
                let own = [("X-User-Id", id.to_owned()), ("X-Auth-Token", format!("{name}-token"))].into_iter().chain(host);
                own.chain(further.iter().map(|(name, value)| (*name, (*value).to_owned()))).collect::<Vec<_>>()
            };
            let roles = format!("/api/v1/rooms.roles?rid={BOARDROOM}");
            // The short way, and by a header that it does not take the long one.
            connection.get(&roles, &headers(&[("Cookie", "rc_token=s3cret-cookie")])).await;
            connection.get(&roles, &headers(&[("TE", "trailers"), ("Cookie", "rc_token=s3cret-cookie")])).await;
            for further in [("Accept", "x"), ("TE", "trailers")] {
                let target = format!("/api/v1/users.info?userId={ALICE}");
                let answer = program.connect().await.get(&target, &headers(&[("Host", "odd"), further])).await;
                assert_eq!(answer.status, if name == "carol" { 502 } else { answer.status }, "{}", answer.text());
            }
            let open = "/echo?access_token=s3cret-access&token=s3cret-query";
            connection.get(open, &headers(&[("Authorization", "Bearer s3cret-bearer")])).await;
            connection.get(open, &headers(&[("TE", "trailers"), ("Authorization", "Basic s3cret-basic")])).await;
            let call = json!({ "message": json!({ "msg": "method", "id": "1", "method": "getRoomRoles", "params": [BOARDROOM] }).to_string(), "x": "s3cret-body" });
            let kind = [("Content-Type", "application/json")];
            connection.request("POST", "/api/v1/method.call/getRoomRoles", &headers(&kind), call.to_string().as_bytes()).await;
            connection.request("POST", "/upload", &headers(&kind), br#"{"password":"s3cret-body"}"#).await;
        }
        // What is refused before it is judged, what cannot be answered, and what breaks off.
        for raw in [
            "GET /echo?access_token=s3cret-query HTTP/1.1\r\nHost: whole\r\nbad header: s3cret-hop\r\n\r\n",
            "GET /echo?a=\x01s3cret-query HTTP/1.1\r\nHost: whole\r\n\r\n",
            "POST /upload HTTP/1.1\r\nHost: whole\r\nTransfer-Encoding: chunked\r\n\r\ns3cret-body\r\n",
            "POST /upload HTTP/1.1\r\nHost: whole\r\nContent-Length: nan-s3cret-hop\r\n\r\n",
            "GET /echo HTTP/1.1\r\nHost: whole\r\nTE: trailers\r\nConnection: x-auth-token, s3cret-hop\r\n\r\n",
        ] {
            let mut connection = program.connect().await;
            connection.send(raw.as_bytes()).await;
            assert!(connection.head().await.status >= 200);
        }
        sample.behave("/api/info", Behaviour::Close);
        program.connect().await.get("/api/info?token=s3cret-query", &[("Host", "whole".into()), ("TE", "trailers".into())]).await;
        program.connect().await.get("/api/info?token=s3cret-query", &[("Host", "whole".into())]).await;
        let mut operators = Connection::open(program.admin).await;
        operators.get("/status?token=s3cret-query", &[("Authorization", "Bearer s3cret-bearer".into())]).await;
        operators.request("POST", "/facts/invalidate", &[], br#"{"password":"s3cret-body"}"#).await;
        // A reload is told with its faults, which show no secret either.
        policies.put("policy.cedar", &format!("{}{CLOSED}permit (", policies.open()));
        operators.request("POST", "/reload", &[], b"").await;
        drop(operators);
        program.terminate();
        assert_eq!(program.exit().await, 0, "{spelling}");
        let log = program.whole_log();
        assert!(log.contains("\"stopped\""), "{spelling}: the log is not whole");
        assert!(upstream.heads().iter().any(|head| head.contains("carol-token")), "nothing that the log could have shown");
        for secret in SECRETS {
            let line = log.lines().find(|line| line.contains(secret));
            assert_eq!(line, None, "RUST_LOG={spelling} shows {secret}");
        }
        let audit = fs::read_to_string(program.folder.path().join("audit/audit.jsonl")).unwrap();
        for secret in SECRETS {
            let line = audit.lines().find(|line| line.contains(secret));
            assert_eq!(line, None, "a record shows {secret}");
        }
    }
}
