//! The file of the log in its directory: claimed for one process, rotated, and missed when it is taken away.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::OpenError;

/// Where the file lies and which file it is.
#[derive(Debug)]
pub(super) struct Place {
    /// Where it was opened and is expected to be.
    pub(super) path: PathBuf,
    /// The size that it is not written past.
    pub(super) rotate_bytes: u64,
    /// The number of the first line in it, or of the line that will be.
    pub(super) first: u64,
    /// Whether the operator knows that it cannot be rotated.
    pub(super) warned: bool,
    identity: Identity,
}

/// What tells a file from another one of the same name: its device and inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity(u64, u64);

impl Identity {
    fn of(metadata: &Metadata) -> Self {
        Self(metadata.dev(), metadata.ino())
    }
}

/// What became of the file since it was last looked at.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Sight {
    /// It is there.
    There,
    /// It is not there any more, or not all of it; in words.
    Lost(&'static str),
}

impl Place {
    /// Opens the file at `path` for this process alone; makes it (0600) and its directory (0700) where they are missing.
    ///
    /// # Errors
    /// It is no regular file, another process has it, or the operating system refuses.
    pub(super) fn claim(path: &Path, rotate_bytes: u64) -> Result<(Self, File), OpenError> {
        let (file, identity) = claim(path)?;
        Ok((Self { path: path.to_owned(), rotate_bytes, first: 1, warned: false, identity }, file))
    }

    /// Moves the file aside and starts a new one, whose first line will have the number `first`.
    ///
    /// # Errors
    /// The rotated name is taken, or the operating system refuses; the file then is where it was.
    pub(super) fn rotate(&mut self, first: u64) -> io::Result<File> {
        let aside = self.move_aside()?;
        match claim(&self.path) {
            Ok((file, identity)) => {
                self.identity = identity;
                self.first = first;
                self.warned = false;
                Ok(file)
            }
            Err(error) => {
                // Somebody may have put a file there meanwhile, and that one is not ours to replace.
                if is_free(&self.path)? {
                    fs::rename(aside, &self.path)?;
                }
                Err(io::Error::other(error))
            }
        }
    }

    /// Looks whether the file of `bytes` bytes that is being written is still the one at the path.
    ///
    /// # Errors
    /// The path cannot be looked at.
    pub(super) fn look(&self, bytes: u64) -> io::Result<Sight> {
        match fs::metadata(&self.path) {
            Ok(metadata) if Identity::of(&metadata) != self.identity => Ok(Sight::Lost("the file was replaced")),
            Ok(metadata) if metadata.len() < bytes => Ok(Sight::Lost("the file was shortened")),
            Ok(_) => Ok(Sight::There),
            Err(error) => match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Ok(Sight::Lost("the file was removed")),
                _ => Err(error),
            },
        }
    }

    /// Starts a new file after [`Sight::Lost`]. What lies at the path, be it a rest of the old file or another one,
    /// stays untouched under the name that rotation would have given it.
    ///
    /// # Errors
    /// Another process has the file at the path, that name is taken, or the operating system refuses.
    pub(super) fn renew(&mut self, first: u64) -> io::Result<File> {
        let ours = fs::metadata(&self.path).is_ok_and(|metadata| Identity::of(&metadata) == self.identity);
        if ours {
            return self.rotate(first);
        }
        let (file, identity) = claim(&self.path).map_err(io::Error::other)?;
        if file.metadata()?.len() > 0 {
            return self.rotate(first);
        }
        self.identity = identity;
        self.first = first;
        Ok(file)
    }

    /// Renames the file to its rotated name.
    fn move_aside(&self) -> io::Result<PathBuf> {
        let aside = rotated(&self.path, self.first);
        if !is_free(&aside)? {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("{} exists", aside.display())));
        }
        fs::rename(&self.path, &aside)?;
        Ok(aside)
    }
}

/// The rotated file beside `path` that holds the youngest lines.
///
/// # Errors
/// The directory cannot be read.
pub(super) fn newest_rotated(path: &Path) -> io::Result<Option<PathBuf>> {
    let directory = directory(path);
    let mut newest = None;
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.split('.').find_map(number));
        if let Some(number) = number
            && rotated(path, number).file_name() == Some(&name)
        {
            newest = newest.max(Some(number));
        }
    }
    Ok(newest.map(|number| rotated(path, number)))
}

/// The name beside `path` of the rotated file whose first line has the number `first`.
fn rotated(path: &Path, first: u64) -> PathBuf {
    let mut name = path.file_stem().unwrap_or_default().to_owned();
    name.push(format!(".{first:020}"));
    if let Some(extension) = path.extension() {
        name.push(".");
        name.push(extension);
    }
    path.with_file_name(name)
}

/// The number in the part of a rotated file's name that holds it.
fn number(part: &str) -> Option<u64> {
    (part.len() == 20 && part.bytes().all(|byte| byte.is_ascii_digit())).then(|| part.parse().ok()).flatten()
}

fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

fn is_free(path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
    }
}

fn claim(path: &Path) -> Result<(File, Identity), OpenError> {
    let refused = |source| OpenError::Io { path: path.to_owned(), source };
    let in_use = || OpenError::InUse { path: path.to_owned() };
    let directory = directory(path);
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(|source| OpenError::Io { path: directory.to_owned(), source })?;
    // Looked at before it is opened, because opening a pipe waits for its reader.
    match fs::metadata(path) {
        Ok(metadata) if !metadata.is_file() => return Err(OpenError::NotAFile { path: path.to_owned() }),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(refused(error)),
        _ => {}
    }
    let file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path).map_err(refused)?;
    file.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => in_use(),
        TryLockError::Error(source) => refused(source),
    })?;
    // Between opening and locking, the process that had it may have rotated it: then that process goes on elsewhere.
    let identity = Identity::of(&file.metadata().map_err(refused)?);
    match fs::metadata(path) {
        Ok(metadata) if Identity::of(&metadata) == identity => Ok((file, identity)),
        Ok(_) => Err(in_use()),
        Err(error) => Err(refused(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rotated_file_is_named_after_its_first_line() {
        assert_eq!(rotated(Path::new("a/audit.jsonl"), 42), Path::new("a/audit.00000000000000000042.jsonl"));
        assert_eq!(rotated(Path::new("audit"), 42), Path::new("audit.00000000000000000042"));
        assert_eq!(rotated(Path::new("a.b.c"), 42), Path::new("a.b.00000000000000000042.c"));
    }

    #[test]
    fn only_rotated_files_of_this_very_log_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.jsonl");
        assert_eq!(newest_rotated(&path).unwrap(), None);
        for name in [
            "audit.00000000000000000009.jsonl",
            "audit.00000000000000000010.jsonl",
            "audit.00000000000000000011.jsonl.gz",
            "audit.12.jsonl",
            "other.00000000000000000013.jsonl",
            "audit.99999999999999999999.jsonl",
        ] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        assert_eq!(newest_rotated(&path).unwrap(), Some(folder.path().join("audit.00000000000000000010.jsonl")));
    }
}
