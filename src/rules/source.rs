//! Where rules come from: a folder of the operator's, or the files compiled in.

use std::fs;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::files;
use crate::model::{Fault, Faults, Place};

/// The files of `policies/` as this build shipped them: path below the folder, and text.
pub const BUILT_IN: &[(&str, &str)] = &[
    ("rocketchat/provider.toml", include_str!("../../policies/rocketchat/provider.toml")),
    ("rocketchat/policy.cedar", include_str!("../../policies/rocketchat/policy.cedar")),
    ("rocketchat/cases.toml", include_str!("../../policies/rocketchat/cases.toml")),
    ("docusign-rooms/provider.toml", include_str!("../../policies/docusign-rooms/provider.toml")),
    ("docusign-rooms/policy.cedar", include_str!("../../policies/docusign-rooms/policy.cedar")),
    ("docusign-rooms/cases.toml", include_str!("../../policies/docusign-rooms/cases.toml")),
    ("matrix/provider.toml", include_str!("../../policies/matrix/provider.toml")),
    ("matrix/policy.cedar", include_str!("../../policies/matrix/policy.cedar")),
    ("matrix/cases.toml", include_str!("../../policies/matrix/cases.toml")),
];

/// The largest policy file that is read, in bytes.
const LARGEST_FILE: u64 = 16 * 1024 * 1024;

/// The text of every rule file, read at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sources {
    /// Sorted by provider folder and name.
    pub files: Vec<SourceFile>,
    /// Twelve hexadecimal digits of the SHA-256 over all names and texts.
    pub revision: String,
}

/// One rule file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFile {
    /// The folder below the policy folder.
    pub provider: String,
    /// The file's name in it.
    pub name: String,
    /// The path to show to people.
    pub path: String,
    /// Its text.
    pub text: String,
}

impl Sources {
    /// The files compiled in.
    #[must_use]
    pub fn built_in() -> Self {
        let file = |(path, text): &(&str, &str)| {
            let (provider, name) = path.split_once('/').unwrap_or(("", path));
            SourceFile { provider: provider.into(), name: name.into(), path: format!("policies/{path}"), text: (*text).into() }
        };
        Self::of(BUILT_IN.iter().map(file).collect())
    }

    /// The files of `folder`: one folder a provider, in it `provider.toml`, `cases.toml` and any number of `.cedar` files.
    /// Names that begin with a dot are passed over, so that a Kubernetes volume can be read as it is mounted.
    ///
    /// # Errors
    /// What cannot be read, with its path.
    pub fn folder(folder: &Path) -> Result<Self, Faults> {
        let mut faults = Faults::default();
        let mut found = Vec::new();
        for provider in entries(folder, &mut faults) {
            let path = folder.join(&provider);
            if !path.is_dir() {
                continue;
            }
            for name in entries(&path, &mut faults) {
                let path = path.join(&name);
                let shown = path.display().to_string();
                if name.ends_with(".cedar") || name == "provider.toml" || name == "cases.toml" {
                    match files::text(&path, LARGEST_FILE) {
                        Ok(text) => found.push(SourceFile { provider: provider.clone(), name, path: shown, text }),
                        Err(why) => faults.push(Fault::new(Place::file(shown), why.to_string())),
                    }
                } else if name.ends_with(".toml") {
                    let fault = Fault::new(Place::file(shown), "this file is not read");
                    faults.push(fault.hint("a provider's folder holds `provider.toml`, `cases.toml` and `*.cedar`"));
                }
            }
        }
        if found.is_empty() {
            faults.push(Fault::new(Place::file(folder.display().to_string()), "holds no provider"));
        }
        faults.or(Self::of(found))
    }

    fn of(mut files: Vec<SourceFile>) -> Self {
        files.sort_by(|a, b| (&a.provider, &a.name).cmp(&(&b.provider, &b.name)));
        let mut hash = Sha256::new();
        for part in files.iter().flat_map(|file| [&file.provider, &file.name, &file.text]) {
            hash.update(part.len().to_be_bytes());
            hash.update(part);
        }
        let revision = hex::encode(hash.finalize()).chars().take(12).collect();
        Self { files, revision }
    }
}

fn entries(folder: &Path, faults: &mut Faults) -> Vec<String> {
    let mut unreadable =
        |error: std::io::Error| faults.push(Fault::new(Place::file(folder.display().to_string()), error.to_string()));
    let mut names = Vec::new();
    match fs::read_dir(folder) {
        Err(error) => unreadable(error),
        Ok(entries) => {
            for entry in entries {
                match entry {
                    Ok(entry) => names.push(entry.file_name().to_string_lossy().into_owned()),
                    Err(error) => unreadable(error),
                }
            }
        }
    }
    names.retain(|name| !name.starts_with('.') && !name.ends_with('~'));
    names.sort();
    names
}
