//! Each codec against itself and against another implementation of its container.

#![expect(
    clippy::unwrap_used,
    reason = "a test or a measurement that cannot go on fails"
)]

use std::io::{Read, Write};

use flate2::Compression as GzipLevel;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use lz4_flex::frame::{BlockMode, BlockSize, FrameDecoder, FrameEncoder, FrameInfo};
use proptest::collection::vec;
use proptest::prelude::*;
use tidegate_wire::{BatchBuilder, Compression, Compressor, Kind, decompress};

/// Input that compresses well, badly, and partly, up to a few blocks of each codec long.
fn input() -> impl Strategy<Value = Vec<u8>> {
    let repeated =
        (vec(any::<u8>(), 1..40), 0..6000_usize).prop_map(|(unit, times)| unit.repeat(times));
    let mixed = vec((vec(any::<u8>(), 0..90), 0..120_usize), 0..40).prop_map(|parts| {
        parts
            .into_iter()
            .flat_map(|(unit, times)| unit.repeat(times))
            .collect()
    });
    prop_oneof![vec(any::<u8>(), 0..3000), repeated, mixed]
}

fn lz4_frames() -> impl Strategy<Value = FrameInfo> {
    let sizes = prop_oneof![
        Just(BlockSize::Max64KB),
        Just(BlockSize::Max256KB),
        Just(BlockSize::Max4MB)
    ];
    (sizes, any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
        |(size, linked, block_checksums, content_checksum)| {
            FrameInfo::new()
                .block_size(size)
                .block_mode(if linked {
                    BlockMode::Linked
                } else {
                    BlockMode::Independent
                })
                .block_checksums(block_checksums)
                .content_checksum(content_checksum)
        },
    )
}

/// What another implementation makes of our compressed bytes.
fn decompress_elsewhere(codec: Compression, input: &[u8]) -> Vec<u8> {
    let mut output = Vec::new();
    match codec {
        Compression::None => output.extend_from_slice(input),
        Compression::Gzip => drop(MultiGzDecoder::new(input).read_to_end(&mut output).unwrap()),
        Compression::Lz4 => drop(FrameDecoder::new(input).read_to_end(&mut output).unwrap()),
        Compression::Zstd => drop(
            zstd::Decoder::new(input)
                .unwrap()
                .read_to_end(&mut output)
                .unwrap(),
        ),
        Compression::Snappy => {
            let (header, mut rest) = input.split_at(16);
            assert_eq!(header, b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01");
            while let Some((length, blocks)) = rest.split_first_chunk::<4>() {
                let (block, after) = blocks.split_at(u32::from_be_bytes(*length) as usize);
                output.extend(snap::raw::Decoder::new().decompress_vec(block).unwrap());
                rest = after;
            }
        }
    }
    output
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_compressed_comes_back(inputs in vec(input(), 1..4)) {
        let mut compressor = Compressor::new();
        let (mut compressed, mut output) = (Vec::new(), Vec::new());
        for codec in Compression::ALL {
            for input in &inputs {
                compressor.compress(codec, input, &mut compressed).unwrap();
                prop_assert!(decompress_elsewhere(codec, &compressed) == *input, "{} elsewhere", codec);
                decompress(codec, &compressed, input.len(), &mut output).unwrap();
                prop_assert!(output == *input, "{} here", codec);
            }
        }
    }

    #[test]
    fn the_limit_is_held(input in input(), missing in 1..1000_usize) {
        prop_assume!(!input.is_empty());
        let limit = input.len().saturating_sub(missing);
        let mut compressed = Vec::new();
        for codec in Compression::ALL {
            Compressor::new().compress(codec, &input, &mut compressed).unwrap();
            let mut output = Vec::new();
            let error = decompress(codec, &compressed, limit, &mut output).unwrap_err();
            prop_assert_eq!(error.kind(), Kind::TooLarge, "{}: {}", codec, error);
            prop_assert!(output.capacity() <= limit, "{}: {} for {}", codec, output.capacity(), limit);
        }
    }

    #[test]
    fn lz4_frames_of_another_writer_are_read(input in input(), frames in lz4_frames()) {
        let mut encoder = FrameEncoder::with_frame_info(frames, Vec::new());
        encoder.write_all(&input).unwrap();
        let mut compressed = encoder.finish().unwrap();
        let mut output = Vec::new();
        decompress(Compression::Lz4, &compressed, input.len(), &mut output).unwrap();
        prop_assert!(output == input);

        // A skippable frame, and the same frame once more.
        let again = compressed.clone();
        compressed.extend_from_slice(&[0x5f, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3]);
        compressed.extend_from_slice(&again);
        decompress(Compression::Lz4, &compressed, 2 * input.len(), &mut output).unwrap();
        prop_assert!(output == input.repeat(2));
    }

    #[test]
    fn streams_may_be_concatenated(first in input(), second in input()) {
        for codec in [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd] {
            let (mut one, mut two, mut output) = (Vec::new(), Vec::new(), Vec::new());
            let mut compressor = Compressor::new();
            compressor.compress(codec, &first, &mut one).unwrap();
            compressor.compress(codec, &second, &mut two).unwrap();
            one.append(&mut two);
            decompress(codec, &one, 1 << 24, &mut output).unwrap();
            prop_assert!(output == [&first[..], &second[..]].concat(), "{}", codec);
        }
    }
}

/// 256 MiB of zeros in each codec's densest form, and in a form that lies about its size.
#[test]
fn bombs_stop_at_the_limit() {
    const LIMIT: usize = 1 << 20;
    let zeros = vec![0; 16 << 20];
    for codec in [
        Compression::Gzip,
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd,
    ] {
        let mut part = Vec::new();
        Compressor::new()
            .compress(codec, &zeros, &mut part)
            .unwrap();
        let bomb = part.repeat(16);
        let mut output = Vec::new();
        let error = decompress(codec, &bomb, LIMIT, &mut output).unwrap_err();
        assert_eq!(error.kind(), Kind::TooLarge, "{codec}: {error}");
        assert!(output.capacity() <= LIMIT, "{codec}: {}", output.capacity());
    }
}

#[test]
fn announced_sizes_are_not_believed() {
    const LIMIT: usize = 1 << 30;
    // A snappy block that announces 512 MiB, bare and framed.
    let block = [0x80, 0x80, 0x80, 0x80, 0x02, 0x00, b'a'];
    let framed = [&b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01\0\0\0\x07"[..], &block].concat();
    // A zstd frame of one raw byte whose header announces 512 MiB in one segment.
    let zstd = [
        0x28, 0xb5, 0x2f, 0xfd, 0xa0, 0, 0, 0, 0x20, 0x09, 0, 0, b'a',
    ];
    // An LZ4 frame with blocks of up to 4 MiB and 1 TiB of content announced.
    let lz4 = [
        0x04, 0x22, 0x4d, 0x18, 0x68, 0x70, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 2, 0, 0, 0, 0x10, b'a',
        0, 0, 0, 0,
    ];
    let cases: [(Compression, &[u8]); 4] = [
        (Compression::Snappy, &block),
        (Compression::Snappy, &framed),
        (Compression::Zstd, &zstd),
        (Compression::Lz4, &lz4),
    ];
    for (codec, bytes) in cases {
        let mut output = Vec::new();
        let result = decompress(codec, bytes, LIMIT, &mut output);
        assert!(
            output.capacity() < 1 << 20,
            "{codec}: {} bytes reserved, {result:?}",
            output.capacity()
        );
    }
}

#[test]
fn a_bare_snappy_block_is_read() {
    let input = b"tide ".repeat(1000);
    let compressed = snap::raw::Encoder::new().compress_vec(&input).unwrap();
    let mut output = Vec::new();
    decompress(Compression::Snappy, &compressed, input.len(), &mut output).unwrap();
    assert_eq!(output, input);
}

#[test]
fn gzip_with_all_its_optional_fields_is_read() {
    let mut encoder = flate2::GzBuilder::new()
        .filename("usage.csv")
        .comment("made elsewhere")
        .extra(vec![1, 2, 3])
        .write(Vec::new(), GzipLevel::best());
    encoder.write_all(b"tide").unwrap();
    let mut compressed = encoder.finish().unwrap();
    let mut second = GzEncoder::new(Vec::new(), GzipLevel::none());
    second.write_all(b"gate").unwrap();
    compressed.extend(second.finish().unwrap());
    let mut output = Vec::new();
    decompress(Compression::Gzip, &compressed, 8, &mut output).unwrap();
    assert_eq!(output, b"tidegate");
}

#[test]
fn a_body_that_does_not_shrink_stays_as_it_is() {
    let mut compressor = Compressor::new();
    for codec in Compression::ALL {
        let mut builder = BatchBuilder::with_buffer(Vec::new(), 0);
        builder.append(None, None, Some(b"x"), &[]);
        let mut body = builder.finish();
        let before = body.clone();
        let spare = body.compress(&mut compressor, codec, Vec::with_capacity(64));
        assert_eq!(body, before, "{codec}");
        assert!(
            spare.capacity() >= 64,
            "the spare buffer comes back for reuse"
        );

        let mut builder = BatchBuilder::with_buffer(spare, 0);
        for _ in 0..1000 {
            builder.append(None, Some(b"key"), Some(b"value"), &[]);
        }
        let mut body = builder.finish();
        let len = body.records.len();
        let spare = body.compress(&mut compressor, codec, Vec::new());
        assert_eq!(body.compression, codec);
        assert!(
            codec == Compression::None || body.records.len() < len / 2 && spare.capacity() >= len,
            "{codec}"
        );
    }
}

#[test]
fn names_and_numbers_go_both_ways() {
    for codec in Compression::ALL {
        assert_eq!(codec.to_string().parse::<Compression>().unwrap(), codec);
        assert_eq!(
            Compression::from_attribute_bits(codec.attribute_bits()).unwrap(),
            codec
        );
    }
    assert_eq!(
        Compression::from_attribute_bits(5).unwrap_err().kind(),
        Kind::Unsupported
    );
    let error = "brotli".parse::<Compression>().unwrap_err();
    assert_eq!(
        error.to_string(),
        "no compression is called \"brotli\"; there are none, gzip, snappy, lz4, zstd"
    );
}
