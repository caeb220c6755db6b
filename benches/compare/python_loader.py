"""python_loader.py FILE BOOTSTRAP TOPIC SCHEMA_ID: the same load with csv, fastavro and confluent-kafka.

Written as such scripts are when speed matters: one schema parsed once, one buffer, settings for throughput.
"""

import csv
import io
import json
import pathlib
import struct
import sys

import fastavro
from confluent_kafka import Producer


def main() -> None:
    file, bootstrap, topic, schema_id = sys.argv[1:]
    schema = fastavro.parse_schema(json.loads((pathlib.Path(__file__).parent / "rows.avsc").read_text()))
    frame = struct.pack(">bI", 0, int(schema_id))
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "acks": "all",
            "enable.idempotence": True,
            "compression.type": "lz4",
            "partitioner": "murmur2_random",
            "linger.ms": 50,
            "batch.size": 1_000_000,
            "batch.num.messages": 100_000,
            "queue.buffering.max.messages": 1_000_000,
        }
    )
    buffer = io.BytesIO()
    with open(file, newline="") as lines:
        rows = csv.reader(lines)
        next(rows)
        for number, (timestamp, container_id, machine_id, cpu, mem) in enumerate(rows):
            record = {
                "timestamp": int(timestamp),
                "container_id": container_id,
                "machine_id": machine_id,
                "cpu": float(cpu),
                "mem": float(mem),
            }
            buffer.seek(0)
            buffer.truncate()
            buffer.write(frame)
            fastavro.schemaless_writer(buffer, schema, record)
            while True:
                try:
                    producer.produce(topic, buffer.getvalue(), timestamp)
                    break
                except BufferError:
                    producer.poll(0.05)
            if number % 10_000 == 0:
                producer.poll(0)
    left = producer.flush(600)
    sys.exit(f"{left} records were not delivered" if left else 0)


if __name__ == "__main__":
    main()
