"""Reading and producing with clients that are not ours: confluent-kafka and kcat."""

import dataclasses
import functools
import subprocess
import time
import uuid

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]
PATIENCE = 60.0


@dataclasses.dataclass(frozen=True, order=True)
class Message:
    """One record as a client showed it, ordered by partition and offset."""

    partition: int
    offset: int
    timestamp: int
    key: bytes | None = dataclasses.field(compare=False)
    value: bytes | None = dataclasses.field(compare=False)
    headers: list[tuple[str, bytes | None]] = dataclasses.field(compare=False, default_factory=list)

    def place(self):
        return self.partition, self.offset


@dataclasses.dataclass(frozen=True)
class Cluster:
    """Where the brokers and the registry are, and what they are asked."""

    name: str
    bootstrap: str
    registry_url: str

    def registry(self) -> SchemaRegistryClient:
        # Without a time-out an answer that Apicurio loses, which happens, is waited for until the connection ends: minutes. With one it is asked for again.
        return SchemaRegistryClient({"url": self.registry_url, "timeout": 10})

    @functools.cached_property
    def admin(self) -> AdminClient:
        # Kept for the whole run: an answer that is waited for dies with the client that asked.
        return AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 2})

    def create_topic(self, topic: str, partitions: int) -> None:
        self.admin.create_topics([NewTopic(topic, partitions, 1)])[topic].result(PATIENCE)
        deadline = time.monotonic() + PATIENCE
        while self.partitions(topic) != partitions:
            assert time.monotonic() < deadline, f"{topic} did not appear"
            time.sleep(0.05)

    def delete_topic(self, topic: str) -> None:
        self.admin.delete_topics([topic])[topic].result(PATIENCE)

    def partitions(self, topic: str) -> int:
        found = self.admin.list_topics(topic, timeout=PATIENCE).topics[topic]
        return 0 if found.error else len(found.partitions)

    def consumer(self, group: str | None = None, **settings) -> Consumer:
        return Consumer(
            {
                "bootstrap.servers": self.bootstrap,
                "group.id": group or f"interop-{uuid.uuid4()}",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "earliest",
                "isolation.level": "read_committed",
                "check.crcs": True,
            }
            | settings
        )

    def producer(self, codec="none", **settings) -> Producer:
        return Producer({"bootstrap.servers": self.bootstrap, "compression.type": codec, "linger.ms": 20} | settings)

    def read(self, topic: str, **settings) -> list[Message]:
        """All records of a topic, by confluent-kafka."""
        consumer = self.consumer(**settings)
        open_partitions = set(range(self.partitions(topic)))
        assert open_partitions, f"{topic} is not there"
        consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in open_partitions])
        found = []
        deadline = time.monotonic() + PATIENCE
        while open_partitions:
            assert time.monotonic() < deadline, f"partitions {open_partitions} of {topic} did not end"
            for message in consumer.consume(1000, timeout=0.1):
                if message.error() is None:
                    found.append(from_confluent(message))
                elif message.error().code() == KafkaError._PARTITION_EOF:
                    open_partitions.discard(message.partition())
                else:
                    raise KafkaException(message.error())
        consumer.close()
        return sorted(found)

    def read_with_kcat(self, topic: str) -> list[Message]:
        """All records of a topic, by kcat. Lengths stand before the bytes, so that any byte may stand in them."""
        output = self._kcat("-C", "-t", topic, "-e", "-o", "beginning", "-f", "%p %o %T %K %S %k%s\n", "-X", "check.crcs=true")
        found, at = [], 0
        while at < len(output):
            numbers = []
            for _ in range(5):
                end = output.index(b" ", at)
                numbers.append(int(output[at:end]))
                at = end + 1
            partition, offset, timestamp, key_len, value_len = numbers
            key, at = _cut(output, at, key_len)
            value, at = _cut(output, at, value_len)
            assert output[at : at + 1] == b"\n"
            at += 1
            found.append(Message(partition, offset, timestamp, key, value))
        return sorted(found)

    def produce_with_kcat(self, topic: str, codec: str, lines: bytes, *options: str) -> None:
        self._kcat("-P", "-t", topic, "-z", codec, *options, input=lines)

    def _kcat(self, *arguments, input=None) -> bytes:
        command = ["kcat", "-q", "-b", self.bootstrap, *arguments]
        done = subprocess.run(command, input=input, capture_output=True, timeout=PATIENCE)
        assert done.returncode == 0, f"{' '.join(command)}: {done.stderr.decode()}"
        return done.stdout

    def decoder(self, topic: str):
        """Decodes a value as any Confluent client does: by the schema id in front of it."""
        deserializer = AvroDeserializer(self.registry())
        context = SerializationContext(topic, MessageField.VALUE)
        return lambda message: deserializer(message.value, context)

    def encoder(self, topic: str, schema: str, field=MessageField.VALUE):
        """Encodes a value, or a key, registering its schema under the topic's subject."""
        serializer = AvroSerializer(self.registry(), schema)
        context = SerializationContext(topic, field)
        return lambda value: serializer(value, context)

    def committed(self, group: str, topic: str) -> dict[int, int | None]:
        consumer = self.consumer(group)
        asked = [TopicPartition(topic, partition) for partition in range(self.partitions(topic))]
        answered = consumer.committed(asked, timeout=PATIENCE)
        consumer.close()
        return {entry.partition: entry.offset if entry.offset >= 0 else None for entry in answered}

    def commit(self, group: str, topic: str, offsets: dict[int, int]) -> None:
        consumer = self.consumer(group)
        entries = [TopicPartition(topic, partition, offset) for partition, offset in offsets.items()]
        for entry in consumer.commit(offsets=entries, asynchronous=False):
            assert entry.error is None, entry.error
        consumer.close()


def _cut(output: bytes, at: int, length: int) -> tuple[bytes | None, int]:
    return (None, at) if length < 0 else (output[at : at + length], at + length)


def from_confluent(message) -> Message:
    _, timestamp = message.timestamp()
    headers = [(name, value) for name, value in message.headers() or []]
    return Message(message.partition(), message.offset(), timestamp, message.key(), message.value(), headers)


class Sender:
    """Produces and keeps what the broker said each record became."""

    def __init__(self, producer: Producer, topic: str):
        self.producer = producer
        self.topic = topic
        self.delivered: list[Message] = []

    def send(self, key, value, headers=(), timestamp=0, partition=None) -> None:
        def on_delivery(error, message):
            assert error is None, error
            # The message given back does not always hold its headers: keep those that were sent.
            self.delivered.append(
                Message(message.partition(), message.offset(), message.timestamp()[1], key, value, list(headers))
            )

        place = {} if partition is None else {"partition": partition}
        while True:
            try:
                self.producer.produce(
                    self.topic, value, key, headers=list(headers), timestamp=timestamp, on_delivery=on_delivery, **place
                )
                return
            except BufferError:
                self.producer.poll(0.1)

    def flush(self) -> list[Message]:
        left = self.producer.flush(PATIENCE)
        assert left == 0, f"{left} records were not delivered"
        return sorted(self.delivered)
