//! Values on their way to PostgreSQL and back. Columns are BIGINT, TEXT or BYTEA, as migrations make them.
use std::error::Error;
use std::sync::Arc;

use postgres::types::private::BytesMut;
use postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};

use crate::store::database::{Fault, Row, Value};

/// A value as a parameter of a statement.
#[derive(Debug)]
pub(super) struct Parameter<'a>(pub(super) &'a Value);

impl ToSql for Parameter<'_> {
    fn to_sql(&self, kind: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        match self.0 {
            Value::Null => Ok(IsNull::Yes),
            Value::Integer(value) => value.to_sql(kind, out),
            Value::Text(text) => text.to_sql(kind, out),
            Value::Bytes(bytes) => bytes.to_sql(kind, out),
        }
    }

    fn accepts(kind: &Type) -> bool {
        [Type::INT8, Type::TEXT, Type::BYTEA].contains(kind)
    }

    to_sql_checked!();
}

/// As the client takes them.
pub(super) fn references<'a>(parameters: &'a [Parameter<'a>]) -> Vec<&'a (dyn ToSql + Sync)> {
    parameters.iter().map(|parameter| parameter as _).collect()
}

impl<'a> FromSql<'a> for Value {
    fn from_sql(kind: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(match *kind {
            Type::INT8 => Self::Integer(FromSql::from_sql(kind, raw)?),
            Type::TEXT => Self::Text(FromSql::from_sql(kind, raw)?),
            _ => Self::Bytes(FromSql::from_sql(kind, raw)?),
        })
    }

    fn from_sql_null(_: &Type) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self::Null)
    }

    fn accepts(kind: &Type) -> bool {
        [Type::INT8, Type::TEXT, Type::BYTEA].contains(kind)
    }
}

/// A row as the store knows rows.
pub(super) fn row(row: &postgres::Row, columns: &Arc<[String]>) -> Result<Row, Fault> {
    let value =
        |index| row.try_get(index).map_err(|error: postgres::Error| Fault::Damaged(error.to_string()));
    let values = (0..columns.len()).map(value).collect::<Result<_, _>>()?;
    Ok(Row { columns: Arc::clone(columns), values })
}
