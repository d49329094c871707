//! Where rules come from: a folder of the operator's, or the files compiled in.

use std::fs;
use std::path::{Path, PathBuf};

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
        Self::named(folder, &Place::file(folder.display().to_string()))
    }

    /// The files of `folder`, which an operator named at `place`.
    ///
    /// # Errors
    /// What cannot be read, with its path; that it is no policy folder, at `place` and with the one that was probably meant.
    pub fn named(folder: &Path, place: &Place) -> Result<Self, Faults> {
        let mut faults = Faults::default();
        let mut found = Vec::new();
        if let Err(why) = fs::read_dir(folder) {
            return Err(no_policies(folder, place, &why.to_string()).into());
        }
        for provider in entries(folder, &mut faults) {
            let path = folder.join(&provider);
            if !path.is_dir() {
                continue;
            }
            for name in entries(&path, &mut faults) {
                let path = path.join(&name);
                let shown = path.display().to_string();
                if name.ends_with(".cedar") || name == "provider.toml" || name == "cases.toml" {
                    match text(&path) {
                        Ok(text) => found.push(SourceFile { provider: provider.clone(), name, path: shown, text }),
                        Err(fault) => faults.push(fault),
                    }
                } else if name.ends_with(".toml") {
                    let known = ["provider.toml", "cases.toml"];
                    let meant = super::provider::nearest(&name, known.into_iter()).map(|name| format!("did you mean `{name}`?"));
                    let holds = "a provider's folder holds `provider.toml`, `cases.toml` and `*.cedar`".to_owned();
                    faults.push(Fault::new(Place::file(shown), "this file is not read").hint(meant.unwrap_or(holds)));
                }
            }
        }
        if found.is_empty() && faults.0.is_empty() {
            faults.push(no_policies(folder, place, "holds no provider"));
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

/// That `folder`, named at `place`, cannot be read as a policy folder, and which one may be meant.
fn no_policies(folder: &Path, place: &Place, why: &str) -> Fault {
    let shown = folder.display().to_string();
    let why = if place.file == shown { why.to_owned() } else { format!("`{shown}`: {why}") };
    let key = if place.line > 0 { "`policies.directory`: " } else { "" };
    let fault = Fault::new(place.clone(), format!("{key}{why}"));
    let holds = |folder: &Path| below(folder).iter().any(|folder| folder.join("provider.toml").is_file());
    let above = folder.parent().map(|above| if above.as_os_str().is_empty() { Path::new(".") } else { above });
    let beside = above.map(below).unwrap_or_default();
    let meant = if folder.join("provider.toml").is_file() {
        above.map(Path::to_path_buf)
    } else {
        below(folder).into_iter().chain(beside).filter(|other| other != folder).find(|other| holds(other))
    };
    match meant {
        Some(meant) => {
            let example = below(&meant).into_iter().map(|folder| folder.join("provider.toml")).find(|file| file.is_file());
            let example = example.and_then(|file| file.strip_prefix(&meant).map(|file| file.display().to_string()).ok());
            let holds = example.map(|file| format!(", which holds `{file}`")).unwrap_or_default();
            fault.hint(format!("did you mean `{}`{holds}?", meant.display()))
        }
        None => fault.hint("name the folder that holds a folder for each provider; `rolegate init DIR` writes such a one"),
    }
}

/// The folders in `folder`, in the order of their names.
fn below(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    folders.sort();
    // `./policies` is written `policies`.
    folders.into_iter().map(|path| path.strip_prefix(".").map(Path::to_path_buf).unwrap_or(path)).collect()
}

/// The text of the rule file at `path`.
fn text(path: &Path) -> Result<String, Fault> {
    let shown = path.display().to_string();
    let bytes = files::bytes(path, LARGEST_FILE).map_err(|error| Fault::new(Place::file(&shown), error.to_string()))?;
    decoded(&shown, bytes)
}

/// Bytes as text, without the mark that some editors write before it.
///
/// # Errors
/// The place of the first byte that is no UTF-8.
pub(crate) fn decoded(shown: &str, bytes: Vec<u8>) -> Result<String, Fault> {
    match String::from_utf8(bytes) {
        Ok(text) => Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text)),
        Err(error) => {
            let good = error.utf8_error().valid_up_to();
            let wrong = error.as_bytes().get(good).copied().unwrap_or_default();
            let before = String::from_utf8_lossy(error.as_bytes().get(..good).unwrap_or_default());
            let place = Place::at(shown, before.trim_start_matches('\u{feff}'), good);
            Err(Fault::new(place, format!("the byte 0x{wrong:02X} is not UTF-8")).hint("save the file as UTF-8"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `folder/<name>/provider.toml` for each name.
    fn providers(folder: &Path, names: &[&str]) {
        for name in names {
            fs::create_dir_all(folder.join(name)).unwrap();
            fs::write(folder.join(name).join("provider.toml"), "").unwrap();
        }
    }

    fn told(folder: &Path, place: &Place) -> String {
        Sources::named(folder, place).unwrap_err().to_string().replace(&folder.display().to_string(), "<folder>")
    }

    #[test]
    fn a_folder_one_level_off_is_told_with_the_right_one() {
        let there = tempfile::tempdir().unwrap();
        let gate = there.path().join("gate");
        providers(&gate.join("policies"), &["matrix", "rocketchat"]);
        let named = Place::file("--policies");
        let meant = format!("did you mean `{}`, which holds `matrix/provider.toml`?", gate.join("policies").display());
        for (folder, why) in [
            (gate.clone(), "holds no provider"),
            (gate.join("policies/rocketchat"), "holds no provider"),
            (gate.join("policy"), "No such file or directory"),
        ] {
            let told = told(&folder, &named);
            assert!(told.starts_with(&format!("--policies: `<folder>`: {why}")), "{told}");
            assert!(Sources::named(&folder, &named).unwrap_err().to_string().ends_with(&meant), "{told}");
        }
        assert!(Sources::folder(&gate.join("policies")).is_ok());
    }

    #[test]
    fn a_file_of_another_kind_is_not_read_and_not_waited_for() {
        let there = tempfile::tempdir().unwrap();
        providers(there.path(), &["rocketchat"]);
        let policy = there.path().join("rocketchat/policy.cedar");
        for target in ["/dev/zero", "/dev/tty", "."] {
            std::os::unix::fs::symlink(target, &policy).unwrap();
            let told = told(there.path(), &Place::file("--policies"));
            assert!(told.starts_with("<folder>/rocketchat/policy.cedar: is not a regular file but "), "{target}: {told}");
            fs::remove_file(&policy).unwrap();
        }
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_a_text_and_a_byte_of_another_encoding_is_told_with_its_place() {
        assert_eq!(decoded("f", b"\xef\xbb\xbfpermit".to_vec()).unwrap(), "permit");
        let told = decoded("f", b"permit\n// caf\xe9\n".to_vec()).unwrap_err().to_string();
        assert_eq!(told, "f:2:7: the byte 0xE9 is not UTF-8\n  hint: save the file as UTF-8");
    }
}
