//! The form of a properties file: what Java's `Properties.load` takes, in UTF-8. The files of librdkafka's tools are of this form too.
//!
//! A key ends at `=`, `:` or white space; `#` and `!` begin comments; a backslash at the end of a line joins the next one to it, without its leading
//! white space; `\n`, `\t`, `\u00e9` and their like are escapes, and a backslash before any other character is that character.

/// One property as it stands in the file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// The line that it begins on, from 1.
    pub(super) line: usize,
    /// The key.
    pub(super) key: String,
    /// The value; empty where there is none.
    pub(super) value: String,
}

/// Reads all properties, in their order.
///
/// # Errors
/// The line, and what is wrong there.
pub(super) fn parse(text: &str) -> Result<Vec<Entry>, (usize, &'static str)> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut lines = text.lines().enumerate();
    let mut entries = Vec::new();
    while let Some((index, line)) = lines.next() {
        let line = line.trim_start_matches(is_blank);
        if line.is_empty() || line.starts_with(['#', '!']) {
            continue;
        }
        let mut whole = line.to_owned();
        while goes_on(&whole) {
            whole.pop();
            match lines.next() {
                Some((_, next)) => whole.push_str(next.trim_start_matches(is_blank)),
                None => break,
            }
        }
        let (key, value) = split(&whole);
        let unescaped = |text| unescape(text).map_err(|why| (index + 1, why));
        entries.push(Entry {
            line: index + 1,
            key: unescaped(key)?,
            value: unescaped(value)?,
        });
    }
    Ok(entries)
}

fn is_blank(char: char) -> bool {
    matches!(char, ' ' | '\t' | '\x0c')
}

/// Whether the line ends in a backslash that no other one makes plain.
fn goes_on(line: &str) -> bool {
    line.bytes().rev().take_while(|&byte| byte == b'\\').count() % 2 == 1
}

/// The key and the value, both still escaped.
fn split(line: &str) -> (&str, &str) {
    let mut escaped = false;
    let end = line.find(|char| {
        let ends = !escaped && (is_blank(char) || matches!(char, '=' | ':'));
        escaped = !escaped && char == '\\';
        ends
    });
    let (key, rest) = line.split_at(end.unwrap_or(line.len()));
    let rest = rest.trim_start_matches(is_blank);
    let rest = rest.strip_prefix(['=', ':']).unwrap_or(rest);
    (key, rest.trim_start_matches(is_blank))
}

fn unescape(text: &str) -> Result<String, &'static str> {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        if char != '\\' {
            plain.push(char);
            continue;
        }
        match chars.next() {
            Some('n') => plain.push('\n'),
            Some('t') => plain.push('\t'),
            Some('r') => plain.push('\r'),
            Some('f') => plain.push('\x0c'),
            Some('u') => {
                // Java writes what needs more than 16 bits as a pair of surrogates.
                let mut units = vec![code_unit(&mut chars)?];
                if matches!(units[0], 0xd800..0xdc00) && chars.as_str().starts_with("\\u") {
                    chars.nth(1);
                    units.push(code_unit(&mut chars)?);
                }
                let decoded = String::from_utf16(&units);
                plain.push_str(&decoded.map_err(|_| "\\u names half a character")?);
            }
            Some(other) => plain.push(other),
            None => {}
        }
    }
    Ok(plain)
}

/// The four hexadecimal digits behind `\u`.
fn code_unit(chars: &mut std::str::Chars<'_>) -> Result<u16, &'static str> {
    const WRONG: &str = "\\u needs four hexadecimal digits behind it (a plain backslash is \\\\)";
    let digits = chars.as_str().get(..4).ok_or(WRONG)?;
    if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Err(WRONG);
    }
    chars.nth(3);
    u16::from_str_radix(digits, 16).map_err(|_| WRONG)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<(usize, String, String)> {
        let entries = parse(text).unwrap().into_iter();
        entries
            .map(|entry| (entry.line, entry.key, entry.value))
            .collect()
    }

    #[test]
    fn the_form_is_javas() {
        // Most of these stand in the documentation of java.util.Properties.
        for (text, key, value) in [
            ("Truth = Beauty", "Truth", "Beauty"),
            (" Truth:Beauty", "Truth", "Beauty"),
            ("Truth\t\t\t:Beauty ", "Truth", "Beauty "),
            ("cheeses", "cheeses", ""),
            ("key value", "key", "value"),
            ("key = = value", "key", "= value"),
            ("a\\:b\\=c\\ d=e", "a:b=c d", "e"),
            ("path=c:\\\\temp\\new", "path", "c:\\temp\new"),
            ("a=\\u00e9\\ud83d\\ude00\\q", "a", "é😀q"),
            ("fruits   apple, \\\r\n   \tpear", "fruits", "apple, pear"),
            ("a=b\\\n", "a", "b"),
            ("a=b\\\\", "a", "b\\"),
            ("a=b\\\n# no comment", "a", "b# no comment"),
            ("\u{feff}a=b", "a", "b"),
        ] {
            assert_eq!(
                read(text),
                [(1, key.to_owned(), value.to_owned())],
                "{text}"
            );
        }
        assert_eq!(read("# a=b\\\n\n  ! c=d\n\t\n").len(), 0);
    }

    #[test]
    fn each_property_knows_its_line() {
        let found = read("# first\na=1,\\\n  2\n\nb=3");
        assert_eq!(
            found,
            [
                (2, "a".to_owned(), "1,2".to_owned()),
                (5, "b".to_owned(), "3".to_owned())
            ]
        );
    }

    #[test]
    fn half_an_escape_is_an_error_with_its_line() {
        for wrong in ["\na=\\u12", "\na=\\u12g4", "\na=\\ud800", "\na=\\u+123"] {
            assert_eq!(parse(wrong).unwrap_err().0, 2, "{wrong}");
        }
    }
}
