//! What the configuration names outside of itself, looked at before it is used: providers, and the file of the audit log.

use std::fs::{self, OpenOptions};
use std::io::ErrorKind;
use std::path::Path;

use super::{Config, Places, Upstream};
use crate::audit::{self, Sink};
use crate::model::{Fault, Faults};
use crate::rules::Ruleset;
use crate::rules::provider::nearest;

impl Config {
    /// Why the audit log could not be written, if that can be seen from outside: the file or its folder is looked at, and nothing
    /// of either is changed.
    #[must_use]
    pub fn unwritable_log(&self) -> Option<Fault> {
        let Sink::File(path) = &self.audit.sink else { return None };
        let why = unwritable(path)?;
        let fault = Fault::new(self.places.of_key("audit.path"), format!("`audit.path`: {why}"));
        Some(fault.hint("name a file in a folder that the gate may write to, or \"-\" for standard output"))
    }
}

/// Faults of the `upstreams` whose provider `ruleset` does not have, or whose provider makes nothing of what they set.
#[must_use]
pub fn unfit_upstreams<'u>(upstreams: impl Iterator<Item = &'u Upstream>, places: &Places, ruleset: &Ruleset) -> Faults {
    let mut faults = Faults::default();
    let known: Vec<&str> = ruleset.providers().map(|rules| rules.provider.name.as_str()).collect();
    for (index, upstream) in upstreams.enumerate() {
        if let Some(rules) = ruleset.provider(&upstream.provider) {
            let asks_another = rules.provider.plan.lookups().any(|lookup| lookup.base.is_some());
            if upstream.account.is_some() && !asks_another {
                let place = places.of_key(&format!("upstream.{index}.account_url"));
                let message = format!("`upstream.account_url`: the provider `{}` asks no account server", upstream.provider);
                faults.push(Fault::new(place, message).hint("remove it: `url` names the one server that is asked"));
            }
            continue;
        }
        let place = places.of_key(&format!("upstream.{index}.provider"));
        let hint = match nearest(&upstream.provider, known.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("there are {}; a folder of `policies.directory` makes another one", known.join(", ")),
        };
        let key = if place.line > 0 { "`upstream.provider`: " } else { "" };
        faults.push(Fault::new(place, format!("{key}no provider `{}`", upstream.provider)).hint(hint));
    }
    faults
}

fn unwritable(path: &Path) -> Option<String> {
    let shown = path.display();
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => return Some(format!("`{shown}` is a folder")),
        Ok(metadata) if !metadata.is_file() => return Some(format!("`{shown}` is not a regular file")),
        Ok(_) => {
            let opened = OpenOptions::new().append(true).open(path).map(drop).map_err(|error| format!("`{shown}`: {error}"));
            return opened.and_then(|()| audit::continues(path).map_err(|error| error.to_string())).err();
        }
        Err(error) if error.kind() != ErrorKind::NotFound => return Some(format!("`{shown}`: {error}")),
        Err(_) => {}
    }
    // The first folder above it that is there is where the others would be made.
    let above = path.ancestors().skip(1).map(|above| if above.as_os_str().is_empty() { Path::new(".") } else { above });
    let folder = above.into_iter().find(|above| above.exists())?;
    if !folder.is_dir() {
        return Some(format!("`{}` is not a folder", folder.display()));
    }
    // Rights, mounts and quotas have one common test.
    let probe = folder.join(format!(".rolegate-check-{}", std::process::id()));
    let made = OpenOptions::new().write(true).create_new(true).open(&probe);
    match made {
        Ok(_) => fs::remove_file(&probe).err().map(|error| format!("`{}`: {error}", folder.display())),
        Err(error) => Some(format!("nothing can be written to `{}`: {error}", folder.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_could_not_be_opened_is_told_and_one_that_could_is_not_made() {
        let folder = tempfile::tempdir().unwrap();
        let there = folder.path();
        fs::write(there.join("file"), "").unwrap();
        fs::create_dir(there.join("folder")).unwrap();
        fs::write(there.join("notes"), "to do\n").unwrap();
        for (path, why) in [
            ("folder", "is a folder"),
            ("file/audit.jsonl", "Not a directory"),
            ("file/a/b/audit.jsonl", "Not a directory"),
            ("/dev/full", "is not a regular file"),
            ("/proc/audit.jsonl", "nothing can be written"),
            ("notes", "move the file away"),
        ] {
            let told = unwritable(&there.join(path)).unwrap_or_else(|| panic!("{path} passes"));
            assert!(told.contains(why), "{path}: {told}");
        }
        for path in ["file", "folder/audit.jsonl", "a/b/c/audit.jsonl"] {
            assert_eq!(unwritable(&there.join(path)), None, "{path}");
        }
        assert_eq!(fs::read_dir(there).unwrap().count(), 3, "nothing was left");
        assert_eq!(fs::read_dir(there.join("folder")).unwrap().count(), 0, "nothing was left");
    }
}
