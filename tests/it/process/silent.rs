//! The program without its log: where it listens is what the system says.

use std::fs;
use std::io::PipeReader;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};

use tempfile::TempDir;

use crate::support::{Running, until};

/// Where the program's standard streams go, and what must live as long as it does.
pub struct Streams {
    pub what: &'static str,
    /// What the shell does before the program takes its place.
    pub before: &'static str,
    /// What follows its arguments.
    pub behind: &'static str,
    pub error: Stdio,
    pub kept: Option<PipeReader>,
    /// Whether at least one line is surely lost.
    pub loses: bool,
}

impl Streams {
    /// All of them lead nowhere.
    pub fn usual() -> Self {
        Self { what: "", before: "", behind: "", error: Stdio::null(), kept: None, loses: false }
    }
}

/// The program, of which nothing is known but what the system knows.
pub struct Silent {
    pub child: Running,
    pub folder: TempDir,
    _kept: Option<PipeReader>,
}

/// Where operators come in: an address by which this listener is told from the other one.
pub const OPERATORS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

impl Silent {
    pub fn start(streams: Streams, folder: TempDir, upstream: &str) -> Self {
        let script = format!("{} exec \"$@\" {}", streams.before, streams.behind);
        let program = env!("CARGO_BIN_EXE_rolegate");
        let mut command = Command::new("bash");
        command.args(["-c", &script, "bash", program, "run", "--provider", "rocketchat", "--upstream", upstream]);
        command.args(["--policies", "policies", "--listen", "127.0.0.1:0", "--admin", &format!("{OPERATORS}:0")]);
        command.current_dir(folder.path()).env_remove("RUST_LOG");
        let child = Running::start(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(streams.error));
        Self { child, folder, _kept: streams.kept }
    }

    /// The address that it listens on at `ip`, once it does.
    pub async fn listening(&mut self, ip: Ipv4Addr) -> SocketAddr {
        let pid = self.child.id();
        until("a listener", || {
            assert_eq!(self.child.try_wait().unwrap(), None, "it ended");
            listeners(pid).into_iter().find(|address| address.ip() == IpAddr::V4(ip))
        })
        .await
    }

    pub fn signal(&self, signal: &str) {
        assert!(Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap().success());
    }

    pub async fn ended(&mut self) -> ExitStatus {
        until("the program to end", || self.child.try_wait().unwrap()).await
    }

    pub fn audit(&self) -> PathBuf {
        self.folder.path().join("audit/audit.jsonl")
    }
}

/// The addresses that the process `pid` listens on, as `/proc` has them.
fn listeners(pid: u32) -> Vec<SocketAddr> {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let sockets: Vec<String> = descriptors
        .filter_map(|entry| {
            Some(fs::read_link(entry.path()).ok()?.to_str()?.strip_prefix("socket:[")?.trim_end_matches(']').to_owned())
        })
        .collect();
    let table = fs::read_to_string(format!("/proc/{pid}/net/tcp")).unwrap_or_default();
    let rows = table.lines().skip(1).map(|row| row.split_whitespace().collect::<Vec<_>>());
    // 0A is LISTEN, and the tenth column names the socket.
    let ours = rows.filter(|row| row[3] == "0A" && sockets.iter().any(|socket| socket == row[9]));
    ours.map(|row| {
        let (ip, port) = row[1].split_once(':').unwrap();
        let ip = Ipv4Addr::from(u32::from_str_radix(ip, 16).unwrap().to_le_bytes());
        SocketAddr::from((ip, u16::from_str_radix(port, 16).unwrap()))
    })
    .collect()
}
