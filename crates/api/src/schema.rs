//! Names of document types: `"schema": "dwcp.<name>/<version>"`. A reader refuses a version it does not know.
use std::borrow::Cow;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use utoipa::openapi::{Object, RefOr, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

/// Name and version of a document's type, such as `dwcp.status/1`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SchemaName(Cow<'static, str>);

impl SchemaName {
    /// Names one of our own types.
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        Self(Cow::Borrowed(name))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl PartialSchema for SchemaName {
    fn schema() -> RefOr<Schema> {
        Object::builder()
            .schema_type(Type::String)
            .description(Some("Name and version of the document's type"))
            .into()
    }
}

impl ToSchema for SchemaName {}

/// A document that says which type it is.
pub trait Document: DeserializeOwned {
    /// What [`Document::schema`] must be.
    const NAME: &'static str;

    /// What the document says it is.
    fn schema(&self) -> &SchemaName;
}

/// Implements [`Document`] for types with a `schema` field.
macro_rules! documents {
    ($($type:ty = $name:literal),* $(,)?) => {$(
        impl $type {
            #[doc = concat!("Value of its `schema` field: `", $name, "`.")]
            pub const SCHEMA: $crate::SchemaName = $crate::SchemaName::new($name);
        }

        impl $crate::schema::Document for $type {
            const NAME: &'static str = $name;
            fn schema(&self) -> &$crate::schema::SchemaName {
                &self.schema
            }
        }
    )*};
}
pub(crate) use documents;
