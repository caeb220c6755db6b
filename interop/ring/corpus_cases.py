"""CSV files that nobody here wrote: inferred, published, and each cell of them compared with what an independent decode finds.

What a cell must have become is told by the type that was inferred, and by this module alone: a text is a number, a time or a boolean because
Python reads it as one. A column that was taken for less than it is (a string) must hold its cells letter by letter.
"""

import csv
import datetime
import decimal
import io
import json
import pathlib
import tarfile
import uuid
import zipfile

import fastavro

NANOSECONDS = {"millis": 1_000_000, "micros": 1_000, "nanos": 1}
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)


def cases(folder: pathlib.Path):
    for package, member, content in files(folder):
        yield f"corpus: {package} {member}", corpus_case(content)


def files(folder: pathlib.Path):
    """Every CSV file of every package, by name."""
    for archive in sorted(folder.iterdir()):
        for member, content in sorted(members(archive)):
            if member.endswith(".csv.zip"):
                with zipfile.ZipFile(io.BytesIO(content)) as inner:
                    for name in inner.namelist():
                        if name.endswith(".csv"):
                            yield archive.name, name, inner.read(name)
            elif member.endswith(".csv"):
                yield archive.name, pathlib.PurePath(member).name, content


def members(archive: pathlib.Path):
    if archive.suffix in (".whl", ".zip"):
        with zipfile.ZipFile(archive) as package:
            yield from ((name, package.read(name)) for name in package.namelist() if ".csv" in name)
    else:
        with tarfile.open(archive) as package:
            found = [member for member in package.getmembers() if member.isfile() and ".csv" in member.name]
            yield from ((member.name, package.extractfile(member).read()) for member in found)


def corpus_case(content: bytes):
    def case(ring):
        topic = ring.topic()
        file = ring.tidegate.file("corpus.csv", content)
        summary = ring.tidegate.publish(ring.cluster, file, topic, "--partitions", "1", "--verify").expect(0).summary()
        header, *rows = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""))
        rows = [row for row in rows if row or len(header) == 1]
        ring.equal(summary["rows"], {"read": len(rows), "accepted": len(rows), "rejected": 0, "failed": 0}, "rows")
        ring.equal(summary["verify"]["status"], "same", "the program's own comparison")
        registered = ring.cluster.registry().get_schema(summary["schema_id"]).schema_str
        compare(ring, ring.cluster.read(topic), rows, header, json.loads(registered))
        ring.cluster.delete_topic(topic)

    return case


def compare(ring, messages, rows, header, schema) -> None:
    ring.equal(len(messages), len(rows), "records")
    fields = schema["fields"]
    columns = [header.index(field.get("tidegate.column", field["name"])) for field in fields]
    names = [field["name"] for field in fields]
    readers = [reader(field) for field in fields]
    parsed = fastavro.parse_schema(raw(schema))
    for number, (message, row) in enumerate(zip(messages, rows), 1):
        value = fastavro.schemaless_reader(io.BytesIO(message.value[5:]), parsed)
        for name, column, read in zip(names, columns, readers):
            expected = read(row[column])
            if value[name] != expected:
                ring.equal(value[name], expected, f"row {number}, column {header[column]!r}, cell {row[column]!r}")


def raw(schema):
    """The schema without its logical types, so that the reader gives what is stored and nothing it made of that."""
    if isinstance(schema, dict):
        return {key: raw(value) for key, value in schema.items() if key != "logicalType"}
    if isinstance(schema, list):
        return [raw(part) for part in schema]
    return schema


def reader(field):
    """What a cell of the field must have become."""
    kind = field["type"]
    nullable = isinstance(kind, list)
    if nullable:
        kind = next(branch for branch in kind if branch != "null")
    nulls = set(field.get("tidegate.null", [""])) if nullable else set()
    read = value_reader(kind, field)
    return lambda text: None if text in nulls else read(text)


def value_reader(kind, field):
    logical = kind.get("logicalType") if isinstance(kind, dict) else None
    plain = kind["type"] if isinstance(kind, dict) else kind
    if logical == "decimal":
        return lambda text: unscaled(text, kind)
    if logical == "date":
        return lambda text: instant(text, field) // 86_400_000_000_000
    if logical in ("time-millis", "time-micros"):
        unit = NANOSECONDS[logical.rsplit("-", 1)[1]]
        return lambda text: instant(f"1970-01-01T{text}", {}) // unit
    if logical and "timestamp" in logical:
        unit = NANOSECONDS[logical.rsplit("-", 1)[1]]
        return lambda text: instant(text, field) // unit
    if plain == "boolean":
        yes, no = field.get("tidegate.true", ["true"]), field.get("tidegate.false", ["false"])
        return lambda text: boolean(text, yes, no)
    if logical == "uuid":
        return lambda text: str(uuid.UUID(text))
    return {"long": int, "int": int, "double": float, "string": str}[plain]


def boolean(text, yes, no):
    if text in yes or text.lower() in yes:
        return True
    assert text in no or text.lower() in no, f"{text!r} is no boolean"
    return False


def unscaled(text, kind) -> bytes:
    number = decimal.Decimal(text).scaleb(kind.get("scale", 0))
    assert number == number.to_integral_value(), f"{text} has more digits than the schema's scale"
    number = int(number)
    return number.to_bytes(max(1, (8 + (number + (number < 0)).bit_length()) // 8), "big", signed=True)


def instant(text, field) -> int:
    """Nanoseconds since 1970; a time without an offset counts as UTC, as the local types want it."""
    pattern = field.get("tidegate.format", "iso")
    if pattern == "iso":
        found = datetime.datetime.fromisoformat(text)
    else:
        patterns = pattern if isinstance(pattern, list) else [pattern]
        found = next(filter(None, (strptime(text, each) for each in patterns)))
    if found.tzinfo is None:
        found = found.replace(tzinfo=datetime.timezone.utc)
    return (found - EPOCH) // datetime.timedelta(microseconds=1) * 1_000


def strptime(text, pattern):
    try:
        return datetime.datetime.strptime(text, pattern)
    except ValueError:
        return None
