//! Lists of the Rooms server: pages, filters, orders, and links to the neighbouring pages.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde_json::{Map, Value, json};

use super::failure::Failure;

/// What a query asks for; the names are compared without regard to case, the first of equal ones counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Page {
    /// 1–100; what is outside is moved to the nearer end, as nothing is known of the real server.
    pub(super) count: usize,
    pub(super) start: usize,
    pub(super) filter: String,
    pub(super) sort: String,
}

/// Letters, digits and `-._~` stay.
const KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

impl Page {
    /// Reads a query.
    pub(super) fn read(query: Option<&str>) -> Result<Self, Failure> {
        let value = |name: &str| {
            let pairs = query.unwrap_or_default().split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
            let mut named = pairs.filter(|(key, _)| key.eq_ignore_ascii_case(name));
            named.next().map(|(_, value)| percent_decode_str(&value.replace('+', " ")).decode_utf8_lossy().into_owned())
        };
        let number = |name: &str, default: i32| match value(name) {
            None => Ok(default),
            Some(text) => text.trim().parse::<i32>().map_err(|_| Failure::InvalidParameter),
        };
        Ok(Self {
            count: usize::try_from(number("count", 100)?.clamp(1, 100)).unwrap_or(1),
            start: usize::try_from(number("startPosition", 0)?).unwrap_or(0),
            filter: value("filter").unwrap_or_default(),
            sort: value("sort").unwrap_or_default(),
        })
    }

    /// Whether one of `fields` begins with the filter, in any case of letters.
    pub(super) fn keeps(&self, fields: &[&str]) -> bool {
        let wanted = self.filter.to_lowercase();
        fields.iter().any(|field| field.to_lowercase().starts_with(&wanted))
    }

    /// Sorts by one of the six orders that the SDKs know, in any case of letters; anything else is the default, last name down.
    pub(super) fn order<T>(&self, items: &mut [T], names: impl Fn(&T) -> [String; 3]) {
        let sort = self.sort.to_ascii_lowercase();
        let key = |item: &T| {
            let [first, last, email] = names(item);
            match sort.get(..5) {
                Some("first") => first,
                Some("email") => email,
                _ => last,
            }
        };
        items.sort_by_cached_key(key);
        if !sort.ends_with("asc") {
            items.reverse();
        }
    }

    /// The page of `items` under `name` with the counts and links; `link` is the address of the list without its query.
    pub(super) fn answer(&self, name: &str, items: Vec<Value>, link: &str) -> Value {
        let total = items.len();
        let rows: Vec<Value> = items.into_iter().skip(self.start).take(self.count).collect();
        let size = rows.len();
        let next = (self.start.saturating_add(size) < total && size > 0).then(|| self.link(link, self.start + size));
        let prior = (self.start > 0).then(|| self.link(link, self.start.saturating_sub(self.count)));
        let mut body = Map::new();
        body.insert(name.to_owned(), Value::Array(rows));
        for (key, value) in [
            ("resultSetSize", json!(size)),
            ("startPosition", json!(self.start)),
            ("endPosition", json!(self.start.saturating_add(size).saturating_sub(1))),
            ("nextUri", json!(next)),
            ("priorUri", json!(prior)),
            ("totalRowCount", json!(total)),
        ] {
            body.insert(key.to_owned(), value);
        }
        Value::Object(body)
    }

    fn link(&self, base: &str, start: usize) -> String {
        let mut link = format!("{base}?count={}&startPosition={start}", self.count);
        for (name, value) in [("filter", &self.filter), ("sort", &self.sort)] {
            if !value.is_empty() {
                link.push_str(&format!("&{name}={}", utf8_percent_encode(value, KEPT)));
            }
        }
        link
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_link_to_their_neighbours_until_the_ends() {
        let rows: Vec<Value> = (0..5).map(|row| json!(row)).collect();
        let page = |query: &str| Page::read(Some(query)).unwrap().answer("users", rows.clone(), "/u");
        let first = page("count=2&filter=J+%C3%A9");
        assert_eq!(
            (&first["nextUri"], &first["priorUri"]),
            (&json!("/u?count=2&startPosition=2&filter=J%20%C3%A9"), &Value::Null)
        );
        let middle = page("count=2&startPosition=2");
        assert_eq!(
            (&middle["nextUri"], &middle["priorUri"], &middle["endPosition"], &middle["totalRowCount"]),
            (&json!("/u?count=2&startPosition=4"), &json!("/u?count=2&startPosition=0"), &json!(3), &json!(5))
        );
        let last = page("count=2&startPosition=4");
        assert_eq!((&last["nextUri"], &last["resultSetSize"], &last["users"]), (&Value::Null, &json!(1), &json!([4])));
        assert_eq!(page("startPosition=9")["nextUri"], Value::Null);
    }

    #[test]
    fn numbers_outside_the_bounds_are_moved_and_others_refused() {
        assert_eq!(Page::read(Some("count=0")).unwrap().count, 1);
        assert_eq!(Page::read(Some("COUNT=500&startposition=-1")).unwrap(), Page { count: 100, start: 0, ..empty() });
        assert_eq!(Page::read(Some("count=abc")), Err(Failure::InvalidParameter));
        assert_eq!(Page::read(Some("count=99999999999")), Err(Failure::InvalidParameter));
    }

    #[test]
    fn the_six_orders_are_known_in_any_case() {
        let names = |sort: &str| {
            let mut items = vec![["b", "x", "2"], ["a", "z", "3"], ["c", "y", "1"]];
            Page { sort: sort.into(), ..empty() }.order(&mut items, |item| item.map(str::to_owned));
            items.iter().map(|item| item[0]).collect::<String>()
        };
        assert_eq!(names("FirstNameAsc"), "abc");
        assert_eq!(names("firstnamedesc"), "cba");
        assert_eq!(names("lastNameAsc"), "bca");
        assert_eq!(names("EMAILASC"), "cba");
        assert_eq!(names(""), "acb");
        assert_eq!(names("lastNameDesc"), names("nonsense"));
    }

    fn empty() -> Page {
        Page { count: 100, start: 0, filter: String::new(), sort: String::new() }
    }
}
