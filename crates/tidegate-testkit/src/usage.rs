//! Makes CSV files of container usage: one row per container and tick, the shape this project was first made for.

use std::io;
use std::path::Path;

/// A deterministic source of numbers (SplitMix64; Steele, Lea, Flood 2014): the same seed gives the same file on every machine.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// Starts the sequence of `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`, which must not be 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.next_u64() % limit
    }
}

/// What a usage file is like. Rows are ordered by tick; every tick has between half of `containers` and all of them, each once.
#[derive(Debug, Clone)]
pub struct UsageFile {
    /// Data rows in all. The last tick may be cut short by it.
    pub rows: u64,
    /// Containers there are; the most rows a tick has.
    pub containers: u32,
    /// Whether there is a fifth column, `mem`.
    pub with_memory: bool,
    /// Decides all values.
    pub seed: u64,
}

impl UsageFile {
    /// `rows` rows of 10 containers, with memory.
    #[must_use]
    pub fn new(rows: u64) -> Self {
        Self {
            rows,
            containers: 10,
            with_memory: true,
            seed: 42,
        }
    }

    /// The header.
    #[must_use]
    pub fn header(&self) -> &'static str {
        if self.with_memory {
            "timestamp,container_id,machine_id,cpu,mem"
        } else {
            "timestamp,container_id,machine_id,cpu"
        }
    }

    /// The rows, one after another, without line feeds.
    pub fn rows(&self) -> impl Iterator<Item = String> + '_ {
        let mut random = Random::new(self.seed);
        let mut tick = 0;
        let mut left_in_tick = Vec::new();
        (0..self.rows).map(move |_| {
            if left_in_tick.is_empty() {
                left_in_tick = self.containers_of_a_tick(&mut random);
                tick += 1;
            }
            let container = left_in_tick.pop().unwrap_or_default();
            self.row(tick - 1, container, &mut random)
        })
    }

    fn containers_of_a_tick(&self, random: &mut Random) -> Vec<u32> {
        let mut containers: Vec<u32> = (1..=self.containers.max(1)).collect();
        for last in (1..containers.len()).rev() {
            let other = usize::try_from(random.below(last as u64 + 1)).unwrap_or(0);
            containers.swap(last, other);
        }
        let half = containers.len().div_ceil(2);
        let extra =
            usize::try_from(random.below((containers.len() - half) as u64 + 1)).unwrap_or(0);
        containers.truncate(half + extra);
        containers
    }

    fn row(&self, tick: u64, container: u32, random: &mut Random) -> String {
        let machine = container % 3 + 1;
        let cpu = random.below(1000);
        let mut row = format!(
            "{tick},c_{container},n_{machine},{}.{}",
            cpu / 100,
            cpu % 100
        );
        if self.with_memory {
            row.push_str(&format!(",{}", random.below(1 << 34)));
        }
        row
    }

    /// The whole file as text.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = format!("{}\n", self.header());
        for row in self.rows() {
            text.push_str(&row);
            text.push('\n');
        }
        text
    }

    /// Writes the file to `path`, whatever its size.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        use std::io::Write as _;
        let mut file = io::BufWriter::new(std::fs::File::create(path)?);
        writeln!(file, "{}", self.header())?;
        for row in self.rows() {
            file.write_all(row.as_bytes())?;
            file.write_all(b"\n")?;
        }
        file.flush()
    }

    /// How many ticks there are: the records of a load grouped by timestamp.
    #[must_use]
    pub fn ticks(&self) -> u64 {
        let last = self.rows().last();
        let tick = last.and_then(|row| row.split(',').next()?.parse::<u64>().ok());
        tick.map_or(0, |tick| tick + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_file_and_another_seed_another() {
        let file = UsageFile::new(100);
        assert_eq!(file.text(), file.text());
        let other = UsageFile {
            seed: 7,
            ..file.clone()
        };
        assert_ne!(file.text(), other.text());
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("usage.csv");
        file.write(&path).unwrap();
        assert_eq!(std::fs::read_to_string(path).unwrap(), file.text());
    }

    #[test]
    fn ticks_are_consecutive_and_name_no_container_twice() {
        let file = UsageFile::new(1000);
        let mut seen: Vec<std::collections::BTreeSet<String>> = Vec::new();
        for row in file.rows() {
            let cells: Vec<&str> = row.split(',').collect();
            assert_eq!(cells.len(), 5);
            let tick: usize = cells[0].parse().unwrap();
            assert!(tick + 1 == seen.len() || tick == seen.len());
            if tick == seen.len() {
                seen.push(std::collections::BTreeSet::new());
            }
            assert!(seen[tick].insert(cells[1].to_owned()), "{row}");
        }
        assert_eq!(seen.len() as u64, file.ticks());
        assert!(
            seen[..seen.len() - 1]
                .iter()
                .all(|tick| (5..=10).contains(&tick.len()))
        );
    }

    #[test]
    fn no_rows_is_a_header_alone() {
        let file = UsageFile {
            with_memory: false,
            ..UsageFile::new(0)
        };
        assert_eq!(file.text(), "timestamp,container_id,machine_id,cpu\n");
        assert_eq!(file.ticks(), 0);
    }
}
