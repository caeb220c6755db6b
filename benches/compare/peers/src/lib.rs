//! What the programs share: the shape of a row and its Avro form.
//!
//! The Avro encoding is written out by hand for this one schema, which is as fast as such a program can be:
//! a comparison with it errs on the peer's side.

/// Columns of the file, in order.
pub const COLUMNS: &str = "timestamp,container_id,machine_id,cpu,mem";

/// Appends a long or an int in Avro's form.
pub fn put_long(output: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest >= 0x80 {
        output.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    output.push(rest as u8);
}

/// Appends a string in Avro's form.
pub fn put_string(output: &mut Vec<u8>, text: &[u8]) {
    put_long(output, text.len() as i64);
    output.extend_from_slice(text);
}

/// Replaces the content of `output` by one record in the Confluent wire format.
pub fn encode(output: &mut Vec<u8>, schema_id: u32, row: &Row<'_>) {
    output.clear();
    output.push(0);
    output.extend_from_slice(&schema_id.to_be_bytes());
    put_long(output, row.timestamp);
    put_string(output, row.container_id);
    put_string(output, row.machine_id);
    output.extend_from_slice(&row.cpu.to_le_bytes());
    output.extend_from_slice(&row.mem.to_le_bytes());
}

/// One row, parsed.
#[derive(Debug)]
pub struct Row<'a> {
    /// Milliseconds since 1970.
    pub timestamp: i64,
    /// Text.
    pub container_id: &'a [u8],
    /// Text.
    pub machine_id: &'a [u8],
    /// A share of a core.
    pub cpu: f64,
    /// A share of memory.
    pub mem: f64,
}

/// A small, fast and repeatable source of numbers (xorshift64).
#[derive(Debug)]
pub struct Numbers(u64);

impl Numbers {
    /// Always the same sequence.
    pub fn new() -> Self {
        Self(0x9e37_79b9_7f4a_7c15)
    }

    /// The next number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 32) * bound) >> 32
    }
}

impl Default for Numbers {
    fn default() -> Self {
        Self::new()
    }
}
