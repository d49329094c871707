//! From a typed configuration to a checked one: every fault is found in one reading.

mod agree;
mod values;

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use toml::Spanned;

use self::values::{DAY, MOMENT, collector, origin};
use super::places::Places;
use super::{Admin, Audit, Config, Facts, Flags, Limits, Listen, OnDisk, Origin, Policies, Traces, Upstream, raw};
use crate::audit::{Durability, Keep, OnFailure, Sink};
use crate::identity::LookupAddress;
use crate::model::{Fault, Faults, Mode, Place};
use crate::rules::Then;
use crate::rules::provider::nearest;

/// The largest body that is read before it is forwarded, unless the operator says otherwise: a call with a picture in it passes, and
/// what all connections together may hold is bounded.
const INSPECTED_BODY: u64 = 256 * 1024;
/// The most that an operator may have read of one body: each connection may hold as much.
const MOST_INSPECTED_BODY: u64 = 16 * 1024 * 1024;
/// The largest header section: the proxy engine reads one of a mebibyte, request line and all.
const LARGEST_HEADER: u64 = 512 * 1024;
/// The smallest header section that a browser's cookies fit into.
const SMALLEST_HEADER: u64 = 1024;
/// The most fields of a header section: the proxy engine reads 256, some of which the gate adds.
const MOST_FIELDS: usize = 200;
/// The fewest fields of a header section that a browser's requests have.
const FEWEST_FIELDS: usize = 10;
/// The longest answer to a lookup: it is held in memory.
const MOST_LOOKED_UP: u64 = 1024 * 1024 * 1024;
/// The most threads: each has a stack, and no machine gains by more.
const MOST_THREADS: usize = 1024;
/// The most of anything else that is counted.
const MOST: usize = 10_000_000;
/// The most facts that are remembered: half a kilobyte each.
const MOST_FACTS: u64 = 1_000_000_000;
/// The smallest file of the audit log: a smaller one would hold few records or none.
const SMALLEST_FILE: u64 = 1024;
/// The greatest age of a record that somebody keeps.
const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);
/// How often a name is resolved at most.
const OFTEN: Duration = Duration::from_millis(100);
/// The greatest age of a fact when its lookup fails.
const STALEST: Duration = Duration::from_secs(7 * 24 * 60 * 60);

pub(super) fn config(file: &str, text: &str, folder: Option<&Path>, flags: &Flags) -> Result<Config, Faults> {
    let (raw, faults) = crate::rules::typed_file::<raw::ConfigFile>(file, text);
    let Some(mut raw) = raw else { return Err(faults.or(()).err().unwrap_or_default()) };
    let mut check = Check { folder, places: Places::of(file, text), file, text, faults, on_disk: OnDisk::default() };
    let limits = check.limits(std::mem::take(&mut raw.limits));
    let listen = check.listen(&raw.listen, flags);
    let admin = check.admin(&raw.admin, flags);
    let upstreams = check.upstreams(raw.upstream, flags);
    let mut networks = Vec::new();
    for (name, nets) in &raw.networks {
        if nets.get_ref().is_empty() {
            let message = format!("the network `{name}` holds no address: no client is ever in it");
            check.fault(nets, message, Some("list its addresses, as [\"10.0.0.0/8\"], or take the line out"));
        }
        networks.push((name.clone(), nets.get_ref().iter().filter_map(|net| check.network(net)).collect()));
    }
    let directory = raw.policies.directory.as_ref().map(|path| check.path(path));
    if flags.policies.is_some() {
        check.places.by_flag("policies.directory", "--policies");
    }
    let mut config = Config {
        listen,
        admin,
        upstreams,
        policies: Policies { directory: flags.policies.clone().or(directory), reload: raw.policies.reload.unwrap_or_default() },
        facts: check.facts(&raw.facts),
        audit: check.audit(&raw.audit),
        limits,
        networks,
        traces: check.traces(&raw.traces),
        on_disk: std::mem::take(&mut check.on_disk),
        places: Places::default(),
        notes: Vec::new(),
    };
    check.agree(&config);
    config.notes = check.notes(&config);
    config.places = std::mem::take(&mut check.places);
    check.faults.or(config)
}

struct Check<'a> {
    file: &'a str,
    text: &'a str,
    folder: Option<&'a Path>,
    places: Places,
    faults: Faults,
    on_disk: OnDisk,
}

impl Check<'_> {
    /// A fault of the value `spanned`, with its key unless the message says it.
    fn fault<T>(&mut self, spanned: &Spanned<T>, message: impl Into<String>, hint: Option<&str>) {
        self.fault_at(Place::at(self.file, self.text, spanned.span().start), message.into(), hint);
    }

    fn fault_at(&mut self, place: Place, message: String, hint: Option<&str>) {
        let is_said = |key: &str| key.rsplit('.').next().is_some_and(|last| message.contains(&format!("`{last}")));
        let key = self.places.key_at(&place).filter(|key| !is_said(key));
        let message = key.map_or(message.clone(), |key| format!("`{key}`: {message}"));
        self.faults.push(Fault { hint: hint.map(str::to_owned), ..Fault::new(place, message) });
    }

    fn flag(&mut self, flag: &str, message: impl Into<String>, hint: Option<&str>) {
        self.faults.push(Fault { hint: hint.map(str::to_owned), ..Fault::new(Place::file(flag), message) });
    }

    fn listen(&mut self, raw: &raw::Listen, flags: &Flags) -> Listen {
        let mut addresses = Vec::new();
        match (&flags.listen, &raw.address) {
            (Some(flag), _) => {
                self.places.by_flag("listen.address", "--listen");
                match self.address(flag, 8080) {
                    Ok(address) => addresses.push(address),
                    Err((why, hint)) => self.flag("--listen", why, Some(&hint)),
                }
            }
            (None, None) => addresses.push(SocketAddr::from(([127, 0, 0, 1], 8080))),
            (None, Some(raw)) => {
                let texts = match raw.get_ref() {
                    raw::Addresses::One(one) => std::slice::from_ref(one),
                    raw::Addresses::Several(several) => several.as_slice(),
                };
                if texts.is_empty() {
                    self.fault(raw, "names no address", Some("write it as \"127.0.0.1:8080\""));
                }
                for (index, text) in texts.iter().enumerate() {
                    match self.address(text, 8080) {
                        Ok(address) => addresses.push(address),
                        Err((why, hint)) => {
                            self.fault_at(self.places.of_key(&format!("listen.address.{index}")), why, Some(&hint));
                        }
                    }
                }
            }
        }
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Listen {
            addresses,
            tls: raw.tls.as_ref().map(|tls| (self.path(&tls.certificate), self.path(&tls.key))),
            trusted_proxies: raw.trusted_proxies.iter().filter_map(|net| self.network(net)).collect(),
            threads: self.count(raw.threads.as_ref(), cores, 1, MOST_THREADS),
            drain: self.within(raw.drain.as_ref(), Duration::from_secs(30), Duration::ZERO, DAY),
            fast_path: raw.fast_path.as_ref().is_none_or(|fast_path| *fast_path.get_ref()),
        }
    }

    fn admin(&mut self, raw: &raw::Admin, flags: &Flags) -> Admin {
        let default = SocketAddr::from(([127, 0, 0, 1], 9901));
        let address = match (&flags.admin, &raw.address) {
            (Some(flag), _) => {
                self.places.by_flag("admin.address", "--admin");
                self.address(flag, 9901).map_err(|(why, hint)| self.flag("--admin", why, Some(&hint))).unwrap_or(default)
            }
            (None, Some(text)) => {
                let address = self.address(text.get_ref(), 9901);
                address.map_err(|(why, hint)| self.fault(text, why, Some(&hint))).unwrap_or(default)
            }
            (None, None) => default,
        };
        let token = raw.token_file.as_ref().and_then(|file| self.secret_file(file));
        Admin { address, token }
    }

    fn upstreams(&mut self, raw: Vec<Spanned<raw::Upstream>>, flags: &Flags) -> Vec<Upstream> {
        let count = raw.len();
        let mut upstreams = Vec::new();
        let mut kept = Vec::new();
        for (index, upstream) in raw.into_iter().enumerate() {
            if let Some(upstream) = self.upstream(&upstream, count) {
                upstreams.push(upstream);
                kept.push(index);
            }
        }
        // One that has a fault of its own is not among them: the places of the others would be those of their neighbours.
        if kept.len() < count {
            upstreams.clear();
        }
        match (&flags.provider, &flags.upstream) {
            (None, None) => {}
            (provider, url) => {
                let first = upstreams.first().cloned();
                if provider.is_some() {
                    self.places.by_flag("upstream.0.provider", "--provider");
                }
                if url.is_some() {
                    self.places.by_flag("upstream.0.url", "--upstream");
                }
                let provider = provider.clone().or_else(|| first.as_ref().map(|first| first.provider.clone()));
                let url = match url {
                    Some(url) => origin(url).map_err(|why| self.flag("--upstream", why.shown(url), Some(&why.hint))).ok(),
                    None => first.as_ref().map(|first| first.url.clone()),
                };
                match (provider, url) {
                    (Some(provider), Some(url)) => {
                        let base = first.unwrap_or_else(|| Upstream::new(&provider, url.clone()));
                        upstreams =
                            vec![Upstream { name: base.host.clone().unwrap_or_else(|| url.host.clone()), provider, url, ..base }];
                    }
                    (None, _) => self.flag("--provider", "is needed with `--upstream`", Some("as in `--provider rocketchat`")),
                    (_, None) if self.faults.0.is_empty() => {
                        self.flag("--upstream", "is needed with `--provider`", Some("as in `--upstream http://127.0.0.1:3000`"))
                    }
                    (_, None) => {}
                }
            }
        }
        if upstreams.is_empty() && self.faults.0.is_empty() {
            let fault = Fault::new(Place::file(self.file), "names no `[[upstream]]`");
            self.faults.push(fault.hint("rolegate run --provider rocketchat --upstream http://127.0.0.1:3000"));
        }
        for (index, upstream) in upstreams.iter().enumerate() {
            if upstream.provider == "docusign-rooms" && upstream.account.is_none() {
                let place = self.places.of_key(&format!("upstream.{index}"));
                let fault = Fault::new(place, "`upstream.account_url` is needed by the provider `docusign-rooms`");
                self.faults.push(fault.hint("write `account_url = \"https://account.docusign.com\"`"));
            }
        }
        upstreams
    }

    fn upstream(&mut self, spanned: &Spanned<raw::Upstream>, count: usize) -> Option<Upstream> {
        let raw = spanned.get_ref();
        let url = self.origin(&raw.url);
        if raw.host.is_none() && count > 1 {
            let hint = "write `host = \"chat.example.org\"`, the name that its clients ask for";
            self.fault(spanned, "needs `host`: there is more than one upstream", Some(hint));
        }
        let path_prefix = raw.path_prefix.as_ref().map(|prefix| self.prefix(prefix)).unwrap_or_default();
        let service = raw.service.as_ref().and_then(|service| self.service(&service.headers_file));
        let host = raw.host.as_ref().and_then(|host| self.host(host));
        let server_name = raw.tls.as_ref().and_then(|tls| tls.server_name.as_ref()).and_then(|name| self.host(name));
        let ca = raw.tls.as_ref().and_then(|tls| tls.ca.as_ref()).map(|ca| self.authority(ca));
        let url = url?;
        let defaults = Upstream::new(raw.provider.get_ref(), url.clone());
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
            ca,
            server_name,
            resolve_every: self.within(raw.resolve_every.as_ref(), defaults.resolve_every, OFTEN, DAY),
            connect_timeout: self.positive(raw.connect_timeout.as_ref(), defaults.connect_timeout),
            first_byte_timeout: self.positive(raw.first_byte_timeout.as_ref(), defaults.first_byte_timeout),
            read_timeout: self.positive(raw.read_timeout.as_ref(), defaults.read_timeout),
            provider: defaults.provider,
            url: defaults.url,
        })
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
            max_stale: self.within(raw.max_stale.as_ref(), Duration::ZERO, Duration::ZERO, STALEST),
            refused_ttl: self.positive(raw.refused_ttl.as_ref(), Duration::from_secs(5)),
            capacity: self.count(raw.capacity.as_ref(), 100_000, 10, MOST_FACTS),
            lookup_timeout: self.positive(raw.lookup_timeout.as_ref(), Duration::from_secs(3)),
            lookup_address,
        }
    }

    fn word(&mut self, spanned: &Spanned<String>, typed: &str, known: &[&str]) {
        let hint = nearest(typed, known.iter().copied()).map(|known| format!("did you mean `{known}`?"));
        self.fault(spanned, format!("`{typed}` is none of {}", known.join(", ")), hint.as_deref());
    }

    fn audit(&mut self, raw: &raw::Audit) -> Audit {
        let sink = match &raw.path {
            Some(path) if path.get_ref() == "-" => Sink::Stdout,
            Some(path) => Sink::File(self.path(path)),
            None => Sink::File(self.folder.unwrap_or(Path::new("")).join("audit/audit.jsonl")),
        };
        let durability = match raw.durability.as_ref().map(|text| (text, text.get_ref().as_str())) {
            None | Some((_, "written")) => Durability::Written,
            Some((_, "buffered")) => Durability::Buffered,
            Some((text, "durable")) => {
                self.fault(text, "`durability = \"durable\"` is not in this release", Some("the strongest is `written`"));
                Durability::Written
            }
            Some((text, other)) => {
                self.word(text, other, &["written", "buffered"]);
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
        let rotate_bytes = self.bytes(raw.rotate_bytes.as_ref(), 256 * 1024 * 1024, SMALLEST_FILE, u64::MAX);
        let refusals = self.count(raw.refusals_per_address.as_ref(), 10, 1, MOST);
        let refusals_per_address = u32::try_from(refusals).unwrap_or(u32::MAX);
        Audit { keep: self.keep(raw, &sink), sink, durability, rotate_bytes, refusals_per_address, on_failure }
    }

    fn keep(&mut self, raw: &raw::Audit, sink: &Sink) -> Keep {
        let keep = Keep {
            files: raw.keep.as_ref().map(|keep| self.count(Some(keep), 1, 1, MOST)),
            age: raw.keep_age.as_ref().map(|age| self.within(Some(age), Duration::MAX, MOMENT, CENTURY)),
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
        let bytes = |bytes| usize::try_from(bytes).unwrap_or(usize::MAX);
        let inspected_body = raw.inspected_body.as_ref();
        Limits {
            connections: self.count(raw.connections.as_ref(), 10_000, 1, MOST),
            connections_per_address: self.count(raw.connections_per_address.as_ref(), 1_000, 1, MOST),
            header_deadline: self.positive(raw.header_deadline.as_ref(), Duration::from_secs(10)),
            header_bytes: bytes(self.bytes(raw.header_bytes.as_ref(), 32 * 1024, SMALLEST_HEADER, LARGEST_HEADER)),
            header_fields: self.count(raw.header_fields.as_ref(), 100, FEWEST_FIELDS, MOST_FIELDS),
            inspected_body: bytes(self.bytes(inspected_body, INSPECTED_BODY, 1, MOST_INSPECTED_BODY)),
            body_deadline: self.positive(raw.body_deadline.as_ref(), Duration::from_secs(30)),
            body_idle: self.positive(raw.body_idle.as_ref(), Duration::from_secs(60)),
            send_idle: self.positive(raw.send_idle.as_ref(), Duration::from_secs(60)),
            keepalive_idle: self.positive(raw.keepalive_idle.as_ref(), Duration::from_secs(60)),
            lookups: self.count(raw.lookups.as_ref(), 256, 1, MOST),
            lookups_per_address: self.count(raw.lookups_per_address.as_ref(), 32, 1, MOST),
            lookup_body: bytes(self.bytes(raw.lookup_body.as_ref(), 32 * 1024 * 1024, SMALLEST_HEADER, MOST_LOOKED_UP)),
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
