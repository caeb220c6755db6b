//! What the compiler works with: operations as they are collected, and where the fields at hand stand.

use crate::encode::{Cell, Op};

/// Collects operations; constants that meet become one.
pub(super) struct Ops {
    ops: Vec<Op>,
    pub(super) constant: Vec<u8>,
}

impl Ops {
    pub(super) fn new() -> Self {
        Self {
            ops: Vec::new(),
            constant: Vec::new(),
        }
    }

    pub(super) fn cell(&mut self, cell: Cell) {
        self.flush();
        self.ops.push(Op::Cell(cell));
    }

    pub(super) fn op(&mut self, op: Op) {
        match op {
            Op::Constant(bytes) => self.constant.extend_from_slice(&bytes),
            op => {
                self.flush();
                self.ops.push(op);
            }
        }
    }

    pub(super) fn flush(&mut self) {
        if !self.constant.is_empty() {
            self.ops
                .push(Op::Constant(std::mem::take(&mut self.constant).into()));
        }
    }

    pub(super) fn finish(mut self) -> Vec<Op> {
        self.flush();
        self.ops
    }
}

/// Where fields stand.
#[derive(Debug, Clone, Copy)]
pub(super) enum FieldsOf<'a> {
    /// In the record of a row, perhaps as an item of an array.
    Row { array: Option<&'a str> },
    /// Around the array of a group.
    Group,
    /// In a record inside one of these.
    Inside {
        around: Option<&'a str>,
        path: &'a str,
        is_group: bool,
    },
}

impl<'a> FieldsOf<'a> {
    pub(super) fn array(self) -> Option<&'a str> {
        match self {
            Self::Row { array } => array,
            Self::Inside { around, .. } => around,
            Self::Group => None,
        }
    }

    /// Whether the fields are the same for all rows of a group.
    pub(super) fn is_group(self) -> bool {
        match self {
            Self::Group => true,
            Self::Row { .. } => false,
            Self::Inside { is_group, .. } => is_group,
        }
    }

    /// The path of a field from the record of its row, or of the group.
    pub(super) fn inner_path(self, field: &str) -> String {
        match self {
            Self::Inside { path, .. } => format!("{path}.{field}"),
            _ => field.to_owned(),
        }
    }

    pub(super) fn path(self, field: &str) -> String {
        let inner = self.inner_path(field);
        match self.array() {
            Some(array) => format!("{array}[].{inner}"),
            None => inner,
        }
    }
}
