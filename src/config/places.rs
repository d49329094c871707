//! Where the keys of the configuration stand: what is wrong outside of the file is told at the key that leads there.

use std::collections::BTreeMap;
use std::fmt;

use crate::model::Place;
use crate::rules::places;

/// The place of each key that was set, in the file or by a flag.
#[derive(Clone, Default)]
pub struct Places {
    file: String,
    keys: BTreeMap<String, Place>,
}

/// Two configurations that say the same look the same, wherever their keys stand.
impl fmt::Debug for Places {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Places")
    }
}

impl Places {
    pub(super) fn of(file: &str, text: &str) -> Self {
        Self { file: file.to_owned(), keys: places(file, text).into_iter().collect() }
    }

    /// The place of the value of `key`, written as `upstream.0.url`; of what is around it where it is not set.
    #[must_use]
    pub fn of_key(&self, key: &str) -> Place {
        let mut key = key;
        loop {
            if let Some(place) = self.keys.get(key) {
                return place.clone();
            }
            match key.rsplit_once('.') {
                Some((around, _)) => key = around,
                None => return Place::file(&self.file),
            }
        }
    }

    /// The key whose value stands at `place`, without the numbers of lists: `upstream.url`.
    pub(super) fn key_at(&self, place: &Place) -> Option<String> {
        let (key, _) = self.keys.iter().filter(|(_, at)| *at == place).max_by_key(|(key, _)| key.len())?;
        let words = key.split('.').filter(|word| word.is_empty() || !word.bytes().all(|byte| byte.is_ascii_digit()));
        Some(words.collect::<Vec<_>>().join("."))
    }

    /// Notes that `flag` set `key`, and everything below it.
    pub(super) fn by_flag(&mut self, key: &str, flag: &str) {
        self.keys.retain(|other, _| !other.starts_with(&format!("{key}.")));
        self.keys.insert(key.to_owned(), Place::file(flag));
    }
}
