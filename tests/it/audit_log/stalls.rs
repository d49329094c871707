//! A standard output that nobody reads: only guarded requests wait, and they are refused within a moment.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{ChildStdout, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use parking_lot::Mutex;
use rolegate::demo::Sample;
use serde_json::Value;

use super::audit;
use crate::support::gate::login;
use crate::support::{Connection, Program, Running, until};

const INFO: &str = "/api/v1/users.info";
const GUARDED: &str = "/api/v1/users.info?username=bob";

/// The program with its audit log on a pipe; killed when dropped.
struct Piped {
    child: Running,
    out: Option<ChildStdout>,
    address: SocketAddr,
    admin: SocketAddr,
    folder: tempfile::TempDir,
}

impl Piped {
    async fn before(sample: &Sample) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let text = format!("[[upstream]]\nprovider = \"rocketchat\"\nurl = \"{}\"\n[audit]\npath = \"-\"\n", sample.url());
        std::fs::write(folder.path().join("rolegate.toml"), text).unwrap();
        let arguments = ["run", "--config", "rolegate.toml", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
        let mut command = Program::new(&arguments).within(folder.path()).0;
        let mut child = Running::start(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
        let log: Arc<Mutex<Vec<String>>> = Arc::default();
        let (kept, lines) = (Arc::clone(&log), BufReader::new(child.stderr.take().unwrap()).lines());
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| kept.lock().push(line)));
        let started = until("the program to listen", || {
            let lines = log.lock();
            lines.iter().find(|line| line.contains("\"listening\"")).map(|line| serde_json::from_str::<Value>(line).unwrap())
        });
        let started = started.await;
        let address = |name: &str| started[name].as_str().unwrap().parse().unwrap();
        let out = child.stdout.take();
        Self { child, out, address: address("listening"), admin: address("admin"), folder }
    }

    async fn get(&self, target: &str) -> u16 {
        Connection::open(self.address).await.get(target, &login("bob")).await.status
    }

    async fn admin(&self, target: &str) -> u16 {
        Connection::open(self.admin).await.get(target, &[]).await.status
    }

    /// Asks until the pipe is full; how many requests were permitted.
    async fn fill(&self) -> usize {
        for permitted in 0..1000 {
            match self.get(GUARDED).await {
                200 => {}
                status => {
                    assert_eq!(status, 503);
                    return permitted;
                }
            }
        }
        panic!("a pipe takes 64 KiB");
    }

    async fn terminate(&mut self) -> i32 {
        let id = self.child.id().to_string();
        assert!(std::process::Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
        until("the program to end", || self.child.try_wait().unwrap()).await.code().unwrap_or(-1)
    }

    /// The records in `text`, which are of one chain.
    fn chain(&self, text: &str) -> Vec<Value> {
        std::fs::write(self.folder.path().join("read.jsonl"), text).unwrap();
        let (code, out, err) = audit(self.folder.path(), &["verify", "read.jsonl"]);
        assert_eq!(code, 0, "{out}{err}");
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

fn permits(records: &[Value]) -> usize {
    records.iter().filter(|record| record["decision"] == "permit").count()
}

#[tokio::test(flavor = "multi_thread")]
async fn while_nobody_reads_the_log_guarded_requests_are_refused_and_everything_else_goes_on() {
    let sample = Sample::rocketchat().await.unwrap();
    let mut piped = Piped::before(&sample).await;
    let permitted = piped.fill().await;
    assert_eq!(sample.count(INFO), permitted);
    let began = Instant::now();
    let guarded = join_all((0..40).map(|_| piped.get(GUARDED)));
    let others = async {
        let began = Instant::now();
        for _ in 0..20 {
            assert_eq!(piped.get("/api/v1/users.list").await, 200);
            assert_eq!((piped.admin("/livez").await, piped.admin("/metrics").await), (200, 200));
            assert_eq!(piped.admin("/status").await, 200);
        }
        began.elapsed()
    };
    let (guarded, others) = tokio::join!(guarded, others);
    assert!(guarded.iter().all(|status| *status == 503), "{guarded:?}");
    assert!(others < Duration::from_secs(5), "{others:?}");
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert_eq!(sample.count(INFO), permitted, "nothing is forwarded without its record");
    // A short record may still find room where a long one does not.
    while piped.admin("/readyz").await != 503 {
        assert!(began.elapsed() < Duration::from_secs(15), "it says that it is ready, and refuses");
        assert_eq!(piped.get(GUARDED).await, 503);
    }

    let began = Instant::now();
    assert_eq!(piped.terminate().await, 0);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    let mut text = String::new();
    piped.out.take().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(permits(&piped.chain(&text)), permitted, "what was refused stands nowhere as permitted");
}

#[tokio::test(flavor = "multi_thread")]
async fn once_somebody_reads_the_log_again_requests_pass_and_the_loss_is_told() {
    let sample = Sample::rocketchat().await.unwrap();
    let mut piped = Piped::before(&sample).await;
    let mut permitted = piped.fill().await;
    let mut out = piped.out.take().unwrap();
    let reading = std::thread::spawn(move || {
        let mut text = String::new();
        out.read_to_string(&mut text).unwrap();
        text
    });
    let deadline = Instant::now() + Duration::from_secs(10);
    while piped.admin("/readyz").await != 200 {
        assert!(Instant::now() < deadline, "it does not find its way back");
    }
    for _ in 0..20 {
        assert_eq!(piped.get(GUARDED).await, 200);
        permitted += 1;
    }
    assert_eq!(piped.terminate().await, 0);
    let records = piped.chain(&reading.join().unwrap());
    assert_eq!(permits(&records), permitted);
    let losses: Vec<&Value> = records.iter().filter(|record| record["kind"] == "loss").collect();
    assert!(matches!(losses[..], [loss] if loss["records"] == 1 && loss["removed"] == false), "{losses:?}");
    assert_eq!(records.last().unwrap()["kind"], "stop");
}
