//! From the type of a field to the kind of its cells.

use apache_avro::Schema;
use apache_avro::schema::{DecimalSchema, FixedSchema, Namespace};

use super::attributes::Attributes;
use super::avro::{AvroSchema, is_duration, logical_type, time_type, type_name};
use crate::encode::coded::Coding;
use crate::encode::collection::Collection;
use crate::encode::decimal::DecimalType;
use crate::encode::kind::{UuidForm, Words};
use crate::encode::value::TimeType;
use crate::encode::written_time::{TimeForm, WrittenTime, time_zone};
use crate::encode::{CellFormat, Kind};
use crate::limits::MAX_DECIMAL_DIGITS;
use crate::{Error, Result};

/// What the cells of one field are compiled from.
pub(super) struct Kinds<'a> {
    pub(super) avro: &'a AvroSchema,
    pub(super) cells: &'a CellFormat,
    pub(super) attributes: &'a Attributes,
    /// The name of the field in errors.
    pub(super) path: &'a str,
}

/// The type of a field, its union taken apart.
pub(super) struct FieldKind {
    pub(super) kind: Kind,
    /// The encoded branch of null, where null is possible.
    pub(super) null: Option<u8>,
    /// The encoded branch of the value, where the kind does not choose it.
    pub(super) branch: Option<u8>,
}

impl Kinds<'_> {
    /// The kind of a field's cells, and the branches before its value.
    pub(super) fn of_field(&self, schema: &Schema, namespace: &Namespace) -> Result<FieldKind> {
        let (schema, inside) = self.avro.resolve(schema, namespace)?;
        let found = self.taken_apart(schema, &inside)?;
        self.check_use(&found.kind)?;
        Ok(found)
    }

    /// An attribute that says nothing of a type was meant for another.
    fn check_use(&self, kind: &Kind) -> Result<()> {
        let Attributes {
            formats,
            booleans,
            delimiter,
            time_zone,
            time_ambiguity,
            rounding,
            ..
        } = self.attributes;
        let is_time = |kind: &Kind| kind.is_time();
        let is_zoned = |kind: &Kind| kind.is_time() && !matches!(kind, Kind::TimeOfDay(_));
        let is_coded = |kind: &Kind| matches!(kind, Kind::Bytes(_) | Kind::Fixed(..));
        let is_several = |kind: &Kind| matches!(kind, Kind::Array(_) | Kind::Map(_));
        let uses = [
            (
                !formats.is_empty(),
                "tidegate.format",
                kind.any(|kind| is_time(kind) || is_coded(kind)),
            ),
            (
                booleans.is_some(),
                "tidegate.true",
                kind.any(|kind| matches!(kind, Kind::Words(_))),
            ),
            (
                delimiter.is_some(),
                "tidegate.delimiter",
                kind.any(is_several),
            ),
            (
                time_zone.is_some(),
                "tidegate.time-zone",
                kind.any(is_zoned),
            ),
            (
                time_ambiguity.is_some(),
                "tidegate.time-ambiguity",
                kind.any(is_zoned),
            ),
            (
                rounding.is_some(),
                "tidegate.rounding",
                kind.any(|kind| matches!(kind, Kind::Decimal(_))),
            ),
        ];
        match uses
            .iter()
            .find(|(is_said, _, is_used)| *is_said && !is_used)
        {
            None => Ok(()),
            Some((_, name, _)) => Err(Error::schema(format!(
                "the field `{}` has the attribute {name}, which says nothing of its type",
                self.path
            ))),
        }
    }

    fn taken_apart(&self, schema: &Schema, inside: &Namespace) -> Result<FieldKind> {
        let Schema::Union(union) = schema else {
            return Ok(FieldKind {
                kind: self.of(schema, inside)?,
                null: None,
                branch: None,
            });
        };
        let (mut null, mut branches) = (None, Vec::new());
        for (index, variant) in union.variants().iter().enumerate() {
            let index = encoded_index(index).ok_or_else(|| {
                Error::schema(format!(
                    "the union of the field `{}` has too many branches",
                    self.path
                ))
            })?;
            match variant {
                Schema::Null => null = Some(index),
                variant => {
                    let (variant, inside) = self.avro.resolve(variant, inside)?;
                    branches.push((index, self.of(variant, &inside)?));
                }
            }
        }
        Ok(match <[(u8, Kind); 1]>::try_from(branches) {
            Ok([(branch, kind)]) => FieldKind {
                kind,
                null,
                branch: Some(branch),
            },
            Err(branches) if branches.is_empty() => FieldKind {
                kind: Kind::Null,
                null,
                branch: null,
            },
            Err(branches) => FieldKind {
                kind: Kind::Union(branches.into()),
                null,
                branch: None,
            },
        })
    }

    /// The kind of cells of a type that is no union and no reference.
    fn of(&self, schema: &Schema, namespace: &Namespace) -> Result<Kind> {
        Ok(match schema {
            Schema::Null => Kind::Null,
            Schema::Boolean => self.boolean(),
            Schema::Int => Kind::Int,
            Schema::Long => Kind::Long,
            Schema::Float => Kind::Float,
            Schema::Double => Kind::Double,
            Schema::Bytes => Kind::Bytes(self.coding()?),
            Schema::String => Kind::String,
            Schema::Uuid => Kind::Uuid(UuidForm::Text),
            Schema::Fixed(fixed) => self.fixed(fixed)?,
            Schema::Decimal(decimal) => Kind::Decimal(self.decimal(decimal)?),
            Schema::Duration => Kind::Duration,
            Schema::Enum(symbols) => {
                let mut indexed = Vec::with_capacity(symbols.symbols.len());
                for (index, symbol) in symbols.symbols.iter().enumerate() {
                    let index = i32::try_from(index).map_err(|_| {
                        Error::schema(format!("the enum `{}` has too many symbols", self.path))
                    })?;
                    indexed.push((symbol.as_bytes().into(), index));
                }
                indexed.sort();
                Kind::Enum(indexed.into())
            }
            Schema::Array(array) => Kind::Array(Box::new(self.collection(
                &array.items,
                namespace,
                schema,
            )?)),
            Schema::Map(map) => {
                Kind::Map(Box::new(self.collection(&map.types, namespace, schema)?))
            }
            other => {
                if let Some(of) = time_type(other) {
                    return self.time(of);
                }
                return Err(Error::schema(format!(
                    "the field `{}` is a {}, which cannot be written from a cell",
                    self.path,
                    type_name(other)
                )));
            }
        })
    }

    fn boolean(&self) -> Kind {
        let [yes, no] = match &self.attributes.booleans {
            Some(own) => own.clone(),
            None if self.cells.booleans.is_empty() => return Kind::Boolean,
            None => {
                let pairs = self.cells.booleans.iter().cloned();
                let (yes, no): (Vec<String>, Vec<String>) = pairs.unzip();
                [yes, no]
            }
        };
        Kind::Words(Box::new(Words {
            yes: yes.into(),
            no: no.into(),
        }))
    }

    fn coding(&self) -> Result<Coding> {
        match self.attributes.formats.as_slice() {
            [] => Ok(Coding::Raw),
            [name] if name == "utf-8" => Ok(Coding::Raw),
            [name] if name == "hex" => Ok(Coding::Hex),
            [name] if name == "base64" => Ok(Coding::Base64),
            other => Err(Error::schema(format!(
                "the format of the field `{}` is {}: bytes are written as utf-8, hex or base64",
                self.path,
                other.join(", ")
            ))),
        }
    }

    fn fixed(&self, fixed: &FixedSchema) -> Result<Kind> {
        Ok(match logical_type(fixed) {
            Some("uuid") if fixed.size == 16 => Kind::Uuid(UuidForm::Fixed),
            _ if is_duration(fixed) => Kind::Duration,
            _ => Kind::Fixed(fixed.size, self.coding()?),
        })
    }

    fn decimal(&self, decimal: &DecimalSchema) -> Result<DecimalType> {
        if decimal.precision > MAX_DECIMAL_DIGITS {
            return Err(Error::schema(format!(
                "the field `{}` is a decimal of {} digits: at most {MAX_DECIMAL_DIGITS} can be written",
                self.path, decimal.precision
            )));
        }
        if let Schema::Fixed(fixed) = &*decimal.inner
            && !holds_digits(fixed.size, decimal.precision)
        {
            return Err(Error::schema(format!(
                "the field `{}` is a decimal of {} digits in {} bytes, which do not hold so many",
                self.path, decimal.precision, fixed.size
            )));
        }
        Ok(DecimalType {
            precision: decimal.precision,
            scale: decimal.scale,
            fixed: match &*decimal.inner {
                Schema::Fixed(fixed) => Some(fixed.size),
                _ => None,
            },
            rounding: self.attributes.rounding,
        })
    }

    fn time(&self, of: TimeType) -> Result<Kind> {
        let formats = match self.attributes.formats.as_slice() {
            [] => &self.cells.time_formats,
            own => own,
        };
        let named =
            |error: Error| Error::schema(format!("the field `{}`: {}", self.path, error.message()));
        let form = match formats {
            [] => TimeForm::Iso,
            formats => TimeForm::parse(formats).map_err(named)?,
        };
        let zone = self
            .attributes
            .time_zone
            .as_ref()
            .or(self.cells.time_zone.as_ref());
        // A day or a time of day in no point of time is none of a zone's, unless one is counted from 1970.
        let zone = zone.filter(|_| !matches!(of, TimeType::TimeOfDay(_)));
        let zone = zone
            .map(|name| time_zone(name).map_err(named))
            .transpose()?;
        Ok(match (of, &form, &zone) {
            (TimeType::Date, TimeForm::Iso, None) => Kind::Date,
            (TimeType::TimeOfDay(unit), TimeForm::Iso, _) => Kind::TimeOfDay(unit),
            (TimeType::Timestamp(unit), TimeForm::Iso, None) => Kind::Timestamp(unit),
            (TimeType::LocalTimestamp(unit), TimeForm::Iso, None) => Kind::LocalTimestamp(unit),
            _ => Kind::Written(Box::new(WrittenTime {
                of,
                form,
                zone,
                ambiguity: self
                    .attributes
                    .time_ambiguity
                    .unwrap_or(self.cells.time_ambiguity),
            })),
        })
    }

    fn collection(
        &self,
        items: &Schema,
        namespace: &Namespace,
        whole: &Schema,
    ) -> Result<Collection> {
        if let (Schema::Record(_), _) = self.avro.resolve(items, namespace)? {
            return Err(Error::schema(format!(
                "the field `{}` is an {}: one row has one cell for it; rows are collected into an array with --group-by",
                self.path,
                type_name(whole)
            )));
        }
        let (items, inside) = self.avro.resolve(items, namespace)?;
        let item = self.taken_apart(items, &inside)?;
        if matches!(item.kind, Kind::Array(_) | Kind::Map(_)) {
            return Err(Error::schema(format!(
                "the field `{}` is an {}: in a cell, items have no parts of their own",
                self.path,
                type_name(whole)
            )));
        }
        Ok(Collection {
            item: item.kind,
            null: item.null,
            branch: item.branch,
            nulls: item.null.and(self.attributes.nulls.clone()),
            delimiter: self
                .attributes
                .delimiter
                .as_ref()
                .map(|text| text.as_bytes().into()),
        })
    }
}

/// Whether so many bytes hold every decimal number of so many digits (Avro specification 1.12, "Decimal").
fn holds_digits(size: usize, precision: usize) -> bool {
    let Some(bits) = (8 * size).checked_sub(1) else {
        return false;
    };
    // No power of ten is one of two, and a double tells them apart far beyond the lengths that are taken.
    bits as f64 > precision as f64 * std::f64::consts::LOG2_10
}

/// An index below 64 in the one byte that Avro writes for it.
fn encoded_index(index: usize) -> Option<u8> {
    u8::try_from(index * 2)
        .ok()
        .filter(|encoded| *encoded < 0x80)
}
