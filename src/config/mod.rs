//! What an operator sets: read from a file and from flags, checked as a whole, never changed afterwards.

mod check;
mod disk;
mod outside;
mod places;
mod raw;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use serde::Deserialize;

pub use self::disk::{Compared, OnDisk};
pub use self::outside::unfit_upstreams;
pub use self::places::Places;
use crate::model::{Fault, Faults, Mode, Place, Secret};
use crate::rules::{Then, source};

/// The longest configuration file that is read, in bytes.
const LARGEST_FILE: u64 = 1024 * 1024;

/// Everything that `rolegate run` needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where clients come in.
    pub listen: Listen,
    /// Where operators and monitoring come in.
    pub admin: Admin,
    /// The servers behind the gate.
    pub upstreams: Vec<Upstream>,
    /// Where the rules come from.
    pub policies: Policies,
    /// How facts are looked up and remembered.
    pub facts: Facts,
    /// Where records go.
    pub audit: Audit,
    /// Bounds on what clients may use.
    pub limits: Limits,
    /// Named networks, for policies.
    pub networks: Vec<(String, Vec<IpNet>)>,
    /// Where spans go.
    pub traces: Traces,
    /// The files that all this was read from.
    pub on_disk: OnDisk,
    /// Where its keys stand.
    pub places: Places,
    /// What is allowed, and yet does not do what it seems to.
    pub notes: Vec<Fault>,
}

/// `[listen]`.
#[derive(Debug, Clone)]
pub struct Listen {
    /// The addresses to bind.
    pub addresses: Vec<SocketAddr>,
    /// Certificate chain and key, both PEM.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Worker threads; at least 1.
    pub threads: usize,
    /// How long requests in flight may take after SIGTERM.
    pub drain: Duration,
    /// Whether guarded reads of the plainest form are forwarded without the proxy engine.
    pub fast_path: bool,
}

/// `[admin]`.
#[derive(Debug, Clone)]
pub struct Admin {
    /// The address to bind.
    pub address: SocketAddr,
    /// The bearer token for what changes something, on an address that is not loopback.
    pub token: Option<Secret>,
}

/// `[[upstream]]`.
#[derive(Debug, Clone)]
pub struct Upstream {
    /// Its name in records: the Host it serves, or the host of its URL.
    pub name: String,
    /// Its kind.
    pub provider: String,
    /// Where it is.
    pub url: Origin,
    /// The Host it serves; every one when there is only one upstream.
    pub host: Option<String>,
    /// Part of its path before the guarded spaces; empty or `/something`.
    pub path_prefix: String,
    /// Whether verdicts are carried out.
    pub mode: Mode,
    /// What becomes of paths inside a guarded space that nothing declares.
    pub unlisted: Then,
    /// What becomes of methods in bodies that no action declares.
    pub unlisted_methods: Then,
    /// What becomes of WebSocket handshakes.
    pub websockets: Then,
    /// The account server of DocuSign.
    pub account: Option<Origin>,
    /// Headers of the credential for table lookups.
    pub service: Option<Vec<(String, Secret)>>,
    /// A certificate authority of its own, PEM.
    pub ca: Option<PathBuf>,
    /// The name that its certificate must have, when that is not the host of the URL.
    pub server_name: Option<String>,
    /// How often its name is resolved.
    pub resolve_every: Duration,
    /// Bound on connecting, TLS included.
    pub connect_timeout: Duration,
    /// Bound on the time to the first byte of an answer.
    pub first_byte_timeout: Duration,
    /// Bound on silence within an answer.
    pub read_timeout: Duration,
}

/// Scheme, host and port of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// Whether TLS is spoken.
    pub tls: bool,
    /// The host name or address.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl Origin {
    /// The `Host` field for this server: without the port when it is the scheme's own.
    #[must_use]
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        match (self.tls, self.port) {
            (true, 443) | (false, 80) => host,
            (_, port) => format!("{host}:{port}"),
        }
    }
}

/// `[policies]`.
#[derive(Debug, Clone)]
pub struct Policies {
    /// The folder; the built-in ones without.
    pub directory: Option<PathBuf>,
    /// What makes them be read again.
    pub reload: ReloadBy,
}

/// What makes rules be read again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReloadBy {
    /// A change of the folder, and SIGHUP.
    #[default]
    Watch,
    /// SIGHUP only.
    Signal,
}

/// `[facts]`.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The age at which a fact is looked up again.
    pub ttl: Duration,
    /// How much older it may be used when the lookup fails.
    pub max_stale: Duration,
    /// How long a refused credential is remembered.
    pub refused_ttl: Duration,
    /// How many facts of one kind are remembered.
    pub capacity: u64,
    /// Bound on one lookup, all its steps together.
    pub lookup_timeout: Duration,
    /// Whose address a lookup carries.
    pub lookup_address: crate::identity::LookupAddress,
}

/// `[audit]`.
#[derive(Debug, Clone)]
pub struct Audit {
    /// The file, or stdout.
    pub sink: crate::audit::Sink,
    /// When a record counts as written.
    pub durability: crate::audit::Durability,
    /// The size at which a new file begins.
    pub rotate_bytes: u64,
    /// Which rotated files are kept.
    pub keep: crate::audit::Keep,
    /// How many refusals of callers that are not known are recorded a second for one address, and ten times as many at once.
    pub refusals_per_address: u32,
    /// What a request meets whose record cannot be written.
    pub on_failure: crate::audit::OnFailure,
}

/// `[limits]`.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Open client connections.
    pub connections: usize,
    /// Open client connections of one address.
    pub connections_per_address: usize,
    /// Time for a request's head to arrive.
    pub header_deadline: Duration,
    /// Bytes of a request's header section.
    pub header_bytes: usize,
    /// Fields of a request's header section.
    pub header_fields: usize,
    /// Bytes of a body that is read before it is forwarded.
    pub inspected_body: usize,
    /// Time for a body to arrive that is read before it is forwarded.
    pub body_deadline: Duration,
    /// How long nothing may come of a body that is forwarded as it comes.
    pub body_idle: Duration,
    /// How long a client may take nothing of an answer.
    pub send_idle: Duration,
    /// How long a client connection may idle between requests.
    pub keepalive_idle: Duration,
    /// Lookups at once, per upstream.
    pub lookups: usize,
    /// Lookups at once for one client address, per upstream.
    pub lookups_per_address: usize,
    /// Bytes of the answer to a lookup.
    pub lookup_body: usize,
}

/// `[traces]`.
#[derive(Debug, Clone)]
pub struct Traces {
    /// The URL that spans are sent to, with its path; none is sent without.
    pub otlp_endpoint: Option<String>,
}

/// What stands on the command line; each beats the file.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    /// `--provider`.
    pub provider: Option<String>,
    /// `--upstream`.
    pub upstream: Option<String>,
    /// `--listen`.
    pub listen: Option<String>,
    /// `--admin`.
    pub admin: Option<String>,
    /// `--policies`.
    pub policies: Option<PathBuf>,
}

impl Config {
    /// Reads the file at `path`, or nothing, and lays `flags` over it.
    ///
    /// # Errors
    /// Every fault, with its place in the file.
    pub fn load(path: Option<&std::path::Path>, flags: &Flags) -> Result<Self, Faults> {
        let Some(path) = path else { return check::config("command line", "", None, flags) };
        Self::of(path, crate::files::argument_bytes(path, LARGEST_FILE), flags)
    }

    /// The same of a regular file.
    fn load_again(path: &std::path::Path, flags: &Flags) -> Result<Self, Faults> {
        Self::of(path, crate::files::bytes(path, LARGEST_FILE), flags)
    }

    fn of(path: &std::path::Path, read: std::io::Result<Vec<u8>>, flags: &Flags) -> Result<Self, Faults> {
        let shown = path.display().to_string();
        let bytes = read.map_err(|error| Faults::from(unread(path, &error)))?;
        let text = source::decoded(&shown, bytes.clone()).map_err(Faults::from)?;
        let mut config = check::config(&shown, &text, path.parent(), flags)?;
        config.on_disk.begins_with(path, &bytes, flags);
        Ok(config)
    }

    /// Where the policies lie and which networks they may name, by a file that has faults elsewhere: so that theirs can be told
    /// beside them.
    #[must_use]
    pub fn glimpse(path: &std::path::Path) -> (Option<(PathBuf, Place)>, Vec<String>) {
        let text =
            crate::files::bytes(path, LARGEST_FILE).ok().and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default();
        let table = text.parse::<toml::Table>().unwrap_or_default();
        let directory = table.get("policies").and_then(|policies| policies.get("directory")).and_then(toml::Value::as_str);
        let place = || Places::of(&path.display().to_string(), &text).of_key("policies.directory");
        let directory = directory.map(|directory| (path.parent().unwrap_or(std::path::Path::new("")).join(directory), place()));
        let networks = table.get("networks").and_then(toml::Value::as_table);
        (directory, networks.into_iter().flat_map(|networks| networks.keys().cloned()).collect())
    }

    /// The names of the networks that policies may use.
    #[must_use]
    pub fn network_names(&self) -> Vec<String> {
        self.networks.iter().map(|(name, _)| name.clone()).collect()
    }

    /// The named networks that `address` is in.
    #[must_use]
    pub fn networks_of(&self, address: IpAddr) -> Vec<&str> {
        let within = |nets: &Vec<IpNet>| nets.iter().any(|net| net.contains(&address.to_canonical()));
        self.networks.iter().filter(|(_, nets)| within(nets)).map(|(name, _)| name.as_str()).collect()
    }
}

/// That the configuration at `path` cannot be read.
fn unread(path: &std::path::Path, error: &std::io::Error) -> Fault {
    let fault = Fault::new(Place::file(path.display().to_string()), error.to_string());
    let inside = path.join("rolegate.toml");
    match error.kind() {
        std::io::ErrorKind::IsADirectory if inside.is_file() => fault.hint(format!("did you mean `{}`?", inside.display())),
        std::io::ErrorKind::NotFound => fault.hint("`rolegate init DIR` writes a commented one"),
        _ => fault,
    }
}

/// A commented configuration with every key and its default, for `rolegate init`.
pub const EXAMPLE: &str = include_str!("example.toml");
