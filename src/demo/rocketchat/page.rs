//! Cuts lists into pages with the server's rules, its gap for odd counts included.

use super::schema::Arguments;

/// Which part of a list is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) offset: usize,
    /// `None`: everything.
    pub(super) count: Option<usize>,
}

impl Page {
    /// 50 by default and 100 at most; but 0 is everything, and so is what is below 0 or no finite number, past the cap.
    pub(super) fn of(arguments: &Arguments) -> Self {
        let whole = |number: f64| if number.is_finite() && number >= 1.0 { Some(number.min(1e9) as usize) } else { None };
        let count = match arguments.number("count") {
            None => Some(50),
            Some(count) => whole(count).map(|count| count.min(100)),
        };
        Self { offset: arguments.number("offset").and_then(whole).unwrap_or(0), count }
    }

    /// The part of `items`.
    pub(super) fn cut<T>(self, items: Vec<T>) -> Vec<T> {
        items.into_iter().skip(self.offset).take(self.count.unwrap_or(usize::MAX)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::query::Query;
    use super::super::schema::Schema;
    use super::*;

    fn page(raw: &str) -> Page {
        Page::of(&Schema::Open.check(&Query::read(Some(raw)).unwrap()).unwrap())
    }

    #[test]
    fn a_page_has_fifty_items_unless_told_and_never_more_than_a_hundred() {
        assert_eq!(page(""), Page { offset: 0, count: Some(50) });
        assert_eq!(page("count=7&offset=3"), Page { offset: 3, count: Some(7) });
        assert_eq!(page("count=1e3"), Page { offset: 0, count: Some(100) });
        assert_eq!(page("count=1.9"), Page { offset: 0, count: Some(1) });
    }

    #[test]
    fn odd_counts_pass_the_cap_as_they_do_in_the_real_server() {
        for count in ["0", "-1", "Infinity"] {
            assert_eq!(page(&format!("count={count}")).count, None, "{count}");
        }
    }

    #[test]
    fn pages_follow_each_other_without_a_gap() {
        let all: Vec<usize> = (0..120).collect();
        let mut read = Vec::new();
        for offset in (0..120).step_by(50) {
            read.extend(page(&format!("offset={offset}")).cut(all.clone()));
        }
        assert_eq!(read, all);
        assert!(page("offset=120").cut(all).is_empty());
    }
}
