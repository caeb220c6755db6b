//! The header: the names of a file's columns.

use std::collections::HashSet;

use crate::limits::MAX_COLUMNS;
use crate::{Error, ErrorKind, Result};

/// The column names of a file, in its order; no two are the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    names: Vec<String>,
}

impl Header {
    /// A header of these names.
    ///
    /// # Errors
    /// [`ErrorKind::BadRow`] when there is no name at all, there are more than [`MAX_COLUMNS`], or a name stands twice; the message names all of these.
    pub fn new<S: Into<String>>(names: impl IntoIterator<Item = S>) -> Result<Self> {
        let names: Vec<String> = names.into_iter().map(Into::into).collect();
        if names.is_empty() {
            return Err(Error::new(ErrorKind::BadRow, "the header names no column"));
        }
        if names.len() > MAX_COLUMNS {
            let message = format!("the header names more than {MAX_COLUMNS} columns");
            return Err(Error::new(ErrorKind::BadRow, message));
        }
        let mut seen = HashSet::with_capacity(names.len());
        let mut duplicates: Vec<&str> = Vec::new();
        for name in &names {
            if !seen.insert(name.as_str()) && !duplicates.contains(&name.as_str()) {
                duplicates.push(name);
            }
        }
        if !duplicates.is_empty() {
            let list: Vec<String> = duplicates.iter().map(|name| format!("`{name}`")).collect();
            let message = format!(
                "the header names {} more than once: which column is meant cannot be told",
                list.join(", ")
            );
            return Err(Error::new(ErrorKind::BadRow, message));
        }
        Ok(Self { names })
    }

    /// What a reader holds until it has read the header: no names.
    pub(super) fn none() -> Self {
        Self { names: Vec::new() }
    }

    /// The names, in the file's order.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// How many columns there are; at least 1.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a header is never empty")]
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// The index of the column with exactly this name.
    #[must_use]
    pub fn index_of(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|known| known == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duplicate_names_are_all_named_once() {
        let error = Header::new(["a", "b", "a", "c", "b", "a"])
            .unwrap_err()
            .to_string();
        assert!(error.contains("`a`, `b`"), "{error}");
        assert!(Header::new(Vec::<String>::new()).is_err());
        assert_eq!(Header::new(["a", ""]).unwrap().index_of(""), Some(1));
    }
}
