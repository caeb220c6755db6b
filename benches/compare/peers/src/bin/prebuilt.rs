//! `prebuilt BOOTSTRAP TOPIC PARTITIONS RECORDS`: sends batches that were built before the clock that matters
//! starts, which shows what the broker can take at most.
//!
//! A few dozen different batches of a load's records, compressed with lz4, go out again and again with new
//! sequence numbers, idempotent, acks=all, five in flight per partition. One connection to the one broker there
//! is. On its last line it prints the seconds from the first byte sent to the last answer.

use std::collections::VecDeque;
use std::error::Error;
use std::io::{BufReader, IoSlice, Write};
use std::net::TcpStream;
use std::time::Instant;

use tidegate_compare_peers::{Numbers, Row, encode};
use tidegate_wire::produce::{self, ProduceRequest, TopicRef};
use tidegate_wire::{
    BatchBody, BatchBuilder, Compression, Compressor, ProducerStamp, encode_header, frame,
};

const VARIETY: usize = 48;
const BATCH_BYTES: usize = 1_000_000;
const IN_FLIGHT: usize = 5;
const PRODUCE_VERSION: i16 = 12;
const CLIENT_ID: &str = "prebuilt";

fn build(numbers: &mut Numbers, timestamp: i64) -> BatchBody {
    let mut builder = BatchBuilder::with_buffer(Vec::with_capacity(BATCH_BYTES), timestamp);
    let key = timestamp.to_string();
    let mut value = Vec::new();
    loop {
        let container = numbers.below(1000);
        let (container_id, machine_id) =
            (format!("c_{container}"), format!("n_{}", container % 50));
        let row = Row {
            timestamp,
            container_id: container_id.as_bytes(),
            machine_id: machine_id.as_bytes(),
            cpu: numbers.below(40_000) as f64 / 10_000.0,
            mem: numbers.below(40_000) as f64 / 10_000.0,
        };
        encode(&mut value, 1, &row);
        if builder.body_len() + builder.encoded_len(None, Some(key.as_bytes()), Some(&value), &[])
            > BATCH_BYTES
        {
            let mut body = builder.finish();
            drop(body.compress(&mut Compressor::new(), Compression::Lz4, Vec::new()));
            return body;
        }
        builder.append(None, Some(key.as_bytes()), Some(&value), &[]);
    }
}

/// One connection, and what is under way on it.
struct Sender<'a> {
    topic: &'a str,
    writer: TcpStream,
    reader: BufReader<TcpStream>,
    producer: (i64, i16),
    correlation_id: i32,
    waiting: VecDeque<i32>,
    answer: Vec<u8>,
}

impl<'a> Sender<'a> {
    fn open(bootstrap: &str, topic: &'a str) -> Result<Self, Box<dyn Error>> {
        let writer = TcpStream::connect(bootstrap)?;
        writer.set_nodelay(true)?;
        let reader = BufReader::new(writer.try_clone()?);
        let mut sender = Self {
            topic,
            writer,
            reader,
            producer: (-1, -1),
            correlation_id: 0,
            waiting: VecDeque::new(),
            answer: Vec::new(),
        };
        sender.producer = sender.init_producer_id()?;
        Ok(sender)
    }

    /// InitProducerId, version 1, without a transactional id.
    fn init_producer_id(&mut self) -> Result<(i64, i16), Box<dyn Error>> {
        let mut request = Vec::new();
        request.extend_from_slice(&22_i16.to_be_bytes());
        request.extend_from_slice(&1_i16.to_be_bytes());
        request.extend_from_slice(&0_i32.to_be_bytes());
        request.extend_from_slice(&(CLIENT_ID.len() as i16).to_be_bytes());
        request.extend_from_slice(CLIENT_ID.as_bytes());
        request.extend_from_slice(&(-1_i16).to_be_bytes());
        request.extend_from_slice(&60_000_i32.to_be_bytes());
        self.writer
            .write_all(&(request.len() as u32).to_be_bytes())?;
        self.writer.write_all(&request)?;
        frame::read_frame(&mut self.reader, frame::MAX_FRAME, &mut self.answer)?;
        // Correlation id, throttle time, error code, producer id, epoch.
        let answer: [u8; 20] = self.answer[..].try_into()?;
        let error = i16::from_be_bytes([answer[8], answer[9]]);
        if error != 0 {
            return Err(format!("InitProducerId: error {error}").into());
        }
        Ok((
            i64::from_be_bytes(answer[10..18].try_into()?),
            i16::from_be_bytes([answer[18], answer[19]]),
        ))
    }

    fn send(
        &mut self,
        partition: i32,
        sequence: i32,
        body: &BatchBody,
    ) -> Result<(), Box<dyn Error>> {
        let (producer_id, epoch) = self.producer;
        let stamp = ProducerStamp {
            producer_id,
            epoch,
            base_sequence: sequence,
            transactional: false,
        };
        self.correlation_id += 1;
        let request = ProduceRequest {
            client_id: Some(CLIENT_ID),
            transactional_id: None,
            acks: -1,
            timeout_ms: 30_000,
            topic: TopicRef {
                name: self.topic,
                id: [0; 16],
            },
            partition,
            batch_header: &encode_header(body, stamp),
            body_len: body.records.len(),
        };
        let prefix = produce::prefix(PRODUCE_VERSION, self.correlation_id, &request)?;
        let trailer = produce::trailer(PRODUCE_VERSION);
        let mut parts = [
            IoSlice::new(&prefix),
            IoSlice::new(&body.records),
            IoSlice::new(trailer),
        ];
        let mut left = &mut parts[..];
        while !left.is_empty() {
            let count = self.writer.write_vectored(left)?;
            IoSlice::advance_slices(&mut left, count);
        }
        self.waiting.push_back(self.correlation_id);
        Ok(())
    }

    fn receive(&mut self) -> Result<(), Box<dyn Error>> {
        frame::read_frame(&mut self.reader, frame::MAX_FRAME, &mut self.answer)?;
        let (correlation_id, answer) = produce::parse_answer(PRODUCE_VERSION, &self.answer)?;
        if Some(correlation_id) != self.waiting.pop_front() || answer.error_code != 0 {
            return Err(format!("unexpected answer: {answer:?}").into());
        }
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [bootstrap, topic, partitions, records] = &arguments[..] else {
        return Err("usage: prebuilt BOOTSTRAP TOPIC PARTITIONS RECORDS".into());
    };
    let (partitions, records): (usize, u64) = (partitions.parse()?, records.parse()?);
    let mut numbers = Numbers::new();
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)?
        .as_millis() as i64;
    let bodies: Vec<BatchBody> = (0..VARIETY).map(|_| build(&mut numbers, now)).collect();

    let mut sender = Sender::open(bootstrap, topic)?;
    let mut sequences = vec![0_i32; partitions];
    let mut sent = 0;
    let start = Instant::now();
    for (number, body) in bodies.iter().cycle().enumerate() {
        if sent >= records {
            break;
        }
        if sender.waiting.len() == IN_FLIGHT * partitions {
            sender.receive()?;
        }
        let partition = number % partitions;
        sender.send(partition as i32, sequences[partition], body)?;
        sequences[partition] += body.record_count as i32;
        sent += u64::from(body.record_count);
    }
    while !sender.waiting.is_empty() {
        sender.receive()?;
    }
    let seconds = start.elapsed().as_secs_f64();
    println!("{{\"records\":{sent},\"seconds\":{seconds:.3}}}");
    Ok(())
}
