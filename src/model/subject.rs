//! Who asks, by which credential, and for what.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A text that must not be seen: its `Debug`, `Display` and `Serialize` print `[redacted]`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Secret(String);

impl Secret {
    /// Hides `text`.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for a lookup or a hash and nothing else.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl Serialize for Secret {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("[redacted]")
    }
}

/// What a caller sent to prove who it is: header names in lower case with their values, in the provider file's order.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Credential {
    /// Header name and value.
    pub headers: Vec<(Arc<str>, Secret)>,
}

impl Credential {
    /// The value of header `name` (lower case), if the credential has it.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&Secret> {
        self.headers.iter().find(|(header, _)| **header == *name).map(|(_, value)| value)
    }
}

/// The caller as the upstream knows it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subject {
    /// The upstream's id of the caller; whatever is remembered of the caller shares it.
    pub id: Arc<str>,
    /// The login name.
    #[serde(default)]
    pub name: Box<str>,
    /// Global roles, as the upstream spells them; callers with the same roles share them.
    #[serde(default)]
    pub roles: Arc<[Box<str>]>,
    /// Further texts that the provider file names, for lookups only (`{caller.email}`); a name may hold several.
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub attributes: std::collections::BTreeMap<String, Vec<String>>,
}

/// What is asked about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Resource {
    /// Its type in the provider's vocabulary, such as `Room`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its id as it was asked for.
    pub id: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_shows_itself_nowhere() {
        let secret = Secret::new("hunter2");
        let credential = Credential { headers: vec![("x-auth-token".into(), secret.clone())] };
        let shown = format!("{secret:?} {secret} {credential:?} {}", serde_json::to_string(&secret).unwrap());
        assert!(!shown.contains("hunter2"), "{shown}");
        assert_eq!(credential.header("x-auth-token").unwrap().reveal(), "hunter2");
    }
}
