//! Arrays and maps in one cell: as JSON, or with a delimiter between their items.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::format::NullTokens;
use super::kind::Kind;
use super::scalar::Problem;
use super::value::ValueWriter;

/// An array or a map in a cell.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Collection {
    pub(crate) item: Kind,
    /// The encoded branches of null and of the value, where items are of a union.
    pub(crate) null: Option<u8>,
    pub(crate) branch: Option<u8>,
    /// The texts that stand for null, where items take it; the empty one alone, between delimiters, where none are said.
    pub(crate) nulls: Option<NullTokens>,
    /// What stands between two items; without it the cell is JSON.
    pub(crate) delimiter: Option<Box<[u8]>>,
}

impl Collection {
    /// Writes the array that a text stands for.
    pub(crate) fn put_array<W: ValueWriter>(
        &self,
        text: &[u8],
        is_ascii: bool,
        out: &mut W,
    ) -> Result<(), Problem> {
        let Some(delimiter) = &self.delimiter else {
            let items: Vec<&RawValue> = parse(text)?;
            out.begin_array(items.len());
            for (number, item) in items.iter().enumerate() {
                if number > 0 {
                    out.next_item();
                }
                self.put_json(item, out)?;
            }
            out.end_array(items.len());
            return Ok(());
        };
        let count = split(text, delimiter).count();
        out.begin_array(count);
        for (number, item) in split(text, delimiter).enumerate() {
            if number > 0 {
                out.next_item();
            }
            self.put_text(item, is_ascii, out)?;
        }
        out.end_array(count);
        Ok(())
    }

    /// Writes the map that a text stands for; with a delimiter each of its entries is `name=value`.
    pub(crate) fn put_map<W: ValueWriter>(
        &self,
        text: &[u8],
        is_ascii: bool,
        out: &mut W,
    ) -> Result<(), Problem> {
        let Some(delimiter) = &self.delimiter else {
            let Entries(entries) = parse(text)?;
            out.begin_map(entries.len());
            for (number, (name, value)) in entries.iter().enumerate() {
                begin_entry(number, name.as_bytes(), out);
                self.put_json(value, out)?;
            }
            out.end_map(entries.len());
            return Ok(());
        };
        let count = split(text, delimiter).count();
        let mut names = HashSet::with_capacity(count);
        out.begin_map(count);
        for (number, item) in split(text, delimiter).enumerate() {
            let (name, value) = split_entry(item, is_ascii)?;
            if !names.insert(name) {
                return Err(Problem::Twice);
            }
            begin_entry(number, name, out);
            self.put_text(value, is_ascii, out)?;
        }
        out.end_map(count);
        Ok(())
    }

    fn put_text<W: ValueWriter>(
        &self,
        text: &[u8],
        is_ascii: bool,
        out: &mut W,
    ) -> Result<(), Problem> {
        let is_null = match &self.nulls {
            Some(nulls) => nulls.contain(text),
            None => text.is_empty() && self.null.is_some(),
        };
        if is_null {
            self.put_null(out)
        } else {
            self.put_value(text, is_ascii, out)
        }
    }

    /// A scalar of JSON is the text it is, a string what stands in its quotes.
    fn put_json<W: ValueWriter>(&self, value: &RawValue, out: &mut W) -> Result<(), Problem> {
        let raw = value.get();
        match raw.as_bytes().first() {
            Some(b'"') => {
                let text: Cow<'_, str> = parse(raw.as_bytes()).map(|Text(text)| text)?;
                if self.is_token(text.as_bytes()) {
                    return self.put_null(out);
                }
                self.put_value(text.as_bytes(), false, out)
            }
            Some(b'n') => self.put_null(out),
            Some(b'[' | b'{') | None => Err(Problem::NotWrittenAsOne),
            Some(_) if matches!(self.item, Kind::String) => Err(Problem::NotWrittenAsOne),
            Some(_) if self.is_token(raw.as_bytes()) => self.put_null(out),
            Some(_) => self.put_value(raw.as_bytes(), true, out),
        }
    }

    fn is_token(&self, text: &[u8]) -> bool {
        self.nulls.as_ref().is_some_and(|nulls| nulls.contain(text))
    }

    fn put_null<W: ValueWriter>(&self, out: &mut W) -> Result<(), Problem> {
        out.branch(self.null.ok_or(Problem::Null)?);
        out.null();
        Ok(())
    }

    fn put_value<W: ValueWriter>(
        &self,
        text: &[u8],
        is_ascii: bool,
        out: &mut W,
    ) -> Result<(), Problem> {
        if let Some(branch) = self.branch {
            out.branch(branch);
        }
        self.item.put(text, is_ascii, out)
    }

    /// What a cell holds, for messages.
    pub(crate) fn expected(&self) -> String {
        let items = self.item.expected();
        match &self.delimiter {
            None => format!("in JSON, each item {items}"),
            Some(delimiter) => {
                let delimiter = String::from_utf8_lossy(delimiter);
                format!("with `{delimiter}` between its items, each {items}")
            }
        }
    }
}

fn begin_entry<W: ValueWriter>(number: usize, name: &[u8], out: &mut W) {
    if number > 0 {
        out.next_item();
    }
    out.entry(name);
}

fn parse<'a, T: Deserialize<'a>>(text: &'a [u8]) -> Result<T, Problem> {
    serde_json::from_slice(text).map_err(|_| Problem::NotWrittenAsOne)
}

/// The pieces of a text; the empty text has none.
fn split<'a>(text: &'a [u8], delimiter: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    let mut rest = (!text.is_empty()).then_some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let found = text
            .windows(delimiter.len())
            .position(|window| window == delimiter);
        let Some(at) = found else {
            rest = None;
            return Some(text);
        };
        rest = Some(&text[at + delimiter.len()..]);
        Some(&text[..at])
    })
}

fn split_entry(item: &[u8], is_ascii: bool) -> Result<(&[u8], &[u8]), Problem> {
    let at = item.iter().position(|byte| *byte == b'=');
    let at = at.ok_or(Problem::NotWrittenAsOne)?;
    let name = &item[..at];
    if !is_ascii && str::from_utf8(name).is_err() {
        return Err(Problem::NotWrittenAsOne);
    }
    Ok((name, &item[at + 1..]))
}

/// A string of JSON, borrowed where it holds no escapes.
#[derive(serde::Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// The entries of an object in their order, no name twice.
struct Entries<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Entries<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Entries<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries<'de>, A::Error> {
                let (mut entries, mut names) = (Vec::new(), HashSet::new());
                while let Some((Text(name), value)) = map.next_entry()? {
                    if !names.insert(name.clone()) {
                        return Err(serde::de::Error::custom("a name stands twice"));
                    }
                    entries.push((name, value));
                }
                Ok(Entries(entries))
            }
        }

        deserializer.deserialize_map(Object)
    }
}
