//! Frames: Kafka's requests and answers, each preceded by its length in 4 bytes.

use std::io::{self, Read};

use crate::error::{Error, Kind};

/// The largest frame taken by default, as the default of a broker's `socket.request.max.bytes`.
pub const MAX_FRAME: usize = 100 * 1024 * 1024;

/// Bytes of the length before a frame.
pub const LENGTH_LEN: usize = 4;

/// Reads the length before a frame.
///
/// # Errors
/// [`Kind::Corrupt`] if it is negative, [`Kind::TooLarge`] if it exceeds `limit`. Both usually mean that the
/// other side speaks another protocol (TLS or HTTP, say).
pub fn parse_length(bytes: [u8; LENGTH_LEN], limit: usize) -> Result<usize, Error> {
    let length = i32::from_be_bytes(bytes);
    let len = usize::try_from(length).map_err(|_| {
        Error::corrupt(format!(
            "a frame of {length} bytes: the other side does not speak Kafka"
        ))
    })?;
    if len > limit {
        return Err(Error::new(
            Kind::TooLarge,
            format!("a frame of {len} bytes, over the limit of {limit}"),
        ));
    }
    Ok(len)
}

/// Replaces the content of `buffer` by the next frame, without its length.
///
/// Memory grows with the bytes that arrive, not with the length that was announced.
///
/// # Errors
/// As the reader's; `InvalidData` for a length as in [`parse_length`]; `UnexpectedEof` if the stream ends, be
/// it before or within the frame. After any error part of a frame may have been read: the stream is of no
/// more use.
pub fn read_frame(reader: &mut impl Read, limit: usize, buffer: &mut Vec<u8>) -> io::Result<()> {
    let mut length = [0; LENGTH_LEN];
    reader.read_exact(&mut length)?;
    let len = parse_length(length, limit)?;
    buffer.clear();
    reader.take(len as u64).read_to_end(buffer)?;
    if buffer.len() < len {
        let message = format!(
            "the stream ended after {} of {len} bytes of a frame",
            buffer.len()
        );
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, message));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_follow_each_other() {
        let mut stream: &[u8] = &[0, 0, 0, 2, 7, 8, 0, 0, 0, 0, 0, 0, 0, 1, 9];
        let mut buffer = vec![1, 2, 3];
        for expected in [&[7, 8][..], &[], &[9]] {
            read_frame(&mut stream, 16, &mut buffer).unwrap();
            assert_eq!(buffer, expected);
        }
        let error = read_frame(&mut stream, 16, &mut buffer).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_length_is_not_trusted() {
        let mut buffer = Vec::new();
        let announced = u32::try_from(MAX_FRAME).unwrap().to_be_bytes();
        let error = read_frame(&mut &announced[..], MAX_FRAME, &mut buffer).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        assert!(buffer.capacity() < 64 * 1024, "{}", buffer.capacity());

        assert_eq!(
            parse_length([0, 0, 1, 0], 255).unwrap_err().kind(),
            Kind::TooLarge
        );
        assert_eq!(
            parse_length([0xff; 4], 255).unwrap_err().kind(),
            Kind::Corrupt
        );
        assert_eq!(
            parse_length(*b"HTTP", MAX_FRAME).unwrap_err().kind(),
            Kind::TooLarge
        );
    }
}
