//! `rolegate run` as a process of its own, with what it logs and what the system knows of it.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::Mutex;
use serde_json::Value;
use tempfile::TempDir;

use super::{Connection, Program, Running, until};

/// A proxy that serves.
pub struct Process {
    child: Running,
    pub folder: TempDir,
    pub address: SocketAddr,
    pub admin: SocketAddr,
    log: Arc<Mutex<Vec<String>>>,
    reading: Option<JoinHandle<()>>,
}

impl Process {
    /// `rolegate run` before the Rocket.Chat server at `upstream`, with further arguments; in a folder of its own.
    pub async fn before(upstream: &str, further: &[&str]) -> Self {
        let mut arguments = vec!["run", "--provider", "rocketchat", "--upstream", upstream];
        arguments.extend(further);
        Self::run(tempfile::tempdir().unwrap(), &arguments).await
    }

    /// The program with `arguments` in `folder`, on free ports, once it serves.
    pub async fn run(folder: TempDir, arguments: &[&str]) -> Self {
        Self::logging(folder, arguments, "").await
    }

    /// The same, logging what `asked` asks for.
    pub async fn logging(folder: TempDir, arguments: &[&str], asked: &str) -> Self {
        let mut arguments = arguments.to_vec();
        arguments.extend(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
        let mut command = Program::new(&arguments).within(folder.path()).0;
        let mut child = Running::start(command.env("RUST_LOG", asked).stdout(Stdio::null()).stderr(Stdio::piped()));
        let log = Arc::new(Mutex::new(Vec::new()));
        let (lines, kept) = (BufReader::new(child.stderr.take().unwrap()).lines(), Arc::clone(&log));
        let reading = std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| kept.lock().push(line)));
        let started = until("the program to serve", || {
            let lines = log.lock();
            lines.iter().find(|line| line.contains("\"listening\"")).map(|line| serde_json::from_str::<Value>(line).unwrap())
        });
        let started = started.await;
        let address = |name: &str| started[name].as_str().unwrap().parse().unwrap();
        Self { child, folder, address: address("listening"), admin: address("admin"), log, reading: Some(reading) }
    }

    /// A connection to it.
    pub async fn connect(&self) -> Connection {
        Connection::open(self.address).await
    }

    /// Asks it to drain and end.
    pub fn terminate(&self) {
        self.signal("-TERM");
    }

    /// Sends it a signal, such as `-HUP`.
    pub fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(std::process::Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits until it ended; its exit code.
    pub async fn exit(&mut self) -> i32 {
        until("the program to end", || self.ended()).await.code().expect("it was killed")
    }

    /// The most memory it ever held, in bytes.
    pub fn peak_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        peak.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap() * 1024
    }

    /// Everything that it logged, once it ended.
    pub fn whole_log(&mut self) -> String {
        self.reading.take().unwrap().join().unwrap();
        self.log()
    }

    /// What it logged so far.
    pub fn log(&self) -> String {
        self.log.lock().join("\n")
    }
}
