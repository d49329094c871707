//! The files that are read when the process starts and not again: whether they are still what runs.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::{Config, Flags};
use crate::files;

/// Files as they were when they were read.
#[derive(Clone, Default)]
pub struct OnDisk {
    known: Vec<Known>,
    /// The file that names the others, where it can be read again, and what stood on the command line.
    first: Option<(PathBuf, Flags)>,
}

/// How files compare with what runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Compared {
    /// Those that now hold something else, or are gone.
    pub differing: Vec<PathBuf>,
    /// Why a restart would fail.
    pub fault: Option<String>,
}

#[derive(Clone)]
struct Known {
    path: PathBuf,
    length: u64,
    digest: [u8; 32],
}

impl fmt::Debug for OnDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Two configurations that say the same are the same, wherever they lie.
        f.write_str("OnDisk")
    }
}

impl OnDisk {
    /// Remembers that `path` held `bytes`. What cannot be read twice, a pipe for example, is not followed.
    pub(super) fn holds(&mut self, path: &Path, bytes: &[u8]) {
        if fs::metadata(path).is_ok_and(|found| found.is_file()) {
            let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
            self.known.push(Known { path: path.to_path_buf(), length, digest: Sha256::digest(bytes).into() });
        }
    }

    /// Remembers that all begins with `path`, which held `bytes`, and with these `flags`.
    pub(super) fn begins_with(&mut self, path: &Path, bytes: &[u8], flags: &Flags) {
        let before = self.known.len();
        self.holds(path, bytes);
        self.first = (self.known.len() > before).then(|| (path.to_path_buf(), flags.clone()));
    }

    /// Compares the files with what was read of them. Where one differs, all of it is read again.
    #[must_use]
    pub fn compare(&self) -> Compared {
        let differing = self.differing();
        let first = self.first.as_ref().filter(|_| !differing.is_empty());
        let faults = first.and_then(|(path, flags)| Config::load_again(path, flags).err());
        let fault = faults.map(|faults| {
            let text = faults.to_string();
            let told = text.lines().next().unwrap_or_default();
            match faults.0.len() {
                0 | 1 => told.to_owned(),
                several => format!("{told} (and {} more)", several - 1),
            }
        });
        Compared { differing, fault }
    }

    fn differing(&self) -> Vec<PathBuf> {
        self.known.iter().filter(|known| !known.is_same()).map(|known| known.path.clone()).collect()
    }
}

impl Known {
    fn is_same(&self) -> bool {
        files::bytes(&self.path, self.length).is_ok_and(|bytes| <[u8; 32]>::from(Sha256::digest(&bytes)) == self.digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_differs_once_it_was_changed_replaced_or_taken_away() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rolegate.toml");
        fs::write(&path, "mode = 1").unwrap();
        let mut disk = OnDisk::default();
        disk.holds(&path, b"mode = 1");
        assert_eq!(disk.differing(), Vec::<PathBuf>::new());
        for other in ["mode = 2", "mode = 11", ""] {
            fs::write(&path, other).unwrap();
            assert_eq!(disk.differing(), std::slice::from_ref(&path), "{other}");
        }
        fs::remove_file(&path).unwrap();
        assert_eq!(disk.differing(), std::slice::from_ref(&path));
        fs::create_dir(&path).unwrap();
        assert_eq!(disk.differing(), std::slice::from_ref(&path));
        fs::remove_dir(&path).unwrap();
        fs::write(&path, "mode = 1").unwrap();
        assert_eq!(disk.differing(), Vec::<PathBuf>::new(), "it is back");
    }

    #[test]
    fn what_cannot_be_read_twice_is_not_followed() {
        let mut disk = OnDisk::default();
        disk.holds(Path::new("/dev/null"), b"");
        disk.holds(Path::new("/nowhere/at/all"), b"");
        assert_eq!(disk.differing(), Vec::<PathBuf>::new());
    }
}
