//! What the store asks of a database: statements with values in, rows out, all or nothing between `begin` and `commit`.
//! SQLite ([`super::sqlite`]) and PostgreSQL ([`super::postgres`]) answer it; tables and statements stand once, in the
//! files that know the rows.
use std::path::Path;
use std::sync::Arc;

/// Why a database did not do something.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    /// What is there cannot be what this program wrote.
    #[error("it is damaged: {0}")]
    Damaged(String),
    /// It cannot be reached for now.
    #[error("it cannot be reached: {0}")]
    Away(String),
    /// Somebody else owns it.
    #[error("another dwcp-control has it open")]
    Owned,
    /// What the database says.
    #[error("{0}")]
    Refused(String),
}

/// One value of a statement or a row. There are no others: truth is 0 or 1, times are milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Null,
    Integer(i64),
    Text(String),
    Bytes(Vec<u8>),
}

/// One row of an answer.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) columns: Arc<[String]>,
    pub(super) values: Vec<Value>,
}

/// A connection. In statements `$1`, `$2`, … stand for values, in the order in which they first appear: both databases
/// read that the same way.
pub(super) trait Database: Send {
    /// Changes rows; how many.
    fn execute(&mut self, sql: &str, values: &[Value]) -> Result<u64, Fault>;
    /// Reads rows.
    fn query(&mut self, sql: &str, values: &[Value]) -> Result<Vec<Row>, Fault>;
    /// From here to `commit` all or nothing.
    fn begin(&mut self) -> Result<(), Fault>;
    /// Durable when it returns. Where it fails the caller rolls back.
    fn commit(&mut self) -> Result<(), Fault>;
    /// As if there had been no `begin`.
    fn rollback(&mut self);
    /// How many migrations it has seen.
    fn layout(&mut self) -> Result<i64, Fault>;
    /// Runs one migration, and remembers that it did; whole or not at all.
    fn migrate(&mut self, step: &str, number: usize) -> Result<(), Fault>;
    /// Makes a change durable that changes nothing: whether it takes one is the question.
    fn probe(&mut self) -> Result<(), Fault>;
    /// Writes a consistent copy of everything to an SQLite file that does not exist yet.
    fn copy(&mut self, target: &Path) -> Result<(), Fault>;
    /// Rows came with numbers of their own: the next number that the database gives is above them.
    fn settle(&mut self) -> Result<(), Fault>;
}

/// Does `work` whole or not at all.
///
/// # Errors
/// Its own, or that of the database; then nothing has changed.
pub(super) fn atomically<T>(
    database: &mut dyn Database,
    work: impl FnOnce(&mut dyn Database) -> Result<T, Fault>,
) -> Result<T, Fault> {
    database.begin()?;
    let done = work(database).and_then(|value| database.commit().map(|()| value));
    if done.is_err() {
        database.rollback();
    }
    done
}

impl Row {
    fn value(&self, name: &str) -> Result<&Value, Fault> {
        let index = self.columns.iter().position(|column| column == name);
        index
            .and_then(|index| self.values.get(index))
            .ok_or_else(|| Fault::Damaged(format!("no column {name}")))
    }

    pub(super) fn optional_integer(&self, name: &str) -> Result<Option<i64>, Fault> {
        match self.value(name)? {
            Value::Null => Ok(None),
            Value::Integer(value) => Ok(Some(*value)),
            other => Err(Fault::Damaged(format!("{name} is {other:?}"))),
        }
    }

    pub(super) fn integer(&self, name: &str) -> Result<i64, Fault> {
        self.optional_integer(name)?.ok_or_else(|| Fault::Damaged(format!("{name} is missing")))
    }

    /// The bits of a number that has no sign.
    pub(super) fn number(&self, name: &str) -> Result<u64, Fault> {
        self.integer(name).map(i64::cast_unsigned)
    }

    /// A number that has to fit.
    pub(super) fn small<T: TryFrom<i64>>(&self, name: &str) -> Result<T, Fault> {
        let value = self.integer(name)?;
        T::try_from(value).map_err(|_| Fault::Damaged(format!("{name} is {value}")))
    }

    pub(super) fn flag(&self, name: &str) -> Result<bool, Fault> {
        self.integer(name).map(|value| value != 0)
    }

    pub(super) fn optional_text(&self, name: &str) -> Result<Option<String>, Fault> {
        match self.value(name)? {
            Value::Null => Ok(None),
            Value::Text(text) => Ok(Some(text.clone())),
            other => Err(Fault::Damaged(format!("{name} is {other:?}"))),
        }
    }

    pub(super) fn text(&self, name: &str) -> Result<String, Fault> {
        self.optional_text(name)?.ok_or_else(|| Fault::Damaged(format!("{name} is missing")))
    }

    pub(super) fn bytes(&self, name: &str) -> Result<Vec<u8>, Fault> {
        match self.value(name)? {
            Value::Bytes(bytes) => Ok(bytes.clone()),
            other => Err(Fault::Damaged(format!("{name} is {other:?}"))),
        }
    }
}

/// The databases have signed 64-bit integers only; the bits are kept.
impl From<u64> for Value {
    fn from(value: u64) -> Self {
        Self::Integer(value.cast_signed())
    }
}

impl From<u32> for Value {
    fn from(value: u32) -> Self {
        Self::Integer(value.into())
    }
}

impl From<u16> for Value {
    fn from(value: u16) -> Self {
        Self::Integer(value.into())
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Integer(value.into())
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<&String> for Value {
    fn from(text: &String) -> Self {
        Self::Text(text.clone())
    }
}

impl From<Vec<u8>> for Value {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(bytes)
    }
}

impl<T: Into<Self>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}
