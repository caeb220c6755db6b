//! Readers that share no code with us: kcat, and Python's confluent-kafka with fastavro. Both run as child processes, read what is committed,
//! and say of each record its partition, offset, key and value as JSON.

use std::path::{Path, PathBuf};
use std::process::Command;

/// How often a reader is run again that ends with an error: a broker that was just started may turn it away.
const ATTEMPTS: u32 = 5;

/// A record as a reader found it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Found {
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) key: String,
    /// JSON.
    pub(crate) value: String,
}

/// Where to read.
#[derive(Debug, Clone)]
pub(crate) struct Reader {
    pub(crate) bootstrap: String,
    pub(crate) registry: Option<String>,
    /// A Python that has confluent-kafka and fastavro.
    pub(crate) python: Option<PathBuf>,
}

impl Reader {
    /// All committed records of a topic, by partition and offset.
    pub(crate) fn read(&self, topic: &str, is_avro: bool) -> Result<Vec<Found>, String> {
        let mut attempt = 1;
        loop {
            let output = self.command(topic, is_avro)?.output();
            let output = output.map_err(|error| format!("the reader cannot be run: {error}"))?;
            if output.status.success() {
                let mut found = parse(&output.stdout)?;
                found.sort();
                return Ok(found);
            }
            if attempt == ATTEMPTS {
                let said = String::from_utf8_lossy(&output.stderr);
                return Err(format!(
                    "the reader of {topic} failed: {}\n{said}",
                    output.status
                ));
            }
            attempt += 1;
        }
    }

    fn command(&self, topic: &str, is_avro: bool) -> Result<Command, String> {
        if !is_avro {
            let mut command = Command::new("kcat");
            command
                .args(["-q", "-C", "-e", "-o", "beginning", "-b", &self.bootstrap])
                .args(["-t", topic, "-f", "%p %o %K %S %k%s\n"]);
            for setting in [
                "isolation.level=read_committed",
                "check.crcs=true",
                // Waiting less: the end is known.
                "fetch.wait.max.ms=10",
                "queued.min.messages=1000000",
            ] {
                command.args(["-X", setting]);
            }
            return Ok(command);
        }
        let missing = || "no reader of Avro: --python".to_owned();
        let python: &Path = self.python.as_deref().ok_or_else(missing)?;
        let registry = self.registry.as_deref().ok_or_else(missing)?;
        let mut command = Command::new(python);
        command.args([
            "-c",
            include_str!("reader.py"),
            &self.bootstrap,
            registry,
            topic,
        ]);
        Ok(command)
    }
}

/// Reads `PARTITION OFFSET KEY-LENGTH VALUE-LENGTH KEYVALUE\n`, again and again.
fn parse(mut output: &[u8]) -> Result<Vec<Found>, String> {
    let wrong = || "the reader's output cannot be read".to_owned();
    let mut found = Vec::new();
    while !output.is_empty() {
        let mut numbers = [0_i64; 4];
        for number in &mut numbers {
            let end = output
                .iter()
                .position(|byte| *byte == b' ')
                .ok_or_else(wrong)?;
            let text = std::str::from_utf8(&output[..end]).map_err(|_| wrong())?;
            *number = text.parse().map_err(|_| wrong())?;
            output = &output[end + 1..];
        }
        let [partition, offset, key_len, value_len] = numbers;
        let mut cut = |len: i64| {
            // -1 is a null.
            let len = usize::try_from(len).unwrap_or(0);
            let (text, rest) = output.split_at_checked(len).ok_or_else(wrong)?;
            output = rest;
            String::from_utf8(text.to_vec()).map_err(|_| wrong())
        };
        let (key, value) = (cut(key_len)?, cut(value_len)?);
        output = output.strip_prefix(b"\n").ok_or_else(wrong)?;
        found.push(Found {
            partition: i32::try_from(partition).map_err(|_| wrong())?,
            offset,
            key,
            value,
        });
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_cut_by_its_lengths() {
        let found = parse("0 7 1 3 k\"\n\"\n1 8 -1 2 {}\n".as_bytes()).unwrap();
        assert_eq!(
            (found[0].key.as_str(), found[0].value.as_str()),
            ("k", "\"\n\"")
        );
        assert_eq!((found[1].partition, found[1].offset), (1, 8));
        for wrong in ["0", "0 1 1 9 k{}\n", "0 1 0 2 {}0", "a 1 0 2 {}\n"] {
            parse(wrong.as_bytes()).unwrap_err();
        }
    }
}
