//! The known name nearest to a mistyped one: "did you mean".

/// The candidate that `word` is most likely a misspelling of, the first one among equals; `None` when none is near.
pub(crate) fn closest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let folded = word.to_lowercase();
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&folded, &candidate.to_lowercase()), candidate))
        // A third of the letters may differ; beyond that the suggestion would mislead.
        .filter(|(distance, candidate)| distance * 3 <= candidate.chars().count().max(3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// The hint that names the nearest candidate, if one is near.
pub(super) fn did_you_mean<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    closest(word, candidates).map(|candidate| format!("did you mean `{candidate}`?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_candidate_is_named_and_a_stranger_is_not() {
        let known = ["view-c-room", "view-d-room", "access-permissions"];
        assert_eq!(closest("view-croom", known), Some("view-c-room"));
        assert_eq!(closest("VIEW-D-ROOM", known), Some("view-d-room"));
        assert_eq!(closest("delete-user", known), None);
        assert_eq!(closest("x", ["y"]), Some("y"), "in a short word one letter may differ");
        assert_eq!(closest("", ["abcd"]), None);
    }
}
