//! Asking the admin listener of a running rolegate.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::{Duration, Instant};

use super::given;
use crate::config::{Config, Flags};
use crate::files;
use crate::model::{Fault, Faults, Place, Secret};

/// How long a healthy process may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// The longest token file that is read, in bytes.
const LONGEST_TOKEN: u64 = 64 * 1024;
/// What a listener beyond loopback wants.
pub(super) const TOKEN: &str =
    "beyond loopback it wants the token of `[admin] token_file`: give `--config FILE` or `--token-file FILE`";
/// The longest answer that is read, in bytes.
const LONGEST: usize = 1024 * 1024;

/// Which listener to ask.
#[derive(Debug, clap::Args)]
pub(super) struct ListenerArgs {
    /// The configuration file of the running rolegate, for the address of its admin listener
    #[arg(long, value_name = "FILE", value_parser = given::file())]
    config: Option<PathBuf>,
    /// The host and port of the admin listener; the configuration's, or 127.0.0.1:9901, without
    #[arg(long, value_name = "HOST:PORT")]
    admin: Option<HostPort>,
}

/// The token of a listener that can be reached from other machines.
#[derive(Debug, clap::Args)]
pub(super) struct TokenArgs {
    /// The file with the admin listener's token, which is wanted on an address that is not loopback; the configuration's without
    #[arg(long, value_name = "FILE", value_parser = given::file())]
    token_file: Option<PathBuf>,
}

impl TokenArgs {
    /// Gives `listener` the token of the file, where one is named.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(super) fn bring_to(&self, listener: &mut Listener) -> Result<(), String> {
        if let Some(path) = &self.token_file {
            let text = files::argument(path, LONGEST_TOKEN).map_err(|error| format!("{}: {error}", path.display()))?;
            listener.token = Some(Secret::new(text.trim()));
        }
        Ok(())
    }
}

/// A host, by its name or address, and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HostPort(http::uri::Authority);

impl FromStr for HostPort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let example = "write it as `localhost:9901` or `[::1]:9901`";
        if text.contains("://") {
            return Err(format!("is a URL; {example}"));
        }
        let authority: http::uri::Authority = text.parse().map_err(|_| format!("is no host and port; {example}"))?;
        if authority.host().is_empty() || text.contains('@') || authority.port_u16().is_none_or(|port| port == 0) {
            return Err(format!("is no host and port; {example}"));
        }
        Ok(Self(authority))
    }
}

impl std::fmt::Display for HostPort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// A listener to ask, and the token that it wants where it can be reached from other machines.
#[derive(Debug)]
pub(super) struct Listener {
    /// Where it is.
    pub(super) address: HostPort,
    /// Its token.
    pub(super) token: Option<Secret>,
}

/// What it said.
#[derive(Debug)]
pub(super) struct Answer {
    /// The status.
    pub(super) status: u16,
    /// The body.
    pub(super) body: String,
}

impl ListenerArgs {
    /// The listener that the flags or the configuration name.
    ///
    /// # Errors
    /// The configuration has faults.
    pub(super) fn listener(&self) -> Result<Listener, Faults> {
        let configured = match &self.config {
            Some(path) => Some((path, Config::load(Some(path), &Flags::default())?.admin)),
            None => None,
        };
        let address = match (&self.admin, &configured) {
            (Some(given), _) => given.clone(),
            (None, Some((path, admin))) => reachable(admin.address).parse().map_err(|_| {
                let message = format!("the admin listener is at `{}`, which is not a port to ask", admin.address);
                Fault::new(Place::file(path.display().to_string()), message).hint("name the real one with `--admin`")
            })?,
            (None, None) => HostPort(http::uri::Authority::from_static("127.0.0.1:9901")),
        };
        Ok(Listener { address, token: configured.and_then(|(_, admin)| admin.token) })
    }
}

/// Where a listener bound to `address` can be asked from this machine.
fn reachable(address: SocketAddr) -> String {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port()).to_string()
}

impl Listener {
    /// `GET path`.
    ///
    /// # Errors
    /// There is no answer; why.
    pub(super) fn get(&self, path: &str) -> Result<Answer, String> {
        self.ask("GET", path)
    }

    /// `POST path`, without content.
    ///
    /// # Errors
    /// There is no answer; why.
    pub(super) fn post(&self, path: &str) -> Result<Answer, String> {
        self.ask("POST", path)
    }

    fn ask(&self, method: &str, path: &str) -> Result<Answer, String> {
        self.exchange(method, path).map_err(|error| {
            // What the system says of a time that has passed is "resource temporarily unavailable".
            let slow = matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
            let why = if slow { format!("no answer within {} s", PATIENCE.as_secs()) } else { error.to_string() };
            format!("{}: {why}", self.address)
        })
    }

    fn exchange(&self, method: &str, path: &str) -> io::Result<Answer> {
        let deadline = Instant::now() + PATIENCE;
        let mut stream = self.connect(deadline)?;
        let token = self.token.as_ref().map(|token| format!("authorization: Bearer {}\r\n", token.reveal())).unwrap_or_default();
        stream.set_write_timeout(Some(PATIENCE))?;
        let length = if method == "POST" { "content-length: 0\r\n" } else { "" };
        write!(stream, "{method} {path} HTTP/1.1\r\nhost: {}\r\n{token}{length}connection: close\r\n\r\n", self.address)?;
        let mut bytes = Vec::new();
        let mut part = [0; 16 * 1024];
        while bytes.len() < LONGEST {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            stream.set_read_timeout(Some(left))?;
            match stream.read(&mut part)? {
                0 => break,
                count => bytes.extend_from_slice(part.get(..count).unwrap_or_default()),
            }
        }
        answer(&bytes).ok_or_else(|| io::Error::other("what answers does not speak HTTP"))
    }

    /// A connection to the first of its addresses that takes one.
    fn connect(&self, deadline: Instant) -> io::Result<TcpStream> {
        let mut last = io::Error::other("the name has no address");
        for address in self.address.0.as_str().to_socket_addrs()? {
            let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            match TcpStream::connect_timeout(&address, left) {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

/// Reads an answer that ends with its connection.
fn answer(bytes: &[u8]) -> Option<Answer> {
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut head = httparse::Response::new(&mut fields);
    let httparse::Status::Complete(length) = head.parse(bytes).ok()? else { return None };
    Some(Answer { status: head.code?, body: String::from_utf8_lossy(bytes.get(length..)?).into_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_given_by_name_or_address_with_its_port() {
        for good in ["localhost:9971", "127.0.0.1:9901", "[::1]:9901", "gate.example.org:80"] {
            assert_eq!(good.parse::<HostPort>().unwrap().to_string(), good);
        }
        for bad in
            ["nowhere", "localhost:", "localhost:0", "localhost:99999", ":9901", "http://localhost:9901", "a@b:1", "::1:9901", ""]
        {
            let why = bad.parse::<HostPort>().unwrap_err();
            assert!(why.contains("`localhost:9901`"), "{bad}: {why}");
        }
    }

    #[test]
    fn a_listener_on_every_address_is_asked_on_this_machine() {
        for (bound, asked) in
            [("0.0.0.0:9901", "127.0.0.1:9901"), ("[::]:9901", "[::1]:9901"), ("10.1.2.3:9901", "10.1.2.3:9901")]
        {
            assert_eq!(reachable(bound.parse().unwrap()), asked);
        }
    }
}
