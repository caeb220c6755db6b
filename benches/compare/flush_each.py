"""flush_each.py FILE BOOTSTRAP TOPIC REGISTRY: a load that serializes, produces and flushes row by row.

This is what many a first script does: each row waits for its own acknowledgement.
"""

import csv
import pathlib
import sys

from confluent_kafka import Producer
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext


def main() -> None:
    file, bootstrap, topic, registry = sys.argv[1:]
    schema = (pathlib.Path(__file__).parent / "rows.avsc").read_text()
    serializer = AvroSerializer(SchemaRegistryClient({"url": registry}), schema)
    context = SerializationContext(topic, MessageField.VALUE)
    producer = Producer({"bootstrap.servers": bootstrap, "acks": "all"})
    failed = []

    def report(error, _message):
        if error is not None:
            failed.append(error)

    with open(file, newline="") as lines:
        for row in csv.DictReader(lines):
            row |= {"timestamp": int(row["timestamp"]), "cpu": float(row["cpu"]), "mem": float(row["mem"])}
            producer.produce(topic, serializer(row, context), str(row["timestamp"]), on_delivery=report)
            producer.flush()
    sys.exit(f"{len(failed)} records were not delivered: {failed[0]}" if failed else 0)


if __name__ == "__main__":
    main()
