//! A policy folder that a story edits.

use std::fs;
use std::path::{Path, PathBuf};

use rolegate::rules::source::BUILT_IN;

/// Closes `rooms.roles` to everybody: appended to a policy file it turns a member's 200 into a 403.
pub const CLOSED: &str = "\n@id(\"closed\")\nforbid (principal, action == RocketChat::Action::\"rooms.roles\", resource);\n";

/// A folder with the built-in rules of Rocket.Chat, without their cases.
pub struct Policies(pub PathBuf);

impl Policies {
    /// Writes them to `folder`, which is made.
    pub fn write(folder: &Path) -> Self {
        for (path, text) in BUILT_IN.iter().filter(|(path, _)| path.starts_with("rocketchat/") && !path.ends_with("cases.toml")) {
            fs::create_dir_all(folder.join(path).parent().unwrap()).unwrap();
            fs::write(folder.join(path), text).unwrap();
        }
        Self(folder.to_path_buf())
    }

    /// The path of `name`, which is below `rocketchat/`.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join("rocketchat").join(name)
    }

    /// The policies without [`CLOSED`].
    pub fn open(&self) -> String {
        Self::built_in("policy.cedar").to_owned()
    }

    /// The policies with [`CLOSED`].
    pub fn closed(&self) -> String {
        format!("{}{CLOSED}", self.open())
    }

    /// Writes a file in place.
    pub fn put(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    /// Writes a file beside `name` and renames it over it, as careful editors do.
    pub fn replace(&self, name: &str, text: &str) {
        let aside = self.path(".next");
        fs::write(&aside, text).unwrap();
        fs::rename(aside, self.path(name)).unwrap();
    }

    /// A built-in file of Rocket.Chat's.
    pub fn built_in(name: &str) -> &'static str {
        BUILT_IN.iter().find(|(path, _)| path.strip_prefix("rocketchat/") == Some(name)).unwrap().1
    }
}
