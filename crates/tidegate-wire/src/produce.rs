//! The Produce request for one batch, written so that the records are sent from where they were built, and
//! its answer.
//!
//! [`prefix`] makes everything before the records, the batch's header included, and [`trailer`] what
//! follows them; a vectored write of prefix, records and trailer then copies nothing. Versions 3 to 13 are
//! known: 3 is the first with record batches of format 2, from 9 on the encoding is "flexible" (compact
//! lengths and tagged fields, KIP-482), from 10 on an answer may name the new leader (KIP-951), and from
//! 13 on topics go by id instead of name (KIP-516).

use crate::batch::HEADER_LEN;
use crate::cursor::Cursor;
use crate::error::{Error, Kind};
use crate::frame::LENGTH_LEN;
use crate::varint;

/// The api key of Produce.
pub const API_KEY: i16 = 0;

/// The lowest version known here.
pub const MIN_VERSION: i16 = 3;

/// The highest version known here.
pub const MAX_VERSION: i16 = 13;

const FIRST_FLEXIBLE_VERSION: i16 = 9;
const FIRST_VERSION_WITH_TOPIC_ID: i16 = 13;

/// A topic by its name and its id. The version of the request says which of the two is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopicRef<'a> {
    /// Sent up to version 12.
    pub name: &'a str,
    /// Sent from version 13 on; only the topic that was looked up has it, not one re-created since.
    pub id: [u8; 16],
}

/// A Produce request for one batch to one partition.
#[derive(Debug, Clone, Copy)]
pub struct ProduceRequest<'a> {
    /// Names the program in the broker's logs and quotas.
    pub client_id: Option<&'a str>,
    /// Set in a transaction.
    pub transactional_id: Option<&'a str>,
    /// -1: answer when all in-sync replicas have the batch; 1: when the leader has it.
    pub acks: i16,
    /// How long the broker may wait for the replicas, in milliseconds.
    pub timeout_ms: i32,
    /// The topic.
    pub topic: TopicRef<'a>,
    /// The partition.
    pub partition: i32,
    /// The batch's header, from [`crate::encode_header`].
    pub batch_header: &'a [u8; HEADER_LEN],
    /// Bytes of the records that follow it.
    pub body_len: usize,
}

fn check_version(version: i16) -> Result<(), Error> {
    if (MIN_VERSION..=MAX_VERSION).contains(&version) {
        return Ok(());
    }
    Err(Error::unsupported(format!(
        "Produce version {version}, outside {MIN_VERSION} to {MAX_VERSION}"
    )))
}

/// Everything of the request's frame before the records: the frame's length, the request's header, the
/// fields, and the batch's header.
///
/// # Errors
/// [`Kind::Unsupported`] for another version than 3 to 13; [`Kind::TooLarge`] for a name of more than 32,767
/// bytes or a frame of more than 2 GiB.
pub fn prefix(
    version: i16,
    correlation_id: i32,
    request: &ProduceRequest<'_>,
) -> Result<Vec<u8>, Error> {
    check_version(version)?;
    let flexible = version >= FIRST_FLEXIBLE_VERSION;
    let mut writer = Writer {
        output: Vec::with_capacity(256),
        flexible,
    };
    writer.output.extend_from_slice(&[0; LENGTH_LEN]);
    writer.i16(API_KEY);
    writer.i16(version);
    writer.i32(correlation_id);
    // The client id keeps its old encoding in every version of the request's header.
    writer.old_string(request.client_id)?;
    writer.tagged_fields();

    writer.string(request.transactional_id)?;
    writer.i16(request.acks);
    writer.i32(request.timeout_ms);
    writer.array_len_of_one();
    if version >= FIRST_VERSION_WITH_TOPIC_ID {
        writer.output.extend_from_slice(&request.topic.id);
    } else {
        writer.string(Some(request.topic.name))?;
    }
    writer.array_len_of_one();
    writer.i32(request.partition);
    writer.bytes_len(HEADER_LEN + request.body_len)?;
    writer.output.extend_from_slice(request.batch_header);

    let mut prefix = writer.output;
    let frame_len = prefix.len() - LENGTH_LEN + request.body_len + trailer(version).len();
    let frame_len = i32::try_from(frame_len).map_err(|_| too_large("a request", frame_len))?;
    prefix[..LENGTH_LEN].copy_from_slice(&frame_len.to_be_bytes());
    Ok(prefix)
}

/// Everything of the request's frame after the records: the ends of partition, topic and request.
#[must_use]
pub fn trailer(version: i16) -> &'static [u8] {
    if version >= FIRST_FLEXIBLE_VERSION {
        &[0; 3]
    } else {
        &[]
    }
}

fn too_large(what: &str, len: usize) -> Error {
    Error::new(
        Kind::TooLarge,
        format!("{what} of {len} bytes is more than the protocol can hold"),
    )
}

/// Appends fields in either encoding.
struct Writer {
    output: Vec<u8>,
    flexible: bool,
}

impl Writer {
    fn i16(&mut self, value: i16) {
        self.output.extend_from_slice(&value.to_be_bytes());
    }

    fn i32(&mut self, value: i32) {
        self.output.extend_from_slice(&value.to_be_bytes());
    }

    fn old_string(&mut self, text: Option<&str>) -> Result<(), Error> {
        match text {
            None => self.i16(-1),
            Some(text) => {
                self.i16(i16::try_from(text.len()).map_err(|_| too_large("a name", text.len()))?);
                self.output.extend_from_slice(text.as_bytes());
            }
        }
        Ok(())
    }

    fn string(&mut self, text: Option<&str>) -> Result<(), Error> {
        if !self.flexible {
            return self.old_string(text);
        }
        match text {
            None => self.output.push(0),
            Some(text) if i16::try_from(text.len()).is_err() => {
                return Err(too_large("a name", text.len()));
            }
            Some(text) => {
                varint::put_unsigned(&mut self.output, text.len() as u64 + 1);
                self.output.extend_from_slice(text.as_bytes());
            }
        }
        Ok(())
    }

    fn bytes_len(&mut self, len: usize) -> Result<(), Error> {
        let length = i32::try_from(len).map_err(|_| too_large("a batch", len))?;
        if self.flexible {
            varint::put_unsigned(&mut self.output, len as u64 + 1);
        } else {
            self.i32(length);
        }
        Ok(())
    }

    fn array_len_of_one(&mut self) {
        if self.flexible {
            self.output.push(2);
        } else {
            self.i32(1);
        }
    }

    fn tagged_fields(&mut self) {
        if self.flexible {
            self.output.push(0);
        }
    }
}

/// What is wrong with one record of a refused batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordError {
    /// The record's place in the batch, from 0.
    pub batch_index: i32,
    /// What the broker says about it.
    pub message: Option<String>,
}

/// The broker's answer to a [`ProduceRequest`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProduceAnswer {
    /// The partition the answer is about.
    pub partition: i32,
    /// Kafka's error code; 0 is success.
    pub error_code: i16,
    /// The offset of the batch's first record, or -1.
    pub base_offset: i64,
    /// When the broker appended the batch, in milliseconds since 1970; -1 where the producer's timestamps count.
    pub log_append_time: i64,
    /// The first offset the partition still has, or -1.
    pub log_start_offset: i64,
    /// The records that are the cause of an error.
    pub record_errors: Vec<RecordError>,
    /// What the broker says about the error.
    pub error_message: Option<String>,
    /// The new leader's node id and epoch, where the broker asked is no longer the leader and says so.
    pub current_leader: Option<(i32, i32)>,
    /// How long the broker held the answer back, or asks not to be sent more, for a quota; in milliseconds.
    pub throttle_ms: i32,
}

/// Reads the answer to a request made by [`prefix`] with the same version; `frame` is without its length.
///
/// Returns the correlation id with it.
///
/// # Errors
/// [`Kind::Unsupported`] for another version than 3 to 13; [`Kind::Truncated`] or [`Kind::Corrupt`] if the
/// bytes are not the answer for one partition of one topic.
pub fn parse_answer(version: i16, frame: &[u8]) -> Result<(i32, ProduceAnswer), Error> {
    check_version(version)?;
    let flexible = version >= FIRST_FLEXIBLE_VERSION;
    let mut reader = AnswerReader {
        cursor: Cursor::new(frame),
        flexible,
    };
    let correlation_id = reader.cursor.i32(WHAT)?;
    reader.tagged_fields(|_, _| Ok(()))?;
    reader.one("topics")?;
    if version >= FIRST_VERSION_WITH_TOPIC_ID {
        reader.cursor.take(16, WHAT)?;
    } else {
        reader.string()?;
    }
    reader.one("partitions")?;
    let mut answer = reader.partition(version)?;
    reader.tagged_fields(|_, _| Ok(()))?;
    answer.throttle_ms = reader.cursor.i32(WHAT)?;
    reader.tagged_fields(|_, _| Ok(()))?;
    if !reader.cursor.is_empty() {
        return Err(Error::corrupt(format!(
            "{} bytes are left after a Produce answer",
            reader.cursor.len()
        )));
    }
    Ok((correlation_id, answer))
}

const WHAT: &str = "a Produce answer";

/// Reads fields in either encoding.
struct AnswerReader<'a> {
    cursor: Cursor<'a>,
    flexible: bool,
}

impl<'a> AnswerReader<'a> {
    fn partition(&mut self, version: i16) -> Result<ProduceAnswer, Error> {
        let cursor = &mut self.cursor;
        let mut answer = ProduceAnswer {
            partition: cursor.i32(WHAT)?,
            error_code: cursor.i16(WHAT)?,
            base_offset: cursor.i64(WHAT)?,
            log_append_time: cursor.i64(WHAT)?,
            log_start_offset: -1,
            record_errors: Vec::new(),
            error_message: None,
            current_leader: None,
            throttle_ms: 0,
        };
        if version >= 5 {
            answer.log_start_offset = cursor.i64(WHAT)?;
        }
        if version >= 8 {
            answer.record_errors = self.record_errors()?;
            answer.error_message = self.string()?.map(String::from);
        }
        self.tagged_fields(|tag, mut field| {
            if tag == 0 && version >= 10 {
                answer.current_leader = Some((field.i32(WHAT)?, field.i32(WHAT)?));
            }
            Ok(())
        })?;
        answer.current_leader = answer.current_leader.filter(|&(node_id, _)| node_id >= 0);
        Ok(answer)
    }

    fn record_errors(&mut self) -> Result<Vec<RecordError>, Error> {
        // The count is not used to reserve memory: the loop ends where the bytes do.
        let count = self.array_len()?;
        let mut errors = Vec::new();
        for _ in 0..count {
            let batch_index = self.cursor.i32(WHAT)?;
            let message = self.string()?.map(String::from);
            self.tagged_fields(|_, _| Ok(()))?;
            errors.push(RecordError {
                batch_index,
                message,
            });
        }
        Ok(errors)
    }

    fn array_len(&mut self) -> Result<u32, Error> {
        if self.flexible {
            return Ok(self.cursor.unsigned_varint(WHAT)?.saturating_sub(1));
        }
        Ok(u32::try_from(self.cursor.i32(WHAT)?).unwrap_or(0))
    }

    fn one(&mut self, what: &str) -> Result<(), Error> {
        match self.array_len()? {
            1 => Ok(()),
            count => Err(Error::corrupt(format!(
                "a Produce answer for {count} {what} instead of one"
            ))),
        }
    }

    fn string(&mut self) -> Result<Option<&'a str>, Error> {
        let len = if self.flexible {
            self.cursor.unsigned_varint(WHAT)?.checked_sub(1)
        } else {
            u32::try_from(self.cursor.i16(WHAT)?).ok()
        };
        let Some(len) = len else {
            return Ok(None);
        };
        let bytes = self
            .cursor
            .take(usize::try_from(len).unwrap_or(usize::MAX), WHAT)?;
        let text = std::str::from_utf8(bytes)
            .map_err(|error| Error::corrupt(format!("{WHAT}: {error}")))?;
        Ok(Some(text))
    }

    /// Passes each tagged field to `field`; there are none in versions that are not flexible.
    fn tagged_fields(
        &mut self,
        mut field: impl FnMut(u32, Cursor<'a>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        if !self.flexible {
            return Ok(());
        }
        for _ in 0..self.cursor.unsigned_varint(WHAT)? {
            let tag = self.cursor.unsigned_varint(WHAT)?;
            let len = self.cursor.unsigned_varint(WHAT)?;
            field(
                tag,
                Cursor::new(
                    self.cursor
                        .take(usize::try_from(len).unwrap_or(usize::MAX), WHAT)?,
                ),
            )?;
        }
        Ok(())
    }
}
