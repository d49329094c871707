//! What nobody guards: streams, files, WebSockets, echoes.

use futures_util::{SinkExt, StreamExt};
use sha2::{Digest, Sha256};
use tokio_tungstenite::tungstenite::Message;

use super::*;

#[tokio::test]
async fn an_upload_is_counted_and_hashed() {
    let sample = Sample::rocketchat().await.unwrap();
    let body = "rolegate".repeat(20_000);
    let told = send(&sample, "POST /upload", &[], &body).await.unwrap().json();
    assert_eq!(told["bytes"], body.len());
    assert_eq!(told["sha256"], hex::encode(Sha256::digest(&body)));
}

#[tokio::test]
async fn a_download_has_the_asked_length_with_and_without_announcing_it() {
    let sample = Sample::rocketchat().await.unwrap();
    let sized = get(&sample, "/download?bytes=200000", &[]).await;
    assert_eq!((sized.header("content-length"), sized.body.len()), (Some("200000"), 200_000));
    assert!(sized.body.iter().enumerate().all(|(index, byte)| usize::from(*byte) == index % 251));
    let chunked = get(&sample, "/download?bytes=200000&chunked=1", &[]).await;
    assert_eq!(chunked.header("transfer-encoding"), Some("chunked"));
    assert_eq!(chunked.body, sized.body);
    assert!(get(&sample, "/download?bytes=0", &[]).await.body.is_empty());
}

#[tokio::test]
async fn events_arrive_one_by_one() {
    let sample = Sample::rocketchat().await.unwrap();
    let answer = get(&sample, "/events?count=2&every_ms=1", &[]).await;
    assert_eq!(answer.header("content-type"), Some("text/event-stream"));
    assert_eq!(answer.text(), "id: 0\nevent: tick\ndata: {\"n\":0}\n\nid: 1\nevent: tick\ndata: {\"n\":1}\n\n");
}

#[tokio::test]
async fn a_file_can_be_read_in_parts_and_not_at_all_when_it_is_known() {
    let sample = Sample::rocketchat().await.unwrap();
    let path = "/file-upload/report.txt";
    let whole = get(&sample, path, &[]).await;
    let (tag, modified) = (whole.header("etag").unwrap(), whole.header("last-modified").unwrap());
    let part = get(&sample, path, &["range: bytes=4-9"]).await;
    assert_eq!((part.status, part.body.as_slice()), (206, &whole.body[4..10]));
    assert_eq!(part.header("content-range"), Some(format!("bytes 4-9/{}", whole.body.len()).as_str()));
    for known in [format!("if-none-match: \"other\", {tag}"), format!("if-modified-since: {modified}")] {
        let answer = get(&sample, path, &[&known]).await;
        assert_eq!((answer.status, answer.body.len(), answer.header("etag")), (304, 0, Some(tag)));
    }
    assert_eq!(get(&sample, path, &["range: bytes=4-9", "if-range: \"old\""]).await.status, 200);
    assert_eq!(get(&sample, path, &["range: bytes=4000-"]).await.status, 416);
}

#[tokio::test]
async fn an_echo_tells_what_arrived() {
    let sample = Sample::rocketchat().await.unwrap();
    let told = send(&sample, "PUT /echo?a=%41", &["x-mark: one", "x-mark: two"], "12345").await.unwrap().json();
    assert_eq!((&told["method"], &told["target"], &told["body_bytes"]), (&"PUT".into(), &"/echo?a=%41".into(), &5.into()));
    let marks = told["headers"].as_array().unwrap().iter().filter(|field| field[0] == "x-mark").count();
    assert_eq!(marks, 2);
    assert_eq!(get(&sample, "/api/v1/echo.headers", &[]).await.json()["target"], "/api/v1/echo.headers");
    assert_eq!(get(&sample, "/slow?ms=1", &[]).await.text(), "slow");
}

#[tokio::test]
async fn a_websocket_sends_texts_and_bytes_back_until_the_server_ends() {
    let sample = Sample::rocketchat().await.unwrap();
    let stream = TcpStream::connect(sample.address()).await.unwrap();
    let url = format!("ws://{}/websocket", sample.address());
    let (mut socket, _) = tokio_tungstenite::client_async(url, stream).await.unwrap();
    for message in [Message::text("hello"), Message::binary(vec![0, 255, 7])] {
        socket.send(message.clone()).await.unwrap();
        assert_eq!(soon(socket.next()).await.unwrap().unwrap(), message);
    }
    drop(sample);
    assert!(soon(socket.next()).await.is_none_or(|message| message.is_err()));
    let sample = Sample::rocketchat().await.unwrap();
    assert_eq!(get(&sample, "/websocket", &[]).await.status, 400, "without an upgrade");
}
