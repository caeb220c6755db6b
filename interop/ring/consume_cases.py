"""confluent-kafka and kcat produce; `tidegate consume` reads, and what was sent says what it must print."""

import json
import random

from . import data
from .clients import CODECS, Message, Sender


def cases():
    for codec in CODECS:
        yield f"consume avro of confluent-kafka, {codec}", avro_case(codec)
        yield f"consume lines of kcat, {codec}", kcat_lines_case(codec)
    yield "consume json values", json_values
    yield "consume from an offset, at most so many", from_offset
    yield "consume from a time", from_time
    yield "consume committed transactions only", transactions


def keys_and_headers(chance: random.Random, i: int):
    """Keys and headers of every kind: text, beyond ASCII, empty, null, repeated names."""
    key = chance.choice([None, b"", b"key", f"clé-{i % 5}".encode(), f"鍵{i}".encode()])
    headers = [
        [],
        [("trace", f"id-{i}".encode())],
        [("trace", b"one"), ("trace", b"two"), ("empty", b""), ("null", None), ("naïve", "ö".encode())],
    ]
    return key, chance.choice(headers)


def avro_case(codec):
    """Every Avro type the CSV side knows, tombstones, keys, headers and timestamps; 4 partitions."""

    def case(ring):
        chance = random.Random(ring.seed)
        table = data.tricky(ring.seed + 7, 600)
        topic = ring.topic()
        ring.cluster.create_topic(topic, 4)
        encode = ring.cluster.encoder(topic, json.dumps(table.schema()))
        sender = Sender(ring.cluster.producer(codec), topic)
        values = {}
        for i, row in enumerate(table.rows):
            tombstone = i % 50 == 49
            payload = None if tombstone else encode(table.values(row, as_json=False))
            values[payload] = None if tombstone else table.values(row, as_json=True)
            key, headers = keys_and_headers(chance, i)
            sender.send(key, payload, headers, timestamp=1_700_000_000_000 + i, partition=i % 4)
        sent = sender.flush()
        done = ring.tidegate.consume(ring.cluster, topic, "--from", "beginning", "--until-end").expect(0)
        compare(ring, topic, done.lines(), sent, lambda message: values[message.value], table.from_json)
        ring.cluster.delete_topic(topic)

    return case


def kcat_lines_case(codec):
    """Plain lines, printed as they are stored."""

    def case(ring):
        topic = ring.topic()
        ring.cluster.create_topic(topic, 1)
        lines = [f"line {i} {'é' * (i % 7)}" for i in range(2000)]
        ring.cluster.produce_with_kcat(topic, codec, "\n".join(lines).encode() + b"\n")
        done = ring.tidegate.consume(ring.cluster, topic, "--until-end", "--format", "raw").expect(0)
        ring.equal(done.stdout.decode().split("\n")[:-1], lines, "the lines printed")
        ring.cluster.delete_topic(topic)

    return case


def json_values(ring):
    """JSON without a schema id is printed as the JSON it is."""
    topic = ring.topic()
    ring.cluster.create_topic(topic, 1)
    sender = Sender(ring.cluster.producer("lz4"), topic)
    table = data.tricky(ring.seed + 8, 200)
    values = {}
    for i, row in enumerate(table.rows):
        value = table.values(row, as_json=True)
        payload = json.dumps(value, ensure_ascii=False).encode()
        values[payload] = value
        sender.send(f"{i}".encode(), payload)
    sent = sender.flush()
    done = ring.tidegate.consume(ring.cluster, topic, "--until-end").expect(0)
    compare(ring, topic, done.lines(), sent, lambda message: values[message.value], table.from_json)
    ring.cluster.delete_topic(topic)


def numbered(ring, partitions=1, count=100) -> tuple[str, list[Message]]:
    """A topic of numbered records, a second apart."""
    topic = ring.topic()
    ring.cluster.create_topic(topic, partitions)
    sender = Sender(ring.cluster.producer(), topic)
    for i in range(count):
        value = json.dumps({"number": i}).encode()
        sender.send(None, value, timestamp=1_700_000_000_000 + 1000 * i, partition=i % partitions)
    return topic, sender.flush()


def number(message: Message):
    return json.loads(message.value)


def from_offset(ring):
    topic, sent = numbered(ring)
    done = ring.tidegate.consume(ring.cluster, topic, "--from", "40", "--max", "25").expect(0)
    compare(ring, topic, done.lines(), sent[40:65], number)
    ring.cluster.delete_topic(topic)


def from_time(ring):
    topic, sent = numbered(ring)
    # 1,700,000,000 is 2023-11-14T22:13:20Z: half a second after the tenth record, the eleventh is the first.
    done = ring.tidegate.consume(ring.cluster, topic, "--from", "2023-11-14T22:13:29.500Z", "--until-end").expect(0)
    compare(ring, topic, done.lines(), sent[10:], number)
    ring.cluster.delete_topic(topic)


def transactions(ring):
    """Committed, aborted and plain records between each other, from three producers, and one that stays open."""
    topic = ring.topic()
    ring.cluster.create_topic(topic, 2)
    named = {name: ring.cluster.producer("lz4", **{"transactional.id": f"{topic}-{name}"}) for name in ("one", "two")}
    for producer in named.values():
        producer.init_transactions(60)
    committed, aborted = [], []

    def send(producer, kind, i, kept):
        sender = Sender(producer, topic)
        for partition in (0, 1):
            sender.send(kind.encode(), json.dumps({"kind": kind, "i": i}).encode(), partition=partition)
        kept.extend(sender.flush())

    plain = ring.cluster.producer()
    for i in range(30):
        one, two = named["one"], named["two"]
        one.begin_transaction()
        two.begin_transaction()
        send(one, "one", i, committed if i % 3 else aborted)
        send(plain, "plain", i, committed)
        send(two, "two", i, aborted if i % 4 else committed)
        one.commit_transaction(60) if i % 3 else one.abort_transaction(60)
        two.abort_transaction(60) if i % 4 else two.commit_transaction(60)

    for isolation, expected in [("read_committed", committed), ("read_uncommitted", committed + aborted)]:
        found = ring.cluster.read(topic, **{"isolation.level": isolation})
        ring.equal([m.place() for m in found], [m.place() for m in sorted(expected)], f"confluent-kafka, {isolation}")
        done = ring.tidegate.consume(ring.cluster, topic, "--until-end", "--isolation", isolation).expect(0)
        compare(ring, topic, done.lines(), sorted(expected), number)
    ring.cluster.delete_topic(topic)


def compare(ring, topic, lines, sent, value_of, read_value=lambda value: value):
    """What was printed against what was sent, at the same partition and offset."""
    printed = {(line["partition"], line["offset"]): line for line in lines}
    ring.equal(len(printed), len(lines), "the number of different places printed")
    ring.equal(sorted(printed), [message.place() for message in sent], "the places printed")
    for partition in {line["partition"] for line in lines}:
        offsets = [line["offset"] for line in lines if line["partition"] == partition]
        ring.equal(offsets, sorted(offsets), f"the order of partition {partition}")
    for message in sent:
        line, where = printed[message.place()], f"at {message.place()}"
        ring.equal(line["topic"], topic, f"the topic {where}")
        ring.equal(line["timestamp"], message.timestamp, f"the timestamp {where}")
        ring.equal(line["key"], None if message.key is None else message.key.decode(), f"the key {where}")
        ring.equal(headers_of(line), [(n, None if v is None else v.decode()) for n, v in message.headers], f"the headers {where}")
        found = line["value"] and read_value(line["value"])
        ring.equal(found, value_of(message), f"the value {where}")


def headers_of(line) -> list[tuple[str, str | None]]:
    return [(header["name"], header["value"]) for header in line["headers"]]
