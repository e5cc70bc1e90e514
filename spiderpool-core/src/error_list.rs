//! Several errors as one text.

use std::fmt;

/// Several causes as `[a, b]`, one as itself, equal ones once: as Kubernetes renders aggregated errors.
#[derive(Debug, Clone, Copy)]
pub struct ErrorList<'a, T>(pub &'a [T]);

impl<T: fmt::Display> fmt::Display for ErrorList<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut texts: Vec<String> = Vec::new();
        for cause in self.0 {
            let text = cause.to_string();
            if !texts.contains(&text) {
                texts.push(text);
            }
        }
        match texts.as_slice() {
            [one] => f.write_str(one),
            several => write!(f, "[{}]", several.join(", ")),
        }
    }
}
