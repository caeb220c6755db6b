//! `sasl.jaas.config`: one login module of Kafka's with its options, as Java writes it (KIP-85).
//!
//! `MODULE required name="value" name='value' ... ;`: the form that `javax.security.auth.login.Configuration` describes. No value appears in an error.

/// What a `sasl.jaas.config` says.
#[derive(PartialEq, Eq)]
pub(super) struct Login {
    /// The module's class, its package left out.
    pub(super) module: String,
    /// Its options in their order.
    pub(super) options: Vec<(String, String)>,
}

/// Reads it.
///
/// # Errors
/// What is wrong with it, without any value.
pub(super) fn parse(text: &str) -> Result<Login, String> {
    let mut words = Words(text.trim());
    let class = words.next_word()?.filter(|word| word != ";");
    let class = class.ok_or("it is empty")?;
    let module = class.rsplit('.').next().unwrap_or(&class).to_owned();
    let flag = words.next_word()?.unwrap_or_default();
    let known = ["required", "requisite", "sufficient", "optional"];
    if !known.contains(&flag.to_ascii_lowercase().as_str()) {
        return Err(format!("the word \"required\" is missing behind {module}"));
    }
    let mut options = Vec::new();
    while let Some(name) = words.next_word()? {
        if name == ";" {
            return match words.next_word()? {
                None => Ok(Login { module, options }),
                Some(_) => {
                    Err("more than one login module, or text behind the semicolon".to_owned())
                }
            };
        }
        if words.next_word()?.as_deref() != Some("=") {
            return Err(format!(
                "an option without a value behind {} (a value that holds a blank, = or ; stands in quotes)",
                options
                    .last()
                    .map_or("required", |(name, _): &(String, String)| name)
            ));
        }
        let value = words.next_word()?;
        let value = value.ok_or_else(|| format!("no value for {name}"))?;
        options.push((name, value));
    }
    Err("the semicolon at its end is missing".to_owned())
}

/// Words, quoted texts, and the signs `=` and `;`.
struct Words<'a>(&'a str);

impl Words<'_> {
    fn next_word(&mut self) -> Result<Option<String>, String> {
        self.0 = self.0.trim_start();
        let mut chars = self.0.chars();
        match chars.next() {
            None => Ok(None),
            Some(sign @ ('=' | ';')) => {
                self.0 = chars.as_str();
                Ok(Some(sign.to_string()))
            }
            Some(quote @ ('"' | '\'')) => {
                let mut word = String::new();
                while let Some(char) = chars.next() {
                    match char {
                        '\\' => word.extend(chars.next()),
                        _ if char == quote => {
                            self.0 = chars.as_str();
                            return Ok(Some(word));
                        }
                        _ => word.push(char),
                    }
                }
                Err(format!("a {quote} that is never closed"))
            }
            Some(_) => {
                let end = |char: char| char.is_whitespace() || matches!(char, '=' | ';');
                let (word, rest) = self.0.split_at(self.0.find(end).unwrap_or(self.0.len()));
                self.0 = rest;
                Ok(Some(word.to_owned()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_read_as_people_write_them() {
        for text in [
            "org.apache.kafka.common.security.plain.PlainLoginModule required username=\"ada\" password=\"a;b='c'\";",
            "PlainLoginModule required\n  username='ada'\n  password='a;b=\\'c\\'' ;",
            "  org.apache.kafka.common.security.plain.PlainLoginModule  REQUIRED username = ada password=\"a;b=\\'c'\" ; ",
        ] {
            let login = parse(text).unwrap();
            assert_eq!(login.module, "PlainLoginModule");
            let options = [("username", "ada"), ("password", "a;b='c'")];
            assert_eq!(
                login.options,
                options.map(|(name, value)| (name.to_owned(), value.to_owned()))
            );
        }
    }

    #[test]
    fn what_is_wrong_is_said_without_a_value() {
        for (text, part) in [
            ("", "empty"),
            (";", "empty"),
            ("PlainLoginModule username=\"hidden\";", "\"required\""),
            ("M required username=\"a\" password=\"hidden\"", "semicolon"),
            (
                "M required username=\"a\" password=\"hidden;",
                "never closed",
            ),
            ("M required username=\"a\" password;", "behind username"),
            ("M required username=a password=hid den;", "behind password"),
            (
                "M required a=b; N required password=hidden;",
                "more than one",
            ),
        ] {
            let error = parse(text).err().unwrap();
            assert!(error.contains(part), "{text}: {error}");
            assert!(
                !error.contains("hidden") && !error.contains("den "),
                "{error}"
            );
        }
    }
}
