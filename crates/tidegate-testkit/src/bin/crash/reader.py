# Prints the committed records of a topic: partition, offset, lengths, key, and the Avro value as JSON.
# Arguments: HOST:PORT, registry URL, topic.
import io
import json
import struct
import sys
import time
import urllib.request
import uuid

import fastavro
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

bootstrap, registry, topic = sys.argv[1:]
consumer = Consumer({
    "bootstrap.servers": bootstrap,
    "group.id": f"crash-{uuid.uuid4()}",
    "enable.auto.commit": False,
    "enable.partition.eof": True,
    "isolation.level": "read_committed",
    "check.crcs": True,
    "fetch.wait.max.ms": 10,
})
schemas = {}


def schema(number):
    if number not in schemas:
        with urllib.request.urlopen(f"{registry}/schemas/ids/{number}", timeout=30) as answer:
            schemas[number] = fastavro.parse_schema(json.loads(json.load(answer)["schema"]))
    return schemas[number]


open_partitions = set(consumer.list_topics(topic, timeout=30).topics[topic].partitions)
consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in open_partitions])
deadline = time.monotonic() + 120
out = sys.stdout.buffer
while open_partitions:
    assert time.monotonic() < deadline, f"partitions {open_partitions} did not end"
    for message in consumer.consume(5000, timeout=0.1):
        if message.error() is not None:
            if message.error().code() != KafkaError._PARTITION_EOF:
                raise KafkaException(message.error())
            open_partitions.discard(message.partition())
            continue
        magic, number = struct.unpack(">bI", message.value()[:5])
        assert magic == 0, message.value()
        stream = io.BytesIO(message.value()[5:])
        value = json.dumps(fastavro.schemaless_reader(stream, schema(number))).encode()
        assert not stream.read(), "bytes behind the value"
        key = message.key() or b""
        out.write(b"%d %d %d %d %s%s\n" % (message.partition(), message.offset(), len(key), len(value), key, value))
out.flush()
consumer.close()
