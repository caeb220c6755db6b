"""tidegate publishes; confluent-kafka and kcat read, and the CSV says what they must find."""

import json
import struct

from confluent_kafka.serialization import MessageField

from . import data, murmur2
from .clients import CODECS, Message

# Keyless records go to one partition in runs of this many (docs/DESIGN.md).
KEYLESS_RUN = 4096


def cases():
    yield "our murmur2 is librdkafka's", murmur2_as_librdkafka
    for codec in CODECS:
        yield f"avro rows, 1 partition, {codec}", rows_case(data.usage, 1, "avro", ["--compression", codec])
        yield f"avro tricky rows, 4 partitions, {codec}", rows_case(data.tricky, 4, "avro", ["--compression", codec])
    for partitions in (1, 4):
        yield f"avro rows, {partitions} partitions", rows_case(data.usage, partitions, "avro")
        yield f"json rows, {partitions} partitions", rows_case(data.usage, partitions, "json")
        yield f"json tricky rows, {partitions} partitions", rows_case(data.tricky, partitions, "json")
        for value_format in ("avro", "json"):
            yield f"{value_format} grouped, {partitions} partitions", grouped_case(partitions, value_format)
            name = f"{value_format} grouped by two columns, {partitions} partitions"
            yield name, grouped_by_two_case(partitions, value_format)
    yield "avro grouped, inferred schema", grouped_inferred
    yield "avro rows, inferred schema", inferred
    yield "avro tricky rows, CRLF", crlf
    yield "keys of two columns", two_key_columns
    yield "avro keys of one column", avro_keys("timestamp")
    yield "avro keys of two columns", avro_keys("machine_id", "timestamp")
    yield "empty key cells are null keys", empty_keys
    yield "no keys, 4 partitions", no_keys
    yield "rows published twice follow each other", twice


def rows_case(make, partitions, value_format, options=()):
    """One record a row, keyed by the timestamp column or by the id."""

    def case(ring):
        table = make(ring.seed, 3000 if make is data.usage else 900)
        key = table.columns[0].name
        expected = [(table.cell(row, key).encode(), table.values(row, value_format == "json")) for row in table.rows]
        publish(ring, table, partitions, value_format, table.schema(), ["--key", key, *options], expected)

    return case


def grouped_case(partitions, value_format):
    """One record a tick, keyed by it; a field that no column fills has its default."""

    def case(ring):
        table = data.usage(ring.seed, 3000)
        fields = [column.field() for column in table.columns]
        item = {"type": "record", "name": "Container", "fields": fields}
        schema = {
            "type": "record",
            "name": "Tick",
            "namespace": "interop",
            "fields": [
                {"name": "timestamp", "type": "long"},
                {"name": "containers", "type": {"type": "array", "items": item}},
                {"name": "file", "type": "boolean", "default": False},
            ],
        }
        expected = []
        for rows in table.groups(["timestamp"]):
            head = table.values(rows[0], value_format == "json", ["timestamp"])
            containers = [table.values(row, value_format == "json") for row in rows]
            expected.append((rows[0][0].encode(), head | {"containers": containers, "file": False}))
        publish(ring, table, partitions, value_format, schema, ["--group-by", "timestamp"], expected)

    return case


def grouped_by_two_case(partitions, value_format):
    """One record a tick and machine; the key is the JSON array of both cells."""
    names = ["timestamp", "machine_id"]
    rest = ["container_id", "cpu", "mem"]

    def case(ring):
        table = data.usage(ring.seed, 1000)
        by_name = {column.name: column.field() for column in table.columns}
        item = {"type": "record", "name": "Load", "fields": [by_name[name] for name in rest]}
        array = {"name": "loads", "type": {"type": "array", "items": item}}
        schema = {"type": "record", "name": "Machine", "fields": [by_name[name] for name in names] + [array]}
        expected = []
        for rows in table.groups(names):
            head = table.values(rows[0], value_format == "json", names)
            loads = [table.values(row, value_format == "json", rest) for row in rows]
            expected.append((json_key(table, rows[0], names), head | {"loads": loads}))
        publish(ring, table, partitions, value_format, schema, ["--group-by", ",".join(names)], expected)

    return case


def grouped_inferred(ring):
    """Without a schema: the group's columns, then `rows`, an array of records of all columns."""
    table = data.usage(ring.seed, 1000)
    expected = []
    for rows in table.groups(["timestamp"]):
        record = table.values(rows[0], False, ["timestamp"]) | {"rows": [table.values(row, False) for row in rows]}
        expected.append((rows[0][0].encode(), record))
    publish(ring, table, 4, "avro", None, ["--group-by", "timestamp"], expected)


def inferred(ring):
    """Without a schema: types from the data; the key is the first column with a time in it."""
    table = data.inferable(ring.seed, 1200)
    expected = [(row[0].encode(), table.values(row, False)) for row in table.rows]
    topic = publish(ring, table, 4, "avro", None, [], expected, keep=True)
    registered = ring.cluster.registry().get_latest_version(f"{topic}-value")
    fields = {field["name"]: field["type"] for field in json.loads(registered.schema.schema_str)["fields"]}
    for column in table.columns:
        ring.equal(fields[column.name], column.avro_type(), f"the inferred type of {column.name}")
    ring.cluster.delete_topic(topic)


def crlf(ring):
    """Line ends of Windows; the carriage returns inside quotes stay."""
    table = data.tricky(ring.seed + 1, 500, line_end="\r\n")
    expected = [(row[0].encode(), table.values(row, False)) for row in table.rows]
    publish(ring, table, 1, "avro", table.schema(), ["--key", "id"], expected)


def two_key_columns(ring):
    """The key is a JSON array of the cells' texts, in the order asked for."""
    table = data.tricky(ring.seed + 2, 500)
    names = ["name", "id"]
    expected = [(json_key(table, row, names), table.values(row, False)) for row in table.rows]
    publish(ring, table, 4, "avro", table.schema(), ["--key", ",".join(names)], expected)


def avro_keys(*names):
    """The bytes that another client's serializer makes, with the id of the schema that it registered."""

    def case(ring):
        table = data.usage(ring.seed + 4, 1000)
        fields = {column.name: column.field() for column in table.columns}
        record = {"type": "record", "name": "Key", "fields": [fields[name] for name in names]}
        schema = record if len(names) > 1 else fields[names[0]]["type"]
        topic = ring.topic()
        encode = ring.cluster.encoder(topic, json.dumps(schema), MessageField.KEY)
        expected = []
        for row in table.rows:
            key = table.values(row, False, names)
            key = encode(key if len(names) > 1 else key[names[0]])
            expected.append((key, table.values(row, False)))
        options = ["--key", ",".join(names), "--key-format", "avro"]
        publish(ring, table, 4, "avro", table.schema(), options, expected, topic=topic)

    return case


def empty_keys(ring):
    """Where the key's cell is empty the key is null: such rows keep their order, in whatever partition."""
    table = data.tricky(ring.seed + 3, 500)
    expected = [(table.cell(row, "note").encode() or None, table.values(row, False)) for row in table.rows]
    publish(ring, table, 1, "avro", table.schema(), ["--key", "note"], expected)


def no_keys(ring):
    """Null keys go round the partitions in runs, whatever the batches are."""
    table = data.usage(ring.seed, 20_000)
    expected = [(None, table.values(row, False)) for row in table.rows]
    publish(ring, table, 4, "avro", table.schema(), ["--no-key"], expected)


def twice(ring):
    """A topic that holds records already: offsets go on, nothing is lost or mixed."""
    table = data.usage(ring.seed, 400)
    expected = [(row[0].encode(), table.values(row, False)) for row in table.rows]
    topic = publish(ring, table, 4, "avro", table.schema(), [], expected, keep=True)
    publish(ring, table, 4, "avro", table.schema(), ["--restart"], expected, topic=topic, before=expected)


def murmur2_as_librdkafka(ring):
    """The oracle against another oracle: where librdkafka's murmur2 partitioner puts each key."""
    topic = ring.topic()
    ring.cluster.create_topic(topic, 7)
    producer = ring.cluster.producer(partitioner="murmur2")
    for i in range(500):
        producer.produce(topic, key=f"{i * i}-é{'x' * (i % 9)}".encode(), value=b"")
    assert producer.flush(60) == 0
    for message in ring.cluster.read(topic):
        ring.equal(message.partition, murmur2.partition(message.key, 7), f"the partition of {message.key!r}")
    ring.cluster.delete_topic(topic)


def json_key(table, row, names) -> bytes:
    cells = [table.cell(row, name) for name in names]
    return json.dumps(cells, ensure_ascii=False, separators=(",", ":")).encode()


def partition_of(key: bytes | None, number: int, partitions: int) -> int:
    return number // KEYLESS_RUN % partitions if key is None else murmur2.partition(key, partitions)


def publish(ring, table, partitions, value_format, schema, options, expected, topic=None, before=(), keep=False):
    """Publishes `table` and compares the topic with `expected`, keys and values in file order.

    `before` is what the topic holds already. Returns the topic, which is deleted unless `keep`.
    """
    topic = topic or ring.topic()
    file = ring.tidegate.file(f"{table.name}.csv", table.csv())
    options = ["--partitions", str(partitions), "--format", value_format, *options]
    if schema is not None:
        options += ["--schema", ring.tidegate.file(f"{table.name}.avsc", schema)]
    done = ring.tidegate.publish(ring.cluster, file, topic, *options).expect(0)

    found = ring.cluster.read(topic)
    with_kcat = ring.cluster.read_with_kcat(topic)
    ring.equal([m.place() for m in with_kcat], [m.place() for m in found], "what kcat and confluent-kafka see")
    for one, other in zip(with_kcat, found):
        ring.equal((one.key, one.value, one.timestamp), (other.key, other.value, other.timestamp), f"kcat at {one.place()}")

    summary = done.summary()
    decode = ring.cluster.decoder(topic) if value_format == "avro" else lambda m: table.from_json(json.loads(m.value))
    compare_records(ring, decode, partitions, value_format, [before, expected], found, summary)
    compare_summary(ring, topic, table, expected, before, found, summary)
    if not keep:
        ring.cluster.delete_topic(topic)
    return topic


def compare_records(ring, decode, partitions, value_format, loads, found, summary):
    """Partition by partition: the same keys and values, in the same order, none missing and none twice.

    `loads` are the keys and values of each load of the topic, one after the other.
    """
    by_partition: dict[int, list] = {partition: [] for partition in range(partitions)}
    for records in loads:
        for number, (key, value) in enumerate(records):
            by_partition[partition_of(key, number, partitions)].append((key, value))
    for partition, wanted in by_partition.items():
        messages = [message for message in found if message.partition == partition]
        for message, (key, value) in zip(messages, wanted):
            ring.equal(message.key, key, f"the key at {message.place()}")
            check_frame(ring, message, value_format, summary)
            ring.equal(decode(message), value, f"the value at {message.place()}")
        ring.equal(len(messages), len(wanted), f"the number of records in partition {partition}")


def check_frame(ring, message: Message, value_format, summary):
    if value_format == "avro":
        magic, schema_id = struct.unpack(">bI", message.value[:5])
        ring.equal((magic, schema_id), (0, summary["schema_id"]), f"magic and schema id at {message.place()}")
    else:
        ring.equal(summary["schema_id"], None, "the schema id of a JSON load")


def compare_summary(ring, topic, table, expected, before, found, summary):
    """What tidegate says it did, against what is there."""
    rows = {"read": len(table.rows), "accepted": len(table.rows), "rejected": 0}
    ring.equal(summary["status"], "complete", "status")
    ring.equal(summary["exit_code"], 0, "exit code in the summary")
    ring.equal(summary["topic"], topic, "topic in the summary")
    # Further fields are welcome: only those that users rely on are looked at.
    ring.equal({name: summary["rows"][name] for name in rows}, rows, "rows in the summary")
    ring.equal(summary["records"]["delivered"], len(expected), "delivered records in the summary")
    if before:
        return
    ends = {}
    for message in found:
        first, _, count = ends.get(message.partition, (message.offset, None, 0))
        ends[message.partition] = (first, message.offset, count + 1)
    said = {
        entry["partition"]: (entry["first_offset"], entry["last_offset"], entry["records"])
        for entry in summary["partitions"]
        if entry["records"]
    }
    ring.equal(said, ends, "first and last offset and count per partition in the summary")
