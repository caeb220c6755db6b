//! Taking records out of a batch, as log compaction does.

use crate::compression::{Compression, Compressor};
use crate::error::Error;

use super::builder::BatchBody;
use super::header::patch_header;
use super::reader::{Batch, Record};

/// `batch` with those records alone for which `keep` says so; `None` if that is all of them.
///
/// Every record keeps its offset and timestamp. The batch keeps its first and last offset, its producer and
/// its sequence, so that readers go on behind it and a resend is still recognised; it may hold no record any
/// more.
///
/// # Errors
/// As [`Batch::records`], which decompresses to `limit` bytes at most.
pub fn retain_records(
    batch: &Batch<'_>,
    limit: usize,
    compressor: &mut Compressor,
    mut keep: impl FnMut(&Record<'_>) -> bool,
) -> Result<Option<Vec<u8>>, Error> {
    let mut scratch = Vec::new();
    let mut records = batch.records(&mut scratch, limit)?;
    let mut body = BatchBody {
        records: Vec::new(),
        record_count: 0,
        base_timestamp: batch.header().base_timestamp,
        max_timestamp: i64::MIN,
        compression: Compression::None,
    };
    let mut dropped = false;
    loop {
        // A record's bytes mean the same whatever stands before them: its deltas count from the header.
        let before = records.rest();
        let Some(record) = records.next().transpose()? else {
            break;
        };
        if keep(&record) {
            let len = before.len() - records.rest().len();
            body.records.extend_from_slice(&before[..len]);
            body.record_count += 1;
            body.max_timestamp = body.max_timestamp.max(record.timestamp);
        } else {
            dropped = true;
        }
    }
    if !dropped {
        return Ok(None);
    }
    if body.record_count == 0 {
        body.max_timestamp = batch.header().max_timestamp;
    }
    body.compress(compressor, batch.header().compression()?, Vec::new());
    let mut bytes = patch_header(batch.raw(), &body)?.to_vec();
    bytes.extend_from_slice(&body.records);
    Ok(Some(bytes))
}
