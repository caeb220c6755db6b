//! The compiler: from schema, header and options to a flat plan.

use apache_avro::Schema;
use apache_avro::schema::{Namespace, RecordField, RecordSchema};

use super::avro::{AvroSchema, type_name};
use super::default::encode_default;
use super::{COLUMN_ATTRIBUTE, FieldColumn, PlanRequest, RecordPlan, Shape};
use crate::decode;
use crate::encode::time::TimeUnit;
use crate::encode::{Branches, Cell, Kind, Op, ValueFormat, put_long};
use crate::json::put_string;
use crate::key::{KeyChoice, KeyPlan, KeyReason};
use crate::{Error, Result};

/// Columns with these names are taken for the key when no field has a timestamp type; the first one that is there wins.
const TIMESTAMP_NAMES: [&str; 3] = ["timestamp", "ts", "time"];

pub(super) fn compile(request: &PlanRequest<'_>) -> Result<RecordPlan> {
    let avro = AvroSchema::parse(request.schema)?;
    let (root, namespace) = avro.resolve(avro.root(), &None)?;
    let Schema::Record(record) = root else {
        return Err(Error::schema(format!(
            "the schema is a {}: rows can only fill a record",
            type_name(root)
        )));
    };
    let group_columns = columns(request, request.group_by, "--group-by")?;
    for (field, column) in request.map {
        if request.header.index_of(column).is_none() {
            return Err(unknown_column(
                request,
                column,
                &format!("mapped to the field `{field}`"),
            ));
        }
    }
    let mut compiler = Compiler {
        request,
        avro: &avro,
        group_columns: &group_columns,
        field_columns: Vec::new(),
        missing: Vec::new(),
        timestamp_column: None,
    };
    let shape = if group_columns.is_empty() {
        compiler.row_shape(record, &namespace)?
    } else {
        compiler.group_shape(record, &namespace)?
    };
    compiler.check_missing()?;
    compiler.check_map()?;
    let key = compiler.key()?;
    let warnings = compiler.unused_columns();
    let field_columns = compiler.field_columns;
    Ok(RecordPlan {
        format: request.format,
        schema_json: request.schema.to_owned(),
        header: request.header.clone(),
        null_tokens: request.cells.into(),
        shape,
        key,
        field_columns,
        warnings,
        group_columns,
        avro,
    })
}

fn columns(request: &PlanRequest<'_>, names: &[String], asked_by: &str) -> Result<Vec<usize>> {
    let mut columns = Vec::with_capacity(names.len());
    for name in names {
        let index = request.header.index_of(name);
        let index =
            index.ok_or_else(|| unknown_column(request, name, &format!("named by {asked_by}")))?;
        if columns.contains(&index) {
            return Err(Error::option(format!(
                "{asked_by} names the column `{name}` twice"
            )));
        }
        columns.push(index);
    }
    Ok(columns)
}

fn unknown_column(request: &PlanRequest<'_>, name: &str, context: &str) -> Error {
    let names = request.header.names();
    let similar = names
        .iter()
        .find(|known| known.trim().eq_ignore_ascii_case(name.trim()));
    let hint = match similar {
        Some(similar) => format!("did you mean `{similar}`?"),
        None => {
            let shown: Vec<_> = names.iter().take(20).map(String::as_str).collect();
            let more = if names.len() > shown.len() {
                ", …"
            } else {
                ""
            };
            format!("the columns are {}{more}", shown.join(", "))
        }
    };
    Error::option(format!(
        "the input has no column `{name}`, {context}: {hint}"
    ))
}

struct Compiler<'a> {
    request: &'a PlanRequest<'a>,
    avro: &'a AvroSchema,
    group_columns: &'a [usize],
    field_columns: Vec<FieldColumn>,
    /// Fields with neither a column nor a default.
    missing: Vec<String>,
    timestamp_column: Option<usize>,
}

/// Collects operations; constants that meet become one.
struct Ops {
    ops: Vec<Op>,
    constant: Vec<u8>,
}

impl Ops {
    fn new() -> Self {
        Self {
            ops: Vec::new(),
            constant: Vec::new(),
        }
    }

    fn cell(&mut self, cell: Cell) {
        self.flush();
        self.ops.push(Op::Cell(cell));
    }

    fn flush(&mut self) {
        if !self.constant.is_empty() {
            self.ops
                .push(Op::Constant(std::mem::take(&mut self.constant).into()));
        }
    }

    fn finish(mut self) -> Vec<Op> {
        self.flush();
        self.ops
    }
}

impl Compiler<'_> {
    fn row_shape(&mut self, record: &RecordSchema, namespace: &Namespace) -> Result<Shape> {
        let mut ops = Ops::new();
        self.record(record, namespace, None, &mut ops)?;
        Ok(Shape::Row { ops: ops.finish() })
    }

    fn group_shape(&mut self, record: &RecordSchema, namespace: &Namespace) -> Result<Shape> {
        let mut arrays = Vec::new();
        for (index, field) in record.fields.iter().enumerate() {
            if let Some(array) = self.array_of_records(field, namespace)? {
                arrays.push((index, array));
            }
        }
        let [(at, (branch, items, inside))] = &arrays[..] else {
            let found = match arrays.len() {
                0 => "none".to_owned(),
                _ => arrays
                    .iter()
                    .map(|(index, _)| format!("`{}`", record.fields[*index].name))
                    .collect::<Vec<_>>()
                    .join(", "),
            };
            return Err(Error::schema(format!(
                "--group-by needs a schema with exactly one field that is an array of records, for the rows of a group; {} has {found}",
                type_name(&Schema::Record(record.clone()))
            )));
        };
        let (head, tail) = (&record.fields[..*at], &record.fields[at + 1..]);
        let array_name = &record.fields[*at].name;

        let mut before = Ops::new();
        self.open_object(&mut before);
        self.fields(head, namespace, FieldsOf::Group, &mut before, true)?;
        self.field_name(array_name, at == &0, &mut before);
        match self.request.format {
            ValueFormat::Avro => before.constant.extend_from_slice(branch),
            ValueFormat::Json => before.constant.push(b'['),
        }

        let mut item_ops = Ops::new();
        self.record(items, inside, Some(array_name), &mut item_ops)?;

        let mut after = Ops::new();
        if self.request.format == ValueFormat::Json {
            after.constant.push(b']');
        }
        self.fields(tail, namespace, FieldsOf::Group, &mut after, false)?;
        self.close_object(&mut after);
        Ok(Shape::Group {
            before: before.finish(),
            items: item_ops.finish(),
            after: after.finish(),
        })
    }

    /// For a field that is an array of records, perhaps in a union: the bytes of its branch, the record, and the namespace inside it.
    fn array_of_records(
        &self,
        field: &RecordField,
        namespace: &Namespace,
    ) -> Result<Option<(Vec<u8>, RecordSchema, Namespace)>> {
        let (schema, inside) = self.avro.resolve(&field.schema, namespace)?;
        let variants = match schema {
            Schema::Union(union) => union.variants(),
            other => std::slice::from_ref(other),
        };
        for (index, variant) in variants.iter().enumerate() {
            if let Schema::Array(array) = variant
                && let (Schema::Record(record), inside) =
                    self.avro.resolve(&array.items, &inside)?
            {
                let mut branch = Vec::new();
                if matches!(schema, Schema::Union(_)) {
                    put_long(&mut branch, index.cast_signed() as i64);
                }
                return Ok(Some((branch, record.clone(), inside)));
            }
        }
        Ok(None)
    }

    fn record(
        &mut self,
        record: &RecordSchema,
        namespace: &Namespace,
        array: Option<&str>,
        ops: &mut Ops,
    ) -> Result<()> {
        self.open_object(ops);
        self.fields(
            &record.fields,
            namespace,
            FieldsOf::Row { array },
            ops,
            true,
        )?;
        self.close_object(ops);
        Ok(())
    }

    /// Compiles fields one behind the other; `first` says that nothing stands before them in their record.
    fn fields(
        &mut self,
        fields: &[RecordField],
        namespace: &Namespace,
        of: FieldsOf<'_>,
        ops: &mut Ops,
        first: bool,
    ) -> Result<()> {
        for (index, field) in fields.iter().enumerate() {
            self.field_name(&field.name, first && index == 0, ops);
            self.field(field, namespace, of, ops)?;
        }
        Ok(())
    }

    fn field(
        &mut self,
        field: &RecordField,
        namespace: &Namespace,
        of: FieldsOf<'_>,
        ops: &mut Ops,
    ) -> Result<()> {
        let path = of.path(&field.name);
        let Some(column) = self.column_of(field) else {
            return self.without_column(field, namespace, path, ops);
        };
        if matches!(of, FieldsOf::Group) && !self.group_columns.contains(&column) {
            return Err(Error::schema(format!(
                "the field `{path}` stands outside the array, but its column `{}` is none of --group-by and so may differ between the rows of a group",
                self.request.header.names()[column]
            )));
        }
        let (schema, inside) = self.avro.resolve(&field.schema, namespace)?;
        let (union, value) = self.branches(schema, &inside, &path)?;
        let kind = kind_of(value, &path)?;
        if matches!(kind, Kind::Timestamp(_)) && self.timestamp_column.is_none() {
            self.timestamp_column = Some(column);
        }
        let holds_text = matches!(kind, Kind::String | Kind::Bytes);
        if let (ValueFormat::Avro, Some(UnionPrefix::Single)) = (self.request.format, union) {
            ops.constant.push(0);
        }
        ops.cell(Cell {
            column,
            empty_is_null: !holds_text || self.request.cells.null_tokens.is_empty(),
            union: match union {
                Some(UnionPrefix::Nullable(branches)) => Some(branches),
                Some(UnionPrefix::Single) | None => None,
            },
            kind,
        });
        self.field_columns.push(FieldColumn {
            array: of.array().map(str::to_owned),
            field: field.name.clone(),
            column,
        });
        Ok(())
    }

    /// The column of a field: the one it is mapped to, else the one its attribute names, else the one of its name, else of an alias.
    fn column_of(&self, field: &RecordField) -> Option<usize> {
        let header = self.request.header;
        if let Some((_, column)) = self
            .request
            .map
            .iter()
            .find(|(name, _)| *name == field.name)
        {
            return header.index_of(column);
        }
        let attribute = field
            .custom_attributes
            .get(COLUMN_ATTRIBUTE)
            .and_then(|value| value.as_str());
        attribute
            .and_then(|column| header.index_of(column))
            .or_else(|| header.index_of(&field.name))
            .or_else(|| {
                field
                    .aliases
                    .iter()
                    .flatten()
                    .find_map(|alias| header.index_of(alias))
            })
    }

    fn without_column(
        &mut self,
        field: &RecordField,
        namespace: &Namespace,
        path: String,
        ops: &mut Ops,
    ) -> Result<()> {
        let Some(default) = &field.default else {
            self.missing.push(path);
            return Ok(());
        };
        let mut bytes = Vec::new();
        encode_default(self.avro, &field.schema, namespace, default, &mut bytes).map_err(
            |why| {
                Error::schema(format!(
                    "the default of the field `{path}` does not fit it: {why}"
                ))
            },
        )?;
        match self.request.format {
            ValueFormat::Avro => ops.constant.extend_from_slice(&bytes),
            ValueFormat::Json => {
                let value = decode::default_to_json(self.avro, &field.schema, namespace, &bytes)
                    .map_err(|error| {
                        Error::schema(format!(
                            "the default of the field `{path}` cannot be written as JSON: {error}"
                        ))
                    })?;
                ops.constant.extend_from_slice(value.to_string().as_bytes());
            }
        }
        Ok(())
    }

    /// Splits a type into its union, if it is one, and the type of the value in it.
    fn branches<'s>(
        &'s self,
        schema: &'s Schema,
        namespace: &Namespace,
        path: &str,
    ) -> Result<(Option<UnionPrefix>, &'s Schema)> {
        let Schema::Union(union) = schema else {
            return Ok((None, schema));
        };
        match union.variants() {
            [only] => Ok((
                Some(UnionPrefix::Single),
                self.avro.resolve(only, namespace)?.0,
            )),
            [Schema::Null, value] => {
                let branches = Branches { null: 0, value: 2 };
                Ok((
                    Some(UnionPrefix::Nullable(branches)),
                    self.avro.resolve(value, namespace)?.0,
                ))
            }
            [value, Schema::Null] => {
                let branches = Branches { null: 2, value: 0 };
                Ok((
                    Some(UnionPrefix::Nullable(branches)),
                    self.avro.resolve(value, namespace)?.0,
                ))
            }
            _ => Err(Error::schema(format!(
                "the field `{path}` is a {}: from a cell only null and one other type can be told apart",
                type_name(schema)
            ))),
        }
    }

    /// Without a column and without a default nothing can be written for a field.
    fn check_missing(&self) -> Result<()> {
        if self.missing.is_empty() {
            return Ok(());
        }
        let list: Vec<_> = self
            .missing
            .iter()
            .map(|field| format!("`{field}`"))
            .collect();
        let (fields, have) = if list.len() == 1 {
            ("field", "has")
        } else {
            ("fields", "have")
        };
        Err(Error::schema(format!(
            "the {fields} {} of the schema {have} neither a column in the header ({}) nor a default",
            list.join(", "),
            self.request
                .header
                .names()
                .iter()
                .take(20)
                .map(String::as_str)
                .collect::<Vec<_>>()
                .join(", ")
        )))
    }

    fn check_map(&self) -> Result<()> {
        let unknown = self
            .request
            .map
            .iter()
            .find(|(name, _)| !self.field_columns.iter().any(|known| known.field == *name));
        match unknown {
            None => Ok(()),
            Some((field, column)) => Err(Error::option(format!(
                "the schema has no field `{field}`, to which the column `{column}` is mapped"
            ))),
        }
    }

    fn key(&self) -> Result<KeyPlan> {
        let plan = |columns, reason| KeyPlan { columns, reason };
        match self.request.key {
            KeyChoice::None => Ok(plan(Vec::new(), KeyReason::AskedForNone)),
            KeyChoice::Columns(names) => {
                let columns = columns(self.request, names, "--key")?;
                if let Some(stray) = columns.iter().find(|column| {
                    !self.group_columns.is_empty() && !self.group_columns.contains(column)
                }) {
                    return Err(Error::option(format!(
                        "--key names the column `{}`, which is none of --group-by and so may differ between the rows of a record",
                        self.request.header.names()[*stray]
                    )));
                }
                Ok(plan(columns, KeyReason::Asked))
            }
            KeyChoice::Default if !self.group_columns.is_empty() => {
                Ok(plan(self.group_columns.to_vec(), KeyReason::GroupBy))
            }
            KeyChoice::Default => {
                if let Some(column) = self.timestamp_column {
                    return Ok(plan(vec![column], KeyReason::TimestampType));
                }
                let named = TIMESTAMP_NAMES.iter().find_map(|wanted| {
                    let names = self.request.header.names();
                    names
                        .iter()
                        .position(|name| name.eq_ignore_ascii_case(wanted))
                });
                Ok(match named {
                    Some(column) => plan(vec![column], KeyReason::TimestampName),
                    None => plan(Vec::new(), KeyReason::NothingFits),
                })
            }
        }
    }

    fn unused_columns(&self) -> Vec<String> {
        let names = self.request.header.names();
        let mut used = vec![false; names.len()];
        for field in &self.field_columns {
            used[field.column] = true;
        }
        let unused = names.iter().zip(used).filter(|(_, used)| !used);
        unused
            .map(|(name, _)| {
                format!("the column `{name}` is in no field of the schema and is left out")
            })
            .collect()
    }

    fn open_object(&self, ops: &mut Ops) {
        if self.request.format == ValueFormat::Json {
            ops.constant.push(b'{');
        }
    }

    fn close_object(&self, ops: &mut Ops) {
        if self.request.format == ValueFormat::Json {
            ops.constant.push(b'}');
        }
    }

    fn field_name(&self, name: &str, first: bool, ops: &mut Ops) {
        if self.request.format == ValueFormat::Json {
            if !first {
                ops.constant.push(b',');
            }
            put_string(&mut ops.constant, name.as_bytes());
            ops.constant.push(b':');
        }
    }
}

/// Where fields stand.
#[derive(Debug, Clone, Copy)]
enum FieldsOf<'a> {
    /// In the record of a row, perhaps as an item of an array.
    Row { array: Option<&'a str> },
    /// Around the array of a group.
    Group,
}

impl<'a> FieldsOf<'a> {
    fn array(self) -> Option<&'a str> {
        match self {
            Self::Row { array } => array,
            Self::Group => None,
        }
    }

    fn path(self, field: &str) -> String {
        match self.array() {
            Some(array) => format!("{array}[].{field}"),
            None => field.to_owned(),
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum UnionPrefix {
    /// A union of one type: its branch is always 0.
    Single,
    /// A union with null.
    Nullable(Branches),
}

/// The kind of cell a type takes.
fn kind_of(schema: &Schema, path: &str) -> Result<Kind> {
    Ok(match schema {
        Schema::Null => Kind::Null,
        Schema::Boolean => Kind::Boolean,
        Schema::Int => Kind::Int,
        Schema::Long => Kind::Long,
        Schema::Float => Kind::Float,
        Schema::Double => Kind::Double,
        Schema::Bytes => Kind::Bytes,
        Schema::String => Kind::String,
        Schema::TimestampMillis => Kind::Timestamp(TimeUnit::Milliseconds),
        Schema::TimestampMicros => Kind::Timestamp(TimeUnit::Microseconds),
        Schema::Date => Kind::Date,
        Schema::Enum(symbols) => {
            let mut indexed = Vec::with_capacity(symbols.symbols.len());
            for (index, symbol) in symbols.symbols.iter().enumerate() {
                let index = i32::try_from(index).map_err(|_| {
                    Error::schema(format!("the enum `{path}` has too many symbols"))
                })?;
                indexed.push((symbol.as_bytes().into(), index));
            }
            indexed.sort();
            Kind::Enum(indexed.into())
        }
        Schema::Array(_) => {
            return Err(Error::schema(format!(
                "the field `{path}` is an {}: one row has one cell for it; rows are collected into an array with --group-by",
                type_name(schema)
            )));
        }
        other => {
            return Err(Error::schema(format!(
                "the field `{path}` is a {}, which cannot be written from a cell",
                type_name(other)
            )));
        }
    })
}
