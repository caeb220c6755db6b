"""CSV files made from a seed, and what each of their rows must become."""

import csv
import dataclasses
import datetime
import io
import itertools
import random
import struct

UTC = datetime.timezone.utc
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=UTC)


def as_float(number: float) -> float:
    """The nearest 32-bit number."""
    return struct.unpack("<f", struct.pack("<f", number))[0]


@dataclasses.dataclass(frozen=True)
class Column:
    """A column and the Avro type its cells become."""

    name: str
    kind: str
    nullable: bool = False

    def avro_type(self):
        kind = {"type": "long", "logicalType": self.kind} if self.kind == "timestamp-millis" else self.kind
        return ["null", kind] if self.nullable else kind

    def field(self):
        field = {"name": self.name, "type": self.avro_type()}
        return field | {"default": None} if self.nullable else field

    def value(self, cell: str):
        """What a reader of Avro must get for this cell."""
        if cell == "" and self.nullable:
            return None
        if self.kind in ("int", "long"):
            return int(cell)
        if self.kind == "double":
            return float(cell)
        if self.kind == "float":
            return as_float(float(cell))
        if self.kind == "boolean":
            return {"true": True, "false": False}[cell]
        if self.kind == "timestamp-millis":
            return datetime.datetime.fromisoformat(cell.replace("Z", "+00:00"))
        return cell

    def json_value(self, cell: str):
        """What a reader of JSON must get: as Avro, with times as the Avro integer."""
        value = self.value(cell)
        if isinstance(value, datetime.datetime):
            return (value - EPOCH) // datetime.timedelta(milliseconds=1)
        return value


@dataclasses.dataclass(frozen=True)
class Table:
    """A CSV file as rows of cell texts. An empty text is an empty cell."""

    name: str
    columns: list[Column]
    rows: list[list[str]]
    line_end: str = "\n"

    def csv(self) -> bytes:
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator=self.line_end)
        writer.writerow([column.name for column in self.columns])
        writer.writerows(self.rows)
        written = text.getvalue()
        again = list(csv.reader(io.StringIO(written, newline="")))
        assert again[1:] == self.rows, "Python's own reader does not get back what was written"
        return written.encode()

    def schema(self, name="Row") -> dict:
        return {"type": "record", "name": name, "fields": [column.field() for column in self.columns]}

    def cell(self, row, name) -> str:
        return row[[column.name for column in self.columns].index(name)]

    def values(self, row, as_json: bool, names=None) -> dict:
        """One row as a record of all columns, or of those named."""
        wanted = [column.name for column in self.columns] if names is None else names
        by_name = {column.name: (column, cell) for column, cell in zip(self.columns, row)}
        make = Column.json_value if as_json else Column.value
        return {name: make(*by_name[name]) for name in wanted}

    def from_json(self, record: dict) -> dict:
        """A record read from JSON, with 32-bit numbers as such: 0.1 and 0.10000000149011612 are the same one."""
        floats = {column.name for column in self.columns if column.kind == "float"}
        return {name: as_float(value) if name in floats else value for name, value in record.items()}

    def groups(self, names) -> list[list[list[str]]]:
        """Consecutive rows with the same cells in the columns `names`."""
        key = lambda row: [self.cell(row, name) for name in names]  # noqa: E731
        return [list(rows) for _, rows in itertools.groupby(self.rows, key)]


def usage(seed: int, rows: int) -> Table:
    """Measurements as tidegate was made for: ticks of 20 containers on 4 machines, sorted by machine."""
    chance = random.Random(seed)
    columns = [
        Column("timestamp", "long"),
        Column("container_id", "string"),
        Column("machine_id", "string"),
        Column("cpu", "double"),
        Column("mem", "double"),
    ]
    made = []
    for i in range(rows):
        tick, container = divmod(i, 20)
        cells = [f"c_{container}", f"n_{container // 5}", repr(round(chance.uniform(0, 64), 3)), repr(chance.random())]
        made.append([str(1_700_000_000 + 60 * tick), *cells])
    return Table("usage", columns, made)


# Texts that CSV readers, JSON writers and byte counters trip over.
TEXTS = [
    "plain", "two\nlines", "ends with a newline\n", "carriage\r\nreturn", 'say "so"', '"', "comma, comma", ";", "\t",
    " spaces around ", "é", "e\u0301", "日本語", "🚰 tide", "\u200fעברית", "control \x01 character", "\\", "\\n", "'", "null", "NA",
    "a" * 300, "\u2028 separator", "true", "12", "{}", "x" * 8191,
]  # fmt: skip


def tricky(seed: int, rows: int, line_end: str = "\n") -> Table:
    """Every type, empty cells, quoted newlines, and text beyond ASCII."""
    chance = random.Random(seed)
    columns = [
        Column("id", "long"),
        Column("name", "string"),
        Column("note", "string", nullable=True),
        Column("amount", "double", nullable=True),
        Column("ratio", "float"),
        Column("small", "int", nullable=True),
        Column("flag", "boolean"),
        Column("seen_at", "timestamp-millis", nullable=True),
    ]
    doubles = ["0", "-0.0", "1e-7", "1.7976931348623157e308", "5e-324", "0.1", "123456789.123456789", "-1E+10"]

    def maybe(text):
        return "" if chance.random() < 0.25 else text

    made = []
    for i in range(rows):
        moment = EPOCH + datetime.timedelta(milliseconds=chance.randrange(4_000_000_000_000))
        made.append(
            [
                str(chance.choice([i, -i, 2**63 - 1 - i, -(2**63) + i])),
                chance.choice(TEXTS) + chance.choice(["", f" {i % 50}"]),
                maybe(chance.choice(TEXTS)),
                maybe(chance.choice([*doubles, repr(chance.uniform(-1e6, 1e6))])),
                repr(chance.uniform(-1000, 1000)),
                maybe(str(chance.randrange(-(2**31), 2**31))),
                chance.choice(["true", "false"]),
                maybe(moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")),
            ]
        )
    return Table("tricky", columns, made, line_end)


def inferable(seed: int, rows: int) -> Table:
    """A file without a schema beside it: what its columns must be inferred as stands in the kinds."""
    chance = random.Random(seed)
    columns = [
        Column("seen", "timestamp-millis"),
        Column("city", "string"),
        Column("count", "long"),
        Column("level", "double"),
        Column("open", "boolean"),
        Column("remark", "string", nullable=True),
        Column("gauge", "double", nullable=True),
    ]
    made = []
    for i in range(rows):
        moment = datetime.datetime(2026, 3, 1, tzinfo=UTC) + datetime.timedelta(seconds=17 * i, milliseconds=i % 1000)
        made.append(
            [
                moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
                chance.choice(["Brest", "Sète", "横浜", "San Juan, PR"]),
                str(chance.randrange(-1000, 1000)),
                repr(chance.uniform(-3, 3)),
                chance.choice(["true", "false"]),
                chance.choice(["", "ebb", "two\nlines"]),
                chance.choice(["", "1.5", "2"]),
            ]
        )
    return Table("inferable", columns, made)
