//! The compiler: from schema, header and options to a flat plan.

use apache_avro::Schema;
use apache_avro::schema::{Namespace, RecordField, RecordSchema};

use super::attributes::{Attributes, in_both};
use super::avro::{AvroSchema, default_of, type_name};
use super::default::encode_default;
use super::key;
use super::kinds::Kinds;
use super::parts::{FieldsOf, Ops};
use super::{FieldColumn, PlanRequest, RecordPlan, Shape, encode_as};
use crate::around::{Around, HeaderPlan, HeaderValue, TimestampChoice, TimestampPlan, ValuePlan};
use crate::decode;
use crate::encode::written_time::time_zone;
use crate::encode::{Cell, Kind, NullTokens, Op, Optional, Quick, ValueFormat, put_long};
use crate::json::put_string;
use crate::key::{KeyChoice, KeyPlan, KeyReason};
use crate::limits::MAX_DEFAULT_DEPTH;
use crate::read::as_row;
use crate::{Error, Result};

/// Columns with these names are taken for the key when no field has a timestamp type; the first one that is there wins.
const TIMESTAMP_NAMES: [&str; 3] = ["timestamp", "ts", "time"];

pub(super) fn compile(request: &PlanRequest<'_>) -> Result<RecordPlan> {
    let avro = AvroSchema::parse(request.schema)?;
    avro.check_attributes()?;
    let (root, namespace) = avro.resolve(avro.root(), &None)?;
    let Schema::Record(record) = root else {
        return Err(Error::schema(format!(
            "the schema is a {}: rows can only fill a record",
            type_name(root)
        )));
    };
    if let Some(name) = &request.cells.time_zone {
        time_zone(name)?;
    }
    check_words(&request.cells.booleans)?;
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
    let mut compiler = Compiler::new(request, &avro, &group_columns);
    let shape = compiler.shape(record, &namespace)?;
    compiler.check_constants()?;
    compiler.check_missing()?;
    compiler.check_map()?;
    let last_shape = request.mark_last.map(|_| {
        let mut last = Compiler::new(request, &avro, &group_columns);
        last.is_last = true;
        last.shape(record, &namespace)
    });
    let last_shape = last_shape.transpose()?;
    let key = key::compile(request, &compiler.field_columns, compiler.key()?)?;
    compiler.check_key(&key)?;
    let around = around(request, &avro)?;
    if !group_columns.is_empty() {
        for (column, used_for) in around.columns() {
            compiler.share(column, used_for);
        }
    }
    let (shared_columns, shared_uses) = std::mem::take(&mut compiler.shared);
    let mut warnings: Vec<String> = request.header.notes().collect();
    warnings.extend(compiler.unused_columns(&key, &around));
    let field_columns = compiler.field_columns;
    let null_tokens = NullTokens::from(request.cells);
    let quick = quick(request.format, &null_tokens, &shape, last_shape.as_ref());
    Ok(RecordPlan {
        format: request.format,
        schema_json: request.schema.to_owned(),
        header: request.header.clone(),
        null_tokens,
        iso_times: request.iso_times,
        shape,
        quick,
        key,
        field_columns,
        warnings,
        group_columns,
        shared_columns,
        shared_uses,
        last_shape,
        strict_groups: request.strict_groups,
        partial_groups: request.partial_groups,
        around,
        partitioner: request.partitioner,
        avro,
    })
}

/// The quick way to what a shape makes of a row, where it is of the common kind.
fn quick(
    format: ValueFormat,
    nulls: &NullTokens,
    shape: &Shape,
    last_shape: Option<&Shape>,
) -> Option<Quick> {
    let is_common = format == ValueFormat::Avro && nulls.is_empty() && last_shape.is_none();
    match shape {
        Shape::Row { ops } if is_common => Quick::of(ops),
        _ => None,
    }
}

/// No text may be both true and false.
fn check_words(pairs: &[(String, String)]) -> Result<()> {
    let (yes, no): (Vec<&String>, Vec<&String>) = pairs.iter().map(|(yes, no)| (yes, no)).unzip();
    match in_both(yes, &no) {
        None => Ok(()),
        Some(word) => Err(Error::option(format!(
            "--boolean says that `{word}` is both true and false"
        ))),
    }
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

/// The path of a field inside the record of a row.
fn inside(path: &str) -> &str {
    path.rsplit("[].").next().unwrap_or(path)
}

/// What records have around their values.
fn around(request: &PlanRequest<'_>, avro: &AvroSchema) -> Result<Around> {
    let column = |name: &String, asked_by: &str| {
        let found = columns(request, std::slice::from_ref(name), asked_by)?;
        Ok::<_, Error>(found[0])
    };
    let mut around = Around::default();
    for choice in request.headers {
        let value = match &choice.value {
            HeaderValue::Constant(text) => ValuePlan::Constant(text.as_bytes().into()),
            HeaderValue::Column(name) => ValuePlan::Column(column(name, "--header-column")?),
        };
        let name = choice.name.as_str().into();
        around.headers.push(HeaderPlan { name, value });
    }
    if let TimestampChoice::Column(name) = request.timestamp {
        let column = column(name, "--record-timestamp")?;
        let kinds = Kinds {
            avro,
            cells: request.cells,
            attributes: &Attributes::default(),
            path: "--record-timestamp",
        };
        let cell = Cell {
            column,
            joined: [].into(),
            empty_is_null: true,
            own_nulls: None,
            null: None,
            branch: None,
            kind: kinds.of_field(&Schema::TimestampMillis, &None)?.kind,
        };
        let ops = vec![Op::Cell(cell)];
        around.timestamp = Some(TimestampPlan { column, ops });
    }
    Ok(around)
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
    /// How many records the field at hand stands in.
    depth: usize,
    /// Columns that must be equal in all rows of a group, and what for.
    shared: (Vec<usize>, Vec<String>),
    /// Fields that are constants.
    constants: Vec<String>,
    /// Whether this is about the last record of an input.
    is_last: bool,
}

impl<'a> Compiler<'a> {
    fn new(request: &'a PlanRequest<'a>, avro: &'a AvroSchema, group_columns: &'a [usize]) -> Self {
        Self {
            request,
            avro,
            group_columns,
            field_columns: Vec::new(),
            missing: Vec::new(),
            timestamp_column: None,
            shared: Default::default(),
            constants: Vec::new(),
            is_last: false,
            depth: 0,
        }
    }

    fn shape(&mut self, record: &RecordSchema, namespace: &Namespace) -> Result<Shape> {
        if self.group_columns.is_empty() {
            self.row_shape(record, namespace)
        } else {
            self.group_shape(record, namespace)
        }
    }

    /// Notes that a column is used once for a whole group.
    fn share(&mut self, column: usize, used_for: String) {
        let (columns, uses) = &mut self.shared;
        if !self.group_columns.contains(&column) && !columns.contains(&column) {
            columns.push(column);
            uses.push(used_for);
        }
    }

    /// The text of a field that is a constant, and the flag that says so.
    fn constant(&self, path: &str) -> Option<(&'a str, &'static str)> {
        if self.request.mark_last == Some(path) {
            let text = if self.is_last { "true" } else { "false" };
            return Some((text, "--mark-last"));
        }
        let mut set = self.request.set.iter();
        let (_, text) = set.find(|(name, _)| name == path || name == inside(path))?;
        Some((text, "--set"))
    }

    /// Writes a constant as a cell with that text would be written.
    fn set(&mut self, cell: Cell, text: &str, flag: &str, path: &str, ops: &mut Ops) -> Result<()> {
        if flag == "--mark-last" && cell.kind != Kind::Boolean {
            return Err(Error::option(format!(
                "{flag} names the field `{path}`, which must be a boolean"
            )));
        }
        let (cell, nulls) = ([Op::Cell(cell)], NullTokens::from(self.request.cells));
        let writing = (self.request.format, self.request.iso_times);
        let out = &mut ops.constant;
        self.constants.push(path.to_owned());
        let encoded = as_row(text.as_bytes(), |row| {
            let encoded = encode_as(writing, &cell, &nulls, row, out);
            encoded.map_err(|error| error.reason(&cell, row))
        });
        encoded
            .map_err(|why| Error::option(format!("{flag} gives the field `{path}` a value: {why}")))
    }

    /// Every constant must be for a field that is there.
    fn check_constants(&self) -> Result<()> {
        let set = self
            .request
            .set
            .iter()
            .map(|(name, _)| (name.as_str(), "--set"));
        let mark = self.request.mark_last.map(|name| (name, "--mark-last"));
        let is_known = |name: &str| {
            let mut known = self.constants.iter();
            known.any(|path| path == name || inside(path) == name)
        };
        let mut unknown = set.chain(mark).filter(|(name, _)| !is_known(name));
        match unknown.next() {
            None => Ok(()),
            Some((name, flag)) => Err(Error::option(format!(
                "the schema has no field `{name}`, which {flag} gives a value"
            ))),
        }
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
        let constant = self.constant(&path);
        let attributes = Attributes::of(field, &path)?;
        let columns = match constant {
            // The text stands in a row of its own.
            Some(_) => vec![0],
            None => self.columns_of(field, &path, &attributes)?,
        };
        let Some(&column) = columns.first() else {
            return self.without_cell(field, namespace, of, ops);
        };
        let kinds = Kinds {
            avro: self.avro,
            cells: self.request.cells,
            attributes: &attributes,
            path: &path,
        };
        let found = kinds.of_field(&field.schema, namespace)?;
        if constant.is_none() && found.kind.is_timestamp() && self.timestamp_column.is_none() {
            self.timestamp_column = Some(column);
        }
        for column in columns.iter().filter(|_| constant.is_none()) {
            self.field_columns.push(FieldColumn {
                array: of.array().map(str::to_owned),
                field: of.inner_path(&field.name),
                column: *column,
            });
            if of.is_group() {
                let used_for = format!("the field `{path}`, which stands outside the array");
                self.share(*column, used_for);
            }
        }
        let is_joined = columns.len() > 1;
        let cell = Cell {
            column,
            joined: if is_joined { columns.into() } else { [].into() },
            empty_is_null: !found.kind.holds_empty() || self.request.cells.null_tokens.is_empty(),
            own_nulls: if found.null.is_none() && found.kind.has_null_items() {
                // They are said of the items, and one of them alone is an array of one.
                Some(NullTokens::default())
            } else {
                attributes.nulls
            },
            null: found.null,
            branch: found.branch,
            kind: found.kind,
        };
        match constant {
            Some((text, flag)) => self.set(cell, text, flag, &path, ops),
            None => {
                ops.cell(cell);
                Ok(())
            }
        }
    }

    /// The columns of a field: the one it is mapped to, else those its attribute names, else the one of its path, else of an alias.
    fn columns_of(
        &self,
        field: &RecordField,
        path: &str,
        attributes: &Attributes,
    ) -> Result<Vec<usize>> {
        let header = self.request.header;
        let mut map = self.request.map.iter();
        let inner = inside(path);
        if let Some((_, column)) = map.find(|(name, _)| name == inner) {
            return Ok(header.index_of(column).into_iter().collect());
        }
        let named = attributes.columns.iter().map(|name| header.index_of(name));
        let named: Vec<Option<usize>> = named.collect();
        if let [_, _, ..] = named.as_slice()
            && let Some(at) = named.iter().position(Option::is_none)
        {
            return Err(Error::schema(format!(
                "the field `{path}` is put together from columns of which the header has no `{}`",
                attributes.columns[at]
            )));
        }
        let named: Vec<usize> = named.into_iter().flatten().collect();
        if !named.is_empty() {
            return Ok(named);
        }
        let prefix = inner.strip_suffix(field.name.as_str()).unwrap_or_default();
        let aliases = field
            .aliases
            .iter()
            .flatten()
            .map(|alias| format!("{prefix}{alias}"));
        let mut names = std::iter::once(inner.to_owned()).chain(aliases);
        Ok(names
            .find_map(|name| header.index_of(&name))
            .into_iter()
            .collect())
    }

    /// A field without a cell of its own: a record whose fields have some, or a default.
    fn without_cell(
        &mut self,
        field: &RecordField,
        namespace: &Namespace,
        of: FieldsOf<'_>,
        ops: &mut Ops,
    ) -> Result<()> {
        let path = of.path(&field.name);
        let (schema, inside) = self.avro.resolve(&field.schema, namespace)?;
        let (null, branch, record) = match schema {
            Schema::Union(union) => match union.variants() {
                [Schema::Null, record] => (Some(0), Some(2), record),
                [record, Schema::Null] => (Some(2), Some(0), record),
                _ => return self.without_column(field, namespace, path, ops),
            },
            record => (None, None, record),
        };
        let (Schema::Record(record), inside) = self.avro.resolve(record, &inside)? else {
            return self.without_column(field, namespace, path, ops);
        };
        let inner = of.inner_path(&field.name);
        if self.depth > MAX_DEFAULT_DEPTH || !self.has_cells(record, &inside, &inner, 0)? {
            return self.without_column(field, namespace, path, ops);
        }
        let of = FieldsOf::Inside {
            around: of.array(),
            path: &inner,
            is_group: of.is_group(),
        };
        self.depth += 1;
        let mut inner_ops = Ops::new();
        self.open_object(&mut inner_ops);
        self.fields(&record.fields, &inside, of, &mut inner_ops, true)?;
        self.close_object(&mut inner_ops);
        self.depth -= 1;
        let inner_ops = inner_ops.finish();
        match (null, branch) {
            (Some(null), Some(value)) => ops.op(Op::Optional(Optional {
                null,
                value,
                ops: inner_ops,
            })),
            _ => inner_ops.into_iter().for_each(|op| ops.op(op)),
        }
        Ok(())
    }

    /// Whether any field of a record, or of a record in it, is taken from a column.
    fn has_cells(
        &self,
        record: &RecordSchema,
        namespace: &Namespace,
        path: &str,
        depth: usize,
    ) -> Result<bool> {
        if depth > MAX_DEFAULT_DEPTH {
            return Ok(false);
        }
        for field in &record.fields {
            let inner = format!("{path}.{}", field.name);
            let attributes = Attributes::of(field, &inner)?;
            let has_column = !self.columns_of(field, &inner, &attributes)?.is_empty();
            if has_column || self.constant(&inner).is_some() {
                return Ok(true);
            }
            let (schema, inside) = self.avro.resolve(&field.schema, namespace)?;
            let variants = match schema {
                Schema::Union(union) => union.variants(),
                other => std::slice::from_ref(other),
            };
            for variant in variants {
                if let (Schema::Record(record), inside) = self.avro.resolve(variant, &inside)?
                    && self.has_cells(record, &inside, &inner, depth + 1)?
                {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    fn without_column(
        &mut self,
        field: &RecordField,
        namespace: &Namespace,
        path: String,
        ops: &mut Ops,
    ) -> Result<()> {
        let Some(default) = default_of(field) else {
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
                let iso_times = self.request.iso_times;
                let value =
                    decode::default_to_json(self.avro, &field.schema, namespace, &bytes, iso_times);
                let value = value.map_err(|error| {
                    Error::schema(format!(
                        "the default of the field `{path}` cannot be written as JSON: {error}"
                    ))
                })?;
                ops.constant.extend_from_slice(value.to_string().as_bytes());
            }
        }
        Ok(())
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
        let plan = |columns, reason| KeyPlan {
            columns,
            reason,
            typed: None,
        };
        match self.request.key {
            KeyChoice::None => Ok(plan(Vec::new(), KeyReason::AskedForNone)),
            KeyChoice::Columns(names) => {
                let columns = columns(self.request, names, "--key")?;
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

    /// A record of several rows has one key.
    fn check_key(&self, key: &KeyPlan) -> Result<()> {
        let mut columns = key.columns.iter();
        let stray = columns.find(|column| !self.group_columns.contains(column));
        let (Some(stray), false) = (stray, self.group_columns.is_empty()) else {
            return Ok(());
        };
        let asked_by = match key.reason {
            KeyReason::KeySchema => "the schema of the key",
            _ => "--key",
        };
        Err(Error::option(format!(
            "{asked_by} names the column `{}`, which is none of --group-by and so may differ between the rows of a record",
            self.request.header.names()[*stray]
        )))
    }

    fn unused_columns(&self, key: &KeyPlan, around: &Around) -> Vec<String> {
        let names = self.request.header.names();
        let mut used = vec![false; names.len()];
        for field in &self.field_columns {
            used[field.column] = true;
        }
        let around = around.columns().map(|(column, _)| column);
        for column in key.columns.iter().copied().chain(around) {
            used[column] = true;
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
