//! `check --online` asks each upstream once, and says what is wrong with what answers.

use std::fs;
use std::path::Path;

use rolegate::demo::Sample;
use serde_json::json;

use super::run;
use crate::support::{Authority, GateBuilder, Upstream};

/// Writes a configuration whose only upstream is at `url`, with `more` keys.
fn configure(folder: &Path, url: &str, more: &str) {
    let config = format!("[[upstream]]\nprovider = \"rocketchat\"\nurl = \"{url}\"\n{more}\n");
    fs::write(folder.join("rolegate.toml"), config).unwrap();
}

const ONLINE: [&str; 4] = ["check", "--online", "--config", "rolegate.toml"];

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_refuses_the_lookup_without_a_credential_is_the_right_one() {
    let (rocketchat, docusign) = (Sample::rocketchat().await.unwrap(), Sample::docusign().await.unwrap());
    let folder = tempfile::tempdir().unwrap();
    configure(folder.path(), rocketchat.url(), "");
    let told = run(folder.path(), &ONLINE, 0);
    assert!(told.out.contains(&format!("{}/api/v1/me: answers 401 without a credential", rocketchat.url())), "{}", told.out);
    let config = format!(
        "[[upstream]]\nprovider = \"docusign-rooms\"\nurl = \"{0}\"\naccount_url = \"{0}\"\nhost = \"a\"\n\
         [[upstream]]\nprovider = \"rocketchat\"\nurl = \"{1}\"\nhost = \"b\"\n",
        docusign.url(),
        rocketchat.url()
    );
    fs::write(folder.path().join("rolegate.toml"), config).unwrap();
    let told = run(folder.path(), &[&ONLINE[..], &["--format", "json"]].concat(), 0).json();
    assert_eq!((told["online"].as_array().unwrap().len(), &told["valid"]), (2, &json!(true)));
    assert_eq!((&told["online"][0]["upstream"], &told["online"][0]["good"]), (&json!("a"), &json!(true)));
    assert_eq!(told["online"][0]["url"], format!("{}/oauth/userinfo", docusign.url()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_holds_no_credential_and_goes_where_requests_will_go() {
    let upstream = Upstream::answering(b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 2\r\n\r\n{}").await;
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("service.toml"), "x-auth-token = \"secret\"\n").unwrap();
    let more = "host = \"chat.example.org\"\npath_prefix = \"/chat\"\nservice = { headers_file = \"service.toml\" }";
    configure(folder.path(), &format!("http://{}", upstream.address), more);
    run(folder.path(), &ONLINE, 0);
    let heads: Vec<String> = upstream.heads().iter().map(|head| head.to_ascii_lowercase()).collect();
    assert_eq!(heads.len(), 2, "{heads:?}");
    assert!(heads[0].starts_with("trace / http/1.1\r\n") && heads[0].contains("\r\nmax-forwards: 0\r\n"), "{}", heads[0]);
    assert!(heads[1].starts_with("get /chat/api/v1/me http/1.1\r\n"), "{}", heads[1]);
    for head in heads {
        assert!(head.contains("\r\nhost: chat.example.org\r\n"), "{head}");
        assert!(!head.contains("auth") && !head.contains("cookie") && !head.contains("x-user-id"), "{head}");
    }
    // What is wrong without asking is told first, and nobody is asked.
    configure(folder.path(), &format!("http://{}", upstream.address), "modee = 1");
    run(folder.path(), &ONLINE, 3);
    assert_eq!(upstream.heads().len(), 2);
    run(folder.path(), &["check", "--online"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_answers_in_another_way_is_told_with_a_way_out() {
    let folder = tempfile::tempdir().unwrap();
    let table: [(&'static [u8], &str, &str); 5] = [
        (b"HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\n{}", "answers 404 where the API should be", "`path_prefix`"),
        (
            b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\nconnection: close\r\n\r\n<!doctype html>",
            "with a page (HTML)",
            "`path_prefix`",
        ),
        (
            b"HTTP/1.1 301 Moved\r\nlocation: https://chat.example.org/\r\ncontent-length: 0\r\n\r\n",
            "leads to `https://chat.example.org/`",
            "`https://`",
        ),
        (b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n", "answers 502", "down"),
        (b"220 mail.example.org ESMTP\r\n\r\n", "no answer: ", "TLS port"),
    ];
    for (answer, message, hint) in table {
        let upstream = Upstream::answering(answer).await;
        configure(folder.path(), &format!("http://{}", upstream.address), "");
        let told = run(folder.path(), &ONLINE, 1).err;
        assert!(told.starts_with("rolegate.toml: upstream `127.0.0.1`, http://127.0.0.1:"), "{told}");
        let (first, second) = told.split_once("\n  hint: ").unwrap_or_else(|| panic!("no hint: {told}"));
        assert!(first.contains(message) && second.contains(hint), "{told}");
    }
    let upstream = Upstream::answering(table[0].0).await;
    configure(folder.path(), &format!("http://{}", upstream.address), "");
    let told = run(folder.path(), &[&ONLINE[..], &["--format", "json"]].concat(), 1).json();
    assert_eq!((&told["valid"], &told["online"][0]["good"]), (&json!(true), &json!(false)));
    assert_eq!(told["online"][0]["message"], "answers 404 where the API should be");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_there_or_not_the_one_that_its_certificate_names_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let there = folder.path();
    let sample = Sample::rocketchat().await.unwrap();
    let plain = sample.url().trim_start_matches("http://").to_owned();
    let authority = Authority::new("the right one");
    let front = Upstream::tls(authority.acceptor("chat.internal"), plain.parse().unwrap()).await;
    let secure = format!("https://{}", front.address);
    authority.write(there, "ca.pem");
    Authority::new("another").write(there, "other.pem");
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let right = "tls = { ca = \"ca.pem\", server_name = \"chat.internal\" }";
    configure(there, &secure, right);
    run(there, &ONLINE, 0);
    for (url, more, message, hint) in [
        (format!("http://{nobody}"), "", "no connection: Connection refused", ""),
        ("http://no-such-host.invalid".to_owned(), "", "`no-such-host.invalid` has no address", ""),
        (format!("https://{plain}"), "", "no TLS: ", "`http://`"),
        (format!("http://{}", front.address), "", "no answer: ", "`https://`"),
        (
            secure.clone(),
            "tls = { ca = \"ca.pem\", server_name = \"chat.example.org\" }",
            "not valid for name \"chat.example.org\"",
            "server_name",
        ),
        (
            secure.clone(),
            "tls = { ca = \"other.pem\", server_name = \"chat.internal\" }",
            "no TLS: invalid peer certificate: UnknownIssuer",
            "`tls = { ca =",
        ),
    ] {
        configure(there, &url, more);
        let told = run(there, &ONLINE, 1).err;
        assert!(told.contains(message) && told.contains(hint), "{url} {more}: {told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gate_where_the_server_should_be_is_known_before_anything_goes_round() {
    for mode in [rolegate::model::Mode::Enforce, rolegate::model::Mode::Observe] {
        let gate = GateBuilder::rocketchat().await.upstream(|upstream| upstream.mode = mode).start();
        let folder = tempfile::tempdir().unwrap();
        configure(folder.path(), &format!("http://{}", gate.address()), "");
        let told = run(folder.path(), &ONLINE, 1).err;
        assert!(told.contains("a rolegate answers there") && told.contains("`[listen]`"), "{told}");
        assert_eq!(gate.sample.seen().len(), 0, "nothing was passed on");
    }
}
