//! `generate FILE ROWS`: a CSV file of measurements, the same one every time, at some 10 M rows a second.
//!
//! 1,000 containers on 50 machines are measured every second; cpu and mem have four decimals.

use std::error::Error;
use std::fs::File;
use std::io::{BufWriter, Write};

use tidegate_compare_peers::{COLUMNS, Numbers};

const CONTAINERS: u64 = 1000;
const MACHINES: u64 = 50;
const START: u64 = 1_700_000_000_000;

/// Appends `value` with at least `width` digits.
fn put_digits(line: &mut Vec<u8>, mut value: u64, width: usize) {
    let start = line.len();
    while value > 0 || line.len() - start < width {
        line.push(b'0' + (value % 10) as u8);
        value /= 10;
    }
    line[start..].reverse();
}

fn put_share(line: &mut Vec<u8>, numbers: &mut Numbers) {
    let value = numbers.below(40_000);
    put_digits(line, value / 10_000, 1);
    line.push(b'.');
    put_digits(line, value % 10_000, 4);
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(path), Some(rows)) = (arguments.next(), arguments.next()) else {
        return Err("usage: generate FILE ROWS".into());
    };
    let rows: u64 = rows.parse()?;
    let mut output = BufWriter::with_capacity(1 << 20, File::create(path)?);
    writeln!(output, "{COLUMNS}")?;
    let mut numbers = Numbers::new();
    let mut line = Vec::with_capacity(128);
    for row in 0..rows {
        let container = row % CONTAINERS;
        line.clear();
        put_digits(&mut line, START + row / CONTAINERS * 1000, 13);
        line.extend_from_slice(b",c_");
        put_digits(&mut line, container, 1);
        line.extend_from_slice(b",n_");
        put_digits(&mut line, container % MACHINES, 1);
        line.push(b',');
        put_share(&mut line, &mut numbers);
        line.push(b',');
        put_share(&mut line, &mut numbers);
        line.push(b'\n');
        output.write_all(&line)?;
    }
    output.flush()?;
    Ok(())
}
