//! The header: the names of a file's columns.

use std::collections::{HashMap, HashSet};

use crate::limits::MAX_COLUMNS;
use crate::{Error, ErrorKind, Result};

/// The column names of a file, in its order; no two are the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    names: Vec<String>,
    /// What the file calls those that could not be kept, each with its number, from 1.
    renamed: Vec<(usize, String)>,
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
        Ok(Self {
            names,
            renamed: Vec::new(),
        })
    }

    /// The header of a file that names its columns like this. A column without a name is called by its number, `column 3`, and the second one of a
    /// name `name#2`.
    ///
    /// # Errors
    /// As [`new`](Self::new), where the file has a column of such a name too.
    pub(super) fn read(found: Vec<String>) -> Result<Self> {
        let mut counts: HashMap<String, usize> = HashMap::with_capacity(found.len());
        let (mut names, mut renamed) = (Vec::with_capacity(found.len()), Vec::new());
        let is_alone = found.len() == 1;
        for (index, name) in found.into_iter().enumerate() {
            let count = counts.entry(name.clone()).or_default();
            *count += 1;
            let usable = match *count {
                _ if name.is_empty() && !is_alone => format!("column {}", index + 1),
                1 => name.clone(),
                count => format!("{name}#{count}"),
            };
            if usable != name {
                renamed.push((index + 1, name));
            }
            names.push(usable);
        }
        Ok(Self {
            renamed,
            ..Self::new(names)?
        })
    }

    /// What a reader holds until it has read the header: no names.
    pub(super) fn none() -> Self {
        Self {
            names: Vec::new(),
            renamed: Vec::new(),
        }
    }

    /// The names, in the file's order.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The columns that are called otherwise than in the file, for people.
    pub(crate) fn notes(&self) -> impl Iterator<Item = String> + '_ {
        self.renamed.iter().map(|(number, name)| {
            let usable = &self.names[number - 1];
            match name.as_str() {
                "" => format!("column {number} has no name in the header and is called `{usable}`"),
                name => format!(
                    "the header names `{name}` more than once: column {number} is called `{usable}`"
                ),
            }
        })
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

    #[test]
    fn columns_without_a_name_of_their_own_are_called_by_number() {
        let read = |names: &[&str]| Header::read(names.iter().map(ToString::to_string).collect());
        let header = read(&["a", "", "a", "b", "", "a"]).unwrap();
        assert_eq!(
            header.names(),
            ["a", "column 2", "a#2", "b", "column 5", "a#3"]
        );
        let notes: Vec<String> = header.notes().collect();
        assert_eq!(
            notes[0],
            "column 2 has no name in the header and is called `column 2`"
        );
        assert!(notes[1].contains("`a` more than once: column 3 is called `a#2`"));
        assert!(read(&["a", "a#2", "a"]).is_err());
        assert_eq!(read(&[""]).unwrap().names(), [""]);
    }
}
