//! The process log cannot be written: its reader is gone, its disk is full, or nobody reads from the pipe.

use std::fs::{self, File, OpenOptions};
use std::io::{Write, pipe};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::{Duration, Instant};

use rolegate::demo::Sample;
use rolegate::demo::world::workspace::BOARDROOM;
use serde_json::Value;

use super::silent::{OPERATORS, Silent, Streams};
use crate::support::gate::{login, records};
use crate::support::{Connection, PATIENCE, Policies, until};

fn streams(folder: &Path) -> Vec<Streams> {
    let usual = || Streams { loses: true, ..Streams::usual() };
    let (gone, to_nobody) = pipe().unwrap();
    drop(gone);
    let (kept, mut stalled) = pipe().unwrap();
    // As much as a pipe holds.
    stalled.write_all(&[b'x'; 64 * 1024]).unwrap();
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let bounded = folder.join("bounded.log");
    fs::write(&bounded, vec![b'\n'; 128 * 1024]).unwrap();
    let bounded = OpenOptions::new().append(true).open(bounded).unwrap();
    vec![
        Streams { what: "its reader is gone", error: to_nobody.into(), ..usual() },
        Streams { what: "its disk is full", error: full.into(), ..usual() },
        Streams { what: "its file is at its bound", before: "ulimit -f 128;", error: bounded.into(), ..usual() },
        Streams { what: "nobody reads from its pipe", error: stalled.into(), kept: Some(kept), loses: false, ..usual() },
        Streams { what: "the standard streams are closed", behind: "0<&- 1>&- 2>&-", loses: false, ..usual() },
    ]
}

async fn ask(address: SocketAddr) -> u16 {
    let target = format!("/api/v1/rooms.roles?rid={BOARDROOM}");
    Connection::open(address).await.get(&target, &login("carol")).await.status
}

async fn until_answered(address: SocketAddr, status: u16, what: &str) {
    let deadline = Instant::now() + PATIENCE;
    while ask(address).await != status {
        assert!(Instant::now() < deadline, "{what}: never answered {status}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_cannot_be_written_stops_neither_start_nor_edits_nor_signals_nor_the_audit_log_nor_the_end() {
    let sample = Sample::rocketchat().await.unwrap();
    let scratch = tempfile::tempdir().unwrap();
    for streams in streams(scratch.path()) {
        let (what, loses) = (streams.what, streams.loses);
        let folder = tempfile::tempdir().unwrap();
        let policies = Policies::write(&folder.path().join("policies"));
        let mut program = Silent::start(streams, folder, sample.url());
        let (address, admin) = (program.listening(Ipv4Addr::LOCALHOST).await, program.listening(OPERATORS).await);
        until_answered(address, 200, &format!("{what}: the start")).await;
        for round in 0..2 {
            policies.put("policy.cedar", &policies.closed());
            until_answered(address, 403, &format!("{what}: edit {round}")).await;
            policies.put("policy.cedar", "permit (");
            policies.put("policy.cedar", &policies.open());
            until_answered(address, 200, &format!("{what}: edit {round} and back")).await;
        }
        program.signal("-HUP");
        policies.put("policy.cedar", &policies.closed());
        until_answered(address, 403, &format!("{what}: the edit after SIGHUP")).await;

        fs::remove_file(program.audit()).unwrap();
        // How long the file may be gone before a record notices.
        tokio::time::sleep(Duration::from_millis(1100)).await;
        assert_eq!(ask(address).await, 403, "{what}: a request after the audit log was taken away");
        let kinds = |kind: &str| records(&program.audit()).into_iter().filter(|record| record["kind"] == kind).count();
        assert_eq!((kinds("loss"), kinds("decision")), (1, 1), "{what}: {:?}", records(&program.audit()));

        let mut operators = Connection::open(admin).await;
        assert_eq!(operators.get("/readyz", &[]).await.status, 200, "{what}");
        let page = operators.get("/metrics", &[]).await.text();
        let value = |name: &str| page.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok()).unwrap();
        assert_eq!(value("rolegate_log_lines_dropped_total ") > 0.0, loses, "{what}: {page}");
        assert_eq!(value("rolegate_panics_total "), 0.0, "{what}");
        drop(operators);
        program.signal("-TERM");
        let asked = Instant::now();
        assert_eq!(program.ended().await.code(), Some(0), "{what}");
        assert!(asked.elapsed() < PATIENCE / 2, "{what}: it ended after {:?}", asked.elapsed());
        let last = records(&program.audit()).pop().unwrap();
        assert_eq!(last["kind"], "stop", "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audit_log_at_the_bound_of_its_file_refuses_and_the_process_lives() {
    let sample = Sample::rocketchat().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    Policies::write(&folder.path().join("policies"));
    let log = File::create(folder.path().join("process.log")).unwrap();
    let bound = Streams { before: "ulimit -f 8;", error: log.into(), ..Streams::usual() };
    let mut program = Silent::start(bound, folder, sample.url());
    let (address, admin) = (program.listening(Ipv4Addr::LOCALHOST).await, program.listening(OPERATORS).await);
    until_answered(address, 503, "the audit log reaches its bound").await;
    assert!(fs::metadata(program.audit()).unwrap().len() <= 8 * 1024);
    assert_eq!(Connection::open(address).await.get("/echo", &[]).await.status, 200, "what is not guarded goes on");
    assert_eq!(Connection::open(admin).await.get("/livez", &[]).await.status, 200);
    program.signal("-TERM");
    assert_eq!(program.ended().await.code(), Some(0));
    let whole = fs::read_to_string(program.audit()).unwrap();
    assert!(whole.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "half a record: {whole}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_rust_log_asks_for_in_vain_is_told() {
    let sample = Sample::rocketchat().await.unwrap();
    for (asked, told) in [
        ("bogus=zzz", "`bogus=zzz` is not `level`"),
        ("inof", "nothing here is called `inof`"),
        ("info,pingora_proxy=trace", "the lines of the proxy engine hold heads"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("process.log");
        Policies::write(&folder.path().join("policies"));
        let before: &'static str = Box::leak(format!("export RUST_LOG='{asked}';").into_boxed_str());
        let log = File::create(&path).unwrap();
        let streams = Streams { before, error: log.into(), ..Streams::usual() };
        let mut program = Silent::start(streams, folder, sample.url());
        until("the complaint", || {
            assert_eq!(program.child.try_wait().unwrap(), None, "it ended");
            let text = fs::read_to_string(&path).unwrap();
            (text.contains(told) && text.contains("\"listening\"")).then_some(())
        })
        .await;
        program.signal("-TERM");
        assert_eq!(program.ended().await.code(), Some(0));
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains("\"level\":\"WARN\"") && text.contains("stopped"), "{asked}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_manager_that_reads_nothing_holds_up_neither_reloads_nor_the_end() {
    let sample = Sample::rocketchat().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let policies = Policies::write(&folder.path().join("policies"));
    let socket = folder.path().join("notify");
    let _manager = UnixDatagram::bind(&socket).unwrap();
    let filler = UnixDatagram::unbound().unwrap();
    filler.set_nonblocking(true).unwrap();
    while filler.send_to(b"X_FILLER=1", &socket).is_ok() {}
    let before: &'static str = Box::leak(format!("export NOTIFY_SOCKET={};", socket.display()).into_boxed_str());
    let mut program = Silent::start(Streams { before, ..Streams::usual() }, folder, sample.url());
    let address = program.listening(Ipv4Addr::LOCALHOST).await;
    until_answered(address, 200, "the start").await;
    program.signal("-HUP");
    policies.put("policy.cedar", &policies.closed());
    until_answered(address, 403, "the edit after SIGHUP").await;
    program.signal("-TERM");
    assert_eq!(program.ended().await.code(), Some(0));
}
