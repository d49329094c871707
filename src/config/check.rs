//! From a typed configuration to a checked one: every fault is found in one reading.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytesize::ByteSize;
use ipnet::IpNet;
use toml::Spanned;

use super::{Admin, Audit, Config, Facts, Flags, Limits, Listen, OnDisk, Origin, Policies, Traces, Upstream, raw};
use crate::audit::{Durability, Keep, OnFailure, Sink};
use crate::files;
use crate::identity::LookupAddress;
use crate::model::{Fault, Faults, Mode, Place, Secret};
use crate::rules::Then;
use crate::rules::provider::{nearest, toml_fault};

/// The largest body that is read before it is forwarded: the proxy engine's own buffer ends there.
const LARGEST_INSPECTED_BODY: u64 = 64 * 1024;

/// The longest token file or file of service headers that is read, in bytes.
const LARGEST_SECRET: u64 = 64 * 1024;

/// The longest file of certificate authorities that is compared with what runs, in bytes.
const LARGEST_AUTHORITY: u64 = 1024 * 1024;

pub(super) fn config(file: &str, text: &str, folder: Option<&Path>, flags: &Flags) -> Result<Config, Faults> {
    let mut raw: raw::ConfigFile = toml::from_str(text).map_err(|error| Faults::from(toml_fault(file, text, &error)))?;
    let mut check = Check { file, text, folder, faults: Faults::default(), on_disk: OnDisk::default() };
    let limits = check.limits(std::mem::take(&mut raw.limits));
    let listen = check.listen(&raw.listen, flags);
    let admin = check.admin(&raw.admin, flags);
    let upstreams = check.upstreams(raw.upstream, flags);
    let networks = raw
        .networks
        .iter()
        .map(|(name, nets)| {
            if nets.get_ref().is_empty() {
                let message = format!("the network `{name}` holds no address: no client is ever in it");
                check.fault(nets, message, Some("list its addresses, as [\"10.0.0.0/8\"], or take the line out"));
            }
            (name.clone(), nets.get_ref().iter().filter_map(|net| check.network(net)).collect())
        })
        .collect();
    let config = Config {
        listen,
        admin,
        upstreams,
        policies: Policies {
            directory: flags.policies.clone().or_else(|| raw.policies.directory.as_ref().map(|path| check.path(path.get_ref()))),
            reload: raw.policies.reload.unwrap_or_default(),
        },
        facts: check.facts(&raw.facts),
        audit: check.audit(&raw.audit),
        limits,
        networks,
        traces: check.traces(&raw.traces),
        on_disk: std::mem::take(&mut check.on_disk),
    };
    check.faults.or(config)
}

struct Check<'a> {
    file: &'a str,
    text: &'a str,
    folder: Option<&'a Path>,
    faults: Faults,
    on_disk: OnDisk,
}

impl Check<'_> {
    fn fault<T>(&mut self, spanned: &Spanned<T>, message: impl Into<String>, hint: Option<&str>) {
        let fault = Fault::new(Place::at(self.file, self.text, spanned.span().start), message);
        self.faults.push(match hint {
            Some(hint) => fault.hint(hint),
            None => fault,
        });
    }

    fn flag(&mut self, flag: &str, message: impl Into<String>) {
        self.faults.push(Fault::new(Place::file(flag), message));
    }

    /// A path in the file counts from the file's own folder.
    fn path(&self, path: &str) -> PathBuf {
        self.folder.map_or_else(|| PathBuf::from(path), |folder| folder.join(path))
    }

    fn parsed<T: std::str::FromStr>(&mut self, text: &Spanned<String>, is_not: &str) -> Option<T> {
        let parsed = text.get_ref().parse().ok();
        if parsed.is_none() {
            self.fault(text, format!("`{}` {is_not}", text.get_ref()), None);
        }
        parsed
    }

    /// A network, or the network of one address. One that no client's address is in, or that holds more than is written, is a
    /// fault: addresses are compared as what they are, and an IPv4-mapped one is an IPv4 address.
    fn network(&mut self, text: &Spanned<String>) -> Option<IpNet> {
        let written = text.get_ref();
        let address = written.parse::<std::net::IpAddr>().ok().map(IpNet::from);
        let net: IpNet = address.or_else(|| self.parsed(text, "is no network such as `10.0.0.0/8`, nor an address"))?;
        let mapped = match net {
            IpNet::V6(net) if net.prefix_len() >= 96 => net.addr().to_ipv4_mapped().zip(net.prefix_len().checked_sub(96)),
            IpNet::V6(_) | IpNet::V4(_) => None,
        };
        if let Some((address, prefix)) = mapped {
            let meant = IpNet::new(address.into(), prefix).unwrap_or(net).trunc();
            let fault = format!("`{written}` holds no client's address: an IPv4-mapped address is compared as IPv4");
            self.fault(text, fault, Some(&format!("write `{meant}`")));
        } else if net != net.trunc() {
            let fault = format!("`{written}` has bits set behind its prefix");
            let alone = IpNet::from(net.addr());
            self.fault(
                text,
                fault,
                Some(&format!("write `{}` for the whole network, `{alone}` for the one address", net.trunc())),
            );
        }
        Some(net)
    }

    fn duration(&mut self, text: Option<&Spanned<String>>, default: Duration) -> Duration {
        let Some(text) = text else { return default };
        match humantime::parse_duration(text.get_ref()) {
            Ok(duration) => duration,
            Err(_) => {
                self.fault(
                    text,
                    format!("`{}` is no duration", text.get_ref()),
                    Some("write it as \"30s\", \"500ms\" or \"5m\""),
                );
                default
            }
        }
    }

    /// A duration of which zero would mean "never" or "at once, always".
    fn positive(&mut self, text: Option<&Spanned<String>>, default: Duration) -> Duration {
        let duration = self.duration(text, default);
        if duration.is_zero()
            && let Some(text) = text
        {
            self.fault(text, "must be longer than 0", None);
        }
        duration
    }

    fn bytes(&mut self, text: Option<&Spanned<String>>, default: u64) -> u64 {
        let Some(text) = text else { return default };
        match text.get_ref().parse::<ByteSize>() {
            Ok(size) if size.as_u64() > 0 => size.as_u64(),
            _ => {
                self.fault(text, format!("`{}` is no size", text.get_ref()), Some("write it as \"64KiB\" or \"256MiB\""));
                default
            }
        }
    }

    fn count(&mut self, number: Option<&Spanned<usize>>, default: usize) -> usize {
        let Some(number) = number else { return default };
        if *number.get_ref() == 0 {
            self.fault(number, "must be at least 1", None);
        }
        *number.get_ref()
    }

    fn listen(&mut self, raw: &raw::Listen, flags: &Flags) -> Listen {
        let mut addresses = Vec::new();
        match (&flags.listen, &raw.address) {
            (Some(flag), _) => match flag.parse() {
                Ok(address) => addresses.push(address),
                Err(_) => self.flag("--listen", format!("`{flag}` is no address such as `127.0.0.1:8080`")),
            },
            (None, None) => addresses.push(SocketAddr::from(([127, 0, 0, 1], 8080))),
            (None, Some(raw)) => {
                let texts = match raw.get_ref() {
                    raw::Addresses::One(one) => std::slice::from_ref(one),
                    raw::Addresses::Several(several) => several.as_slice(),
                };
                if texts.is_empty() {
                    self.fault(raw, "names no address", None);
                }
                for text in texts {
                    match text.parse() {
                        Ok(address) => addresses.push(address),
                        Err(_) => self.fault(raw, format!("`{text}` is no address such as `127.0.0.1:8080`"), None),
                    }
                }
            }
        }
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Listen {
            addresses,
            tls: raw.tls.as_ref().map(|tls| (self.path(&tls.get_ref().certificate), self.path(&tls.get_ref().key))),
            trusted_proxies: raw.trusted_proxies.iter().filter_map(|net| self.network(net)).collect(),
            threads: self.count(raw.threads.as_ref(), cores),
            drain: self.duration(raw.drain.as_ref(), Duration::from_secs(30)),
            fast_path: raw.fast_path.as_ref().is_none_or(|fast_path| *fast_path.get_ref()),
        }
    }

    fn admin(&mut self, raw: &raw::Admin, flags: &Flags) -> Admin {
        let default = SocketAddr::from(([127, 0, 0, 1], 9901));
        let address = match (&flags.admin, &raw.address) {
            (Some(flag), _) => flag.parse().unwrap_or_else(|_| {
                self.flag("--admin", format!("`{flag}` is no address such as `127.0.0.1:9901`"));
                default
            }),
            (None, Some(text)) => self.parsed(text, "is no address such as `127.0.0.1:9901`").unwrap_or(default),
            (None, None) => default,
        };
        let token = raw.token_file.as_ref().and_then(|file| self.secret_file(file));
        Admin { address, token }
    }

    fn secret_file(&mut self, file: &Spanned<String>) -> Option<Secret> {
        let path = self.path(file.get_ref());
        match files::text(&path, LARGEST_SECRET) {
            Ok(text) if text.trim().len() >= 16 => {
                self.on_disk.holds(&path, text.as_bytes());
                Some(Secret::new(text.trim()))
            }
            Ok(_) => {
                self.fault(file, format!("`{}` holds fewer than 16 characters", file.get_ref()), None);
                None
            }
            Err(error) => {
                self.fault(file, format!("`{}`: {error}", file.get_ref()), None);
                None
            }
        }
    }

    fn upstreams(&mut self, raw: Vec<Spanned<raw::Upstream>>, flags: &Flags) -> Vec<Upstream> {
        let count = raw.len();
        let mut upstreams: Vec<Upstream> = raw.into_iter().filter_map(|upstream| self.upstream(&upstream, count)).collect();
        match (&flags.provider, &flags.upstream) {
            (None, None) => {}
            (provider, url) => {
                let first = upstreams.first().cloned();
                let provider = provider.clone().or_else(|| first.as_ref().map(|first| first.provider.clone()));
                let url = match url {
                    Some(url) => origin(url).map_err(|why| self.flag("--upstream", format!("`{url}` {why}"))).ok(),
                    None => first.as_ref().map(|first| first.url.clone()),
                };
                match (provider, url) {
                    (Some(provider), Some(url)) => {
                        let base = first.unwrap_or_else(|| Upstream::new(&provider, url.clone()));
                        upstreams =
                            vec![Upstream { name: base.host.clone().unwrap_or_else(|| url.host.clone()), provider, url, ..base }];
                    }
                    (None, _) => self.flag("--provider", "is needed with `--upstream`"),
                    (_, None) if self.faults.0.is_empty() => self.flag("--upstream", "is needed with `--provider`"),
                    (_, None) => {}
                }
            }
        }
        if upstreams.is_empty() && self.faults.0.is_empty() {
            let fault = Fault::new(Place::file(self.file), "names no `[[upstream]]`");
            self.faults.push(fault.hint("rolegate run --provider rocketchat --upstream http://127.0.0.1:3000"));
        }
        for upstream in &upstreams {
            if upstream.provider == "docusign-rooms" && upstream.account.is_none() {
                self.flag(&upstream.name.clone(), "`account_url` is needed by the provider `docusign-rooms`");
            }
        }
        upstreams
    }

    fn upstream(&mut self, spanned: &Spanned<raw::Upstream>, count: usize) -> Option<Upstream> {
        let raw = spanned.get_ref();
        let url = self.origin(&raw.url);
        if raw.host.is_none() && count > 1 {
            self.fault(spanned, "needs `host`: there is more than one upstream", None);
        }
        let path_prefix = raw.path_prefix.as_ref().map(|prefix| prefix.get_ref().clone()).unwrap_or_default();
        if let Some(prefix) = &raw.path_prefix
            && !path_prefix.is_empty()
            && (!path_prefix.starts_with('/') || path_prefix.ends_with('/') || path_prefix.contains(['%', '?', '#', ';', '\\']))
        {
            self.fault(prefix, "a path prefix is empty, or begins with a slash and does not end with one", None);
        }
        let service = raw.service.as_ref().and_then(|service| self.service(&service.headers_file));
        let url = url?;
        let defaults = Upstream::new(raw.provider.get_ref(), url.clone());
        let host = raw.host.as_ref().map(|host| host.get_ref().to_ascii_lowercase());
        Some(Upstream {
            name: host.clone().unwrap_or_else(|| url.host.clone()),
            host,
            path_prefix,
            mode: raw.mode.unwrap_or(defaults.mode),
            unlisted: raw.unlisted.unwrap_or(defaults.unlisted),
            unlisted_methods: raw.unlisted_methods.unwrap_or(defaults.unlisted_methods),
            websockets: raw.websockets.unwrap_or(defaults.websockets),
            account: match &raw.account_url {
                Some(account) => self.origin(account),
                None => defaults.account,
            },
            service,
            ca: raw.tls.as_ref().and_then(|tls| tls.ca.as_ref()).map(|ca| self.authority(ca)),
            server_name: raw.tls.as_ref().and_then(|tls| tls.server_name.as_ref()).map(|name| name.get_ref().clone()),
            resolve_every: self.positive(raw.resolve_every.as_ref(), defaults.resolve_every),
            connect_timeout: self.positive(raw.connect_timeout.as_ref(), defaults.connect_timeout),
            first_byte_timeout: self.positive(raw.first_byte_timeout.as_ref(), defaults.first_byte_timeout),
            read_timeout: self.positive(raw.read_timeout.as_ref(), defaults.read_timeout),
            provider: defaults.provider,
            url: defaults.url,
        })
    }

    fn origin(&mut self, url: &Spanned<String>) -> Option<Origin> {
        origin(url.get_ref()).map_err(|why| self.fault(url, format!("`{}` {why}", url.get_ref()), None)).ok()
    }

    /// The path of a certificate authority, which is read at the start only. What is wrong with it is told where it is used.
    fn authority(&mut self, file: &Spanned<String>) -> PathBuf {
        let path = self.path(file.get_ref());
        if let Ok(bytes) = files::bytes(&path, LARGEST_AUTHORITY) {
            self.on_disk.holds(&path, &bytes);
        }
        path
    }

    /// `name = "value"` lines: the headers of a service's credential.
    fn service(&mut self, file: &Spanned<String>) -> Option<Vec<(String, Secret)>> {
        let shown = file.get_ref().clone();
        let text = match files::text(&self.path(&shown), LARGEST_SECRET) {
            Ok(text) => text,
            Err(error) => {
                self.fault(file, format!("`{shown}`: {error}"), None);
                return None;
            }
        };
        self.on_disk.holds(&self.path(&shown), text.as_bytes());
        match toml::from_str::<std::collections::BTreeMap<String, String>>(&text) {
            Ok(headers) => {
                Some(headers.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), Secret::new(value))).collect())
            }
            // The parser's own message would show the line, and with it the secret.
            Err(_) => {
                self.fault(file, format!("`{shown}` is no list of `name = \"value\"` lines"), None);
                None
            }
        }
    }

    fn facts(&mut self, raw: &raw::Facts) -> Facts {
        let lookup_address = match &raw.lookup_address {
            None => LookupAddress::Caller,
            Some(text) => match text.get_ref().as_str() {
                "caller" => LookupAddress::Caller,
                "client" => LookupAddress::Client,
                other => {
                    self.word(text, other, &["caller", "client"]);
                    LookupAddress::Caller
                }
            },
        };
        Facts {
            ttl: self.positive(raw.ttl.as_ref(), Duration::from_secs(30)),
            max_stale: self.duration(raw.max_stale.as_ref(), Duration::ZERO),
            refused_ttl: self.positive(raw.refused_ttl.as_ref(), Duration::from_secs(5)),
            capacity: match &raw.capacity {
                Some(capacity) if *capacity.get_ref() < 10 => {
                    self.fault(capacity, "must be at least 10", None);
                    10
                }
                capacity => capacity.as_ref().map_or(100_000, |capacity| *capacity.get_ref()),
            },
            lookup_timeout: self.positive(raw.lookup_timeout.as_ref(), Duration::from_secs(3)),
            lookup_address,
        }
    }

    fn word(&mut self, spanned: &Spanned<String>, typed: &str, known: &[&str]) {
        let hint = nearest(typed, known.iter().copied()).map(|known| format!("did you mean `{known}`?"));
        self.fault(spanned, format!("`{typed}` is none of {}", known.join(", ")), hint.as_deref());
    }

    fn audit(&mut self, raw: &raw::Audit) -> Audit {
        let sink = match raw.path.as_ref().map(|path| path.get_ref().as_str()) {
            Some("-") => Sink::Stdout,
            path => Sink::File(self.path(path.unwrap_or("audit/audit.jsonl"))),
        };
        let durability = match raw.durability.as_ref().map(|text| (text, text.get_ref().as_str())) {
            None | Some((_, "written")) => Durability::Written,
            Some((_, "buffered")) => Durability::Buffered,
            Some((text, "durable")) => {
                self.fault(text, "`durability = \"durable\"` is not in this release", Some("the strongest is `written`"));
                Durability::Written
            }
            Some((text, other)) => {
                self.word(text, other, &["durable", "written", "buffered"]);
                Durability::Written
            }
        };
        let on_failure = match raw.on_failure.as_ref().map(|text| (text, text.get_ref().as_str())) {
            None | Some((_, "deny")) => OnFailure::Deny,
            Some((_, "allow")) => OnFailure::Allow,
            Some((text, other)) => {
                self.word(text, other, &["deny", "allow"]);
                OnFailure::Deny
            }
        };
        let rotate_bytes = self.bytes(raw.rotate_bytes.as_ref(), 256 * 1024 * 1024);
        let refusals = self.count(raw.refusals_per_address.as_ref(), 10);
        let refusals_per_address = u32::try_from(refusals).unwrap_or(u32::MAX);
        Audit { keep: self.keep(raw, &sink), sink, durability, rotate_bytes, refusals_per_address, on_failure }
    }

    fn keep(&mut self, raw: &raw::Audit, sink: &Sink) -> Keep {
        let keep = Keep {
            files: raw.keep.as_ref().map(|keep| self.count(Some(keep), 1)),
            age: raw.keep_age.as_ref().map(|age| self.positive(Some(age), Duration::MAX)),
        };
        if *sink == Sink::Stdout {
            let hint = Some("name a file in `path`, or leave this to who reads the standard output");
            if let Some(keep) = &raw.keep {
                self.fault(keep, "`keep` counts rotated files, and the standard output has none", hint);
            }
            if let Some(age) = &raw.keep_age {
                self.fault(age, "`keep_age` is about rotated files, and the standard output has none", hint);
            }
        }
        keep
    }

    fn traces(&mut self, raw: &raw::Traces) -> Traces {
        let Some(text) = raw.otlp_endpoint.as_ref().filter(|text| !text.get_ref().is_empty()) else {
            return Traces { otlp_endpoint: None };
        };
        let endpoint = collector(text.get_ref());
        if let Err(why) = endpoint {
            self.fault(text, format!("`otlp_endpoint` {why}"), Some("name a collector nearby, as \"http://127.0.0.1:4318\""));
        }
        Traces { otlp_endpoint: endpoint.ok() }
    }

    fn limits(&mut self, raw: raw::Limits) -> Limits {
        let inspected_body = self.bytes(raw.inspected_body.as_ref(), LARGEST_INSPECTED_BODY);
        if inspected_body > LARGEST_INSPECTED_BODY
            && let Some(text) = &raw.inspected_body
        {
            self.fault(text, "at most 64KiB can be inspected", None);
        }
        Limits {
            connections: self.count(raw.connections.as_ref(), 10_000),
            connections_per_address: self.count(raw.connections_per_address.as_ref(), 1_000),
            header_deadline: self.positive(raw.header_deadline.as_ref(), Duration::from_secs(10)),
            header_bytes: usize::try_from(self.bytes(raw.header_bytes.as_ref(), 32 * 1024)).unwrap_or(usize::MAX),
            header_fields: self.count(raw.header_fields.as_ref(), 100),
            inspected_body: usize::try_from(inspected_body).unwrap_or(usize::MAX),
            keepalive_idle: self.positive(raw.keepalive_idle.as_ref(), Duration::from_secs(60)),
            lookups: self.count(raw.lookups.as_ref(), 256),
            lookups_per_address: self.count(raw.lookups_per_address.as_ref(), 32),
            lookup_body: usize::try_from(self.bytes(raw.lookup_body.as_ref(), 32 * 1024 * 1024)).unwrap_or(usize::MAX),
        }
    }
}

impl Upstream {
    /// An upstream of `provider` at `url` with every default.
    #[must_use]
    pub fn new(provider: &str, url: Origin) -> Self {
        let account =
            (provider == "docusign-rooms").then(|| Origin { tls: true, host: "account.docusign.com".into(), port: 443 });
        Self {
            name: url.host.clone(),
            provider: provider.to_owned(),
            url,
            host: None,
            path_prefix: String::new(),
            mode: Mode::Enforce,
            unlisted: Then::Forward,
            unlisted_methods: Then::Forward,
            websockets: Then::Forward,
            account,
            service: None,
            ca: None,
            server_name: None,
            resolve_every: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(3),
            first_byte_timeout: Duration::from_secs(30),
            read_timeout: Duration::from_secs(60),
        }
    }
}

/// Reads `http://host[:port]`, and nothing behind it.
fn origin(url: &str) -> Result<Origin, &'static str> {
    let uri: http::Uri = url.parse().map_err(|_| "is no URL")?;
    let tls = match uri.scheme_str() {
        Some("http") => false,
        Some("https") => true,
        _ => return Err("begins with neither `http://` nor `https://`"),
    };
    if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
        return Err("has a path; use `path_prefix`");
    }
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err("holds a credential");
    }
    let host = uri.host().filter(|host| !host.is_empty()).ok_or("names no host")?;
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    Ok(Origin { tls, host, port: uri.port_u16().unwrap_or(if tls { 443 } else { 80 }) })
}

/// Reads where a collector takes spans: `http://host[:port]`, and a path where that is not the usual one.
fn collector(url: &str) -> Result<String, &'static str> {
    let uri: http::Uri = url.parse().map_err(|_| "is no URL")?;
    match uri.scheme_str() {
        Some("http") => {}
        Some("https") => return Err("begins with `https://`, and spans are sent without TLS"),
        _ => return Err("does not begin with `http://`"),
    }
    let authority = uri.authority().map_or("", http::uri::Authority::as_str);
    if authority.contains('@') {
        return Err("holds a credential");
    }
    if uri.host().is_none_or(str::is_empty) {
        return Err("names no host");
    }
    if uri.query().is_some() {
        return Err("has a query");
    }
    let path = if matches!(uri.path(), "" | "/") { "/v1/traces" } else { uri.path() };
    Ok(format!("http://{authority}{path}"))
}

impl std::str::FromStr for Origin {
    type Err = &'static str;

    fn from_str(url: &str) -> Result<Self, Self::Err> {
        origin(url)
    }
}
