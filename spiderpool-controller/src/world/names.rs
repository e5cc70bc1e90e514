//! Texts that occur often, held once.

use std::collections::HashSet;
use std::sync::Arc;

/// How many texts are added before those that nobody uses any more are dropped.
const SWEEP: usize = 4096;

/// The texts.
#[derive(Debug, Default)]
pub struct Names {
    known: HashSet<Arc<str>>,
    added: usize,
}

impl Names {
    /// The one copy of a text.
    pub fn get(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.known.get(text) {
            return Arc::clone(known);
        }
        self.added += 1;
        if self.added > SWEEP.max(self.known.len()) {
            self.added = 0;
            self.known.retain(|name| Arc::strong_count(name) > 1);
        }
        let name: Arc<str> = text.into();
        self.known.insert(Arc::clone(&name));
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_held_once_and_not_for_ever() {
        let mut names = Names::default();
        let a = names.get("a");
        assert!(Arc::ptr_eq(&a, &names.get("a")));
        for number in 0..3 * SWEEP {
            names.get(&number.to_string());
        }
        assert!(names.known.len() <= 2 * SWEEP + 2 && Arc::ptr_eq(&a, &names.get("a")));
    }
}
