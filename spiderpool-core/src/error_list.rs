//! Lists and long texts in a message, which becomes an Event, a line of a log and what `kubectl` prints: an object that a user
//! has written may have ten thousand faults.

use std::collections::HashSet;
use std::fmt;

/// How many causes a message names.
const CAUSES: usize = 20;
/// How many elements of another list it names.
const EXAMPLES: usize = 5;
/// Bytes enough for what is quoted of an annotation, for which Kubernetes has room for 256 KiB: names have at most 253.
const QUOTED: usize = 300;
/// Bytes enough for the text of a failure.
pub const MAX_TEXT: usize = 8 << 10;
/// Ends a text that was cut.
const ELLIPSIS: char = '\u{2026}';

/// Several causes as `[a, b]`, one as itself, equal ones once: as Kubernetes renders aggregated errors. Of very many the first
/// ones, and how many more there are.
#[derive(Debug, Clone, Copy)]
pub struct ErrorList<'a, T>(pub &'a [T]);

impl<T: fmt::Display> fmt::Display for ErrorList<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut known, mut shown) = (HashSet::new(), Vec::new());
        for cause in self.0 {
            let text = cause.to_string();
            if shown.len() < CAUSES && !known.contains(&text) {
                shown.push(text.clone());
            }
            known.insert(text);
        }
        match (shown.as_slice(), known.len().saturating_sub(shown.len())) {
            ([one], _) => f.write_str(one),
            (several, 0) => write!(f, "[{}]", several.join(", ")),
            (several, more) => write!(f, "[{}, and {more} more]", several.join(", ")),
        }
    }
}

/// The first elements of a list, and how many more there are.
pub fn examples<T: fmt::Display>(list: impl IntoIterator<Item = T>) -> String {
    let mut list = list.into_iter();
    let texts: Vec<_> = list.by_ref().take(EXAMPLES).map(|element| element.to_string()).collect();
    match list.count() {
        0 => texts.join(", "),
        more => format!("{} and {more} more", texts.join(", ")),
    }
}

/// As much as a message quotes of what a user has written.
pub(crate) fn quoted(text: &str) -> String {
    cut(text.to_owned(), QUOTED)
}

/// The text, or of one with more than `limit` bytes the beginning.
pub fn cut(mut text: String, limit: usize) -> String {
    if text.len() > limit {
        text.truncate(text.floor_char_boundary(limit.saturating_sub(ELLIPSIS.len_utf8())));
        text.push(ELLIPSIS);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_causes_are_named_once() {
        assert_eq!(ErrorList(&["a"]).to_string(), "a");
        assert_eq!(ErrorList(&["a", "b", "a"]).to_string(), "[a, b]");
        assert_eq!(ErrorList(&["a", "a"]).to_string(), "a");
    }

    /// Each was compared with all before it, which took minutes for as many as an object has room for.
    #[test]
    fn of_very_many_causes_the_first_are_named_and_the_others_counted() {
        let causes: Vec<_> = (0..100_000).map(|number| format!("spec.ips[{}]: x", number % 99_999)).collect();
        let text = ErrorList(&causes).to_string();
        assert!(text.starts_with("[spec.ips[0]: x, spec.ips[1]: x, "), "{text}");
        assert!(text.ends_with("spec.ips[19]: x, and 99979 more]"), "{text}");
    }

    #[test]
    fn a_list_is_named_by_its_first_elements() {
        assert_eq!(examples(0..5), "0, 1, 2, 3, 4");
        assert_eq!(examples(0..7), "0, 1, 2, 3, 4 and 2 more");
    }

    /// Where each character has three bytes, 1000 of them are too long.
    #[test]
    fn a_text_is_cut_by_bytes_and_between_characters() {
        for (text, length) in [("\u{7f51}", 1023), ("a", 1024), ("\u{e9}", 1023)] {
            let long = cut(text.repeat(1100), 1024);
            assert_eq!((long.len(), long.ends_with(ELLIPSIS)), (length, true), "{text}");
            let fits = text.repeat(1024 / text.len());
            assert_eq!(cut(fits.clone(), 1024), fits);
        }
    }
}
