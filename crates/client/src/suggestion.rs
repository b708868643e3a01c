//! Suggestion of a name that the caller may have meant.

use strsim::damerau_levenshtein;

/// Returns the hint of an error message: ` (did you mean "distance"?)`, or an empty text if no name is
/// similar enough.
pub(crate) fn hint(name: &str, known: &[String]) -> String {
    nearest(name, known).map_or_else(String::new, |near| format!(" (did you mean {near:?}?)"))
}

/// Returns the most similar name. Case has no influence; of three characters, one may differ.
fn nearest<'a>(name: &str, known: &'a [String]) -> Option<&'a str> {
    let name = name.trim().to_lowercase();
    let limit = (name.chars().count() / 3).max(1);
    known
        .iter()
        .map(|known| (damerau_levenshtein(&name, &known.to_lowercase()), known.as_str()))
        .filter(|(distance, known)| *distance <= limit && *distance < known.chars().count())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_name_is_suggested() {
        let known = ["distance", "dest", "dep_time", "arr_time", "a"].map(str::to_owned);
        for (name, expected) in [
            ("distnace", Some("distance")),
            ("Distance ", Some("distance")),
            ("dist", Some("dest")),
            ("dep_tim", Some("dep_time")),
            ("A", Some("a")),
            ("b", None),
            ("carrier", None),
            ("", None),
        ] {
            assert_eq!(nearest(name, &known), expected, "{name:?}");
        }
        assert_eq!(hint("dst", &known), " (did you mean \"dest\"?)");
        assert_eq!(hint("carrier", &known), "");
    }
}
