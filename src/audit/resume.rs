//! Where a log goes on that another process began: its file, and the end of its chain.

use std::fs::File;
use std::path::Path;

use super::OpenError;
use super::chain::Chain;
use super::file::{Place, rotated_files};
use super::sink::Output;
use super::tail::Tail;

/// Opens the file at `path`, cuts off a torn end, and finds the chain's end in it or in the newest rotated file. Gives back what
/// was cut off, too.
///
/// # Errors
/// [`AuditLog::open`](super::AuditLog::open) says.
pub(super) fn file(path: &Path, rotate_bytes: u64) -> Result<(Output, Chain, Vec<u8>), OpenError> {
    let refused = |source| OpenError::Io { path: path.to_owned(), source };
    let (mut place, file) = Place::claim(path, rotate_bytes)?;
    let tail = Tail::read(&file, path)?;
    if !tail.torn.is_empty() {
        file.set_len(tail.whole).map_err(refused)?;
    }
    let (chain, held) = match tail.records {
        Some(records) => {
            place.first = records.first;
            let held = records.last.saturating_sub(records.first).saturating_add(1);
            (Chain::after(records.last, records.hash), held)
        }
        None => {
            let chain = chain_of_rotated(path)?;
            place.first = chain.next();
            (chain, 0)
        }
    };
    Ok((Output::file(file, place, tail.whole, held), chain, tail.torn))
}

/// The chain as the newest rotated file beside `path` ends it.
fn chain_of_rotated(path: &Path) -> Result<Chain, OpenError> {
    let directory_refused = |source| OpenError::Io { path: path.to_owned(), source };
    let Some((_, rotated)) = rotated_files(path).map_err(directory_refused)?.pop() else { return Ok(Chain::new()) };
    let refused = |source| OpenError::Io { path: rotated.clone(), source };
    let file = File::open(&rotated).map_err(refused)?;
    let broken = |line, why: &str| OpenError::Broken { file: rotated.clone(), line, why: why.to_owned() };
    let tail = Tail::read(&file, &rotated)?;
    match tail.records {
        Some(records) if tail.torn.is_empty() => Ok(Chain::after(records.last, records.hash)),
        Some(records) => {
            let line = records.last.saturating_sub(records.first).saturating_add(2);
            Err(broken(line, "a rotated file must not end with half a line"))
        }
        None => Err(broken(1, "a rotated file must hold a record")),
    }
}
