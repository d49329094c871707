//! The configuration file as it is typed.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

type Text = Option<Spanned<String>>;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ConfigFile {
    pub(super) listen: Listen,
    pub(super) admin: Admin,
    pub(super) upstream: Vec<Spanned<Upstream>>,
    pub(super) policies: Policies,
    pub(super) facts: Facts,
    pub(super) audit: Audit,
    pub(super) limits: Limits,
    pub(super) networks: BTreeMap<String, Spanned<Vec<Spanned<String>>>>,
    pub(super) traces: Traces,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Listen {
    pub(super) address: Option<Spanned<Addresses>>,
    pub(super) tls: Option<ListenTls>,
    pub(super) trusted_proxies: Vec<Spanned<String>>,
    pub(super) threads: Option<Spanned<usize>>,
    pub(super) drain: Text,
    pub(super) fast_path: Option<Spanned<bool>>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "expected an address in quotes, or a list of such")]
pub(super) enum Addresses {
    One(String),
    Several(Vec<String>),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListenTls {
    pub(super) certificate: Spanned<String>,
    pub(super) key: Spanned<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Admin {
    pub(super) address: Text,
    pub(super) token_file: Text,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Upstream {
    pub(super) provider: Spanned<String>,
    pub(super) url: Spanned<String>,
    pub(super) host: Text,
    pub(super) path_prefix: Text,
    pub(super) mode: Option<crate::model::Mode>,
    pub(super) unlisted: Option<crate::rules::Then>,
    pub(super) unlisted_methods: Option<crate::rules::Then>,
    pub(super) websockets: Option<crate::rules::Then>,
    pub(super) account_url: Text,
    pub(super) service: Option<Service>,
    pub(super) tls: Option<UpstreamTls>,
    pub(super) resolve_every: Text,
    pub(super) connect_timeout: Text,
    pub(super) first_byte_timeout: Text,
    pub(super) read_timeout: Text,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Service {
    pub(super) headers_file: Spanned<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct UpstreamTls {
    pub(super) ca: Text,
    pub(super) server_name: Text,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Policies {
    pub(super) directory: Text,
    pub(super) reload: Option<super::ReloadBy>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Facts {
    pub(super) ttl: Text,
    pub(super) max_stale: Text,
    pub(super) refused_ttl: Text,
    pub(super) capacity: Option<Spanned<u64>>,
    pub(super) lookup_timeout: Text,
    pub(super) lookup_address: Text,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Audit {
    pub(super) path: Text,
    pub(super) durability: Text,
    pub(super) rotate_bytes: Text,
    pub(super) keep: Option<Spanned<usize>>,
    pub(super) keep_age: Text,
    pub(super) refusals_per_address: Option<Spanned<usize>>,
    pub(super) on_failure: Text,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Limits {
    pub(super) connections: Option<Spanned<usize>>,
    pub(super) connections_per_address: Option<Spanned<usize>>,
    pub(super) header_deadline: Text,
    pub(super) header_bytes: Text,
    pub(super) header_fields: Option<Spanned<usize>>,
    pub(super) inspected_body: Text,
    pub(super) body_deadline: Text,
    pub(super) body_idle: Text,
    pub(super) send_idle: Text,
    pub(super) keepalive_idle: Text,
    pub(super) lookups: Option<Spanned<usize>>,
    pub(super) lookups_per_address: Option<Spanned<usize>>,
    pub(super) lookup_body: Text,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Traces {
    pub(super) otlp_endpoint: Text,
}
