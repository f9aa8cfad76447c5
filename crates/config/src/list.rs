//! Lists of values: written as lists, or in one scalar with commas. An empty one is written `[]`.
use crate::value::{LIST_MAX, Value, read_joined};
use crate::yaml::{Complaint, Content, Node};

/// Several values of one type, in the order in which they were written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct List<T>(pub Vec<T>);

impl<T: Value> Value for List<T> {
    fn kind() -> String {
        format!("list of {}", T::kind())
    }

    fn parse(text: &str) -> Result<Self, String> {
        if text.trim().is_empty() {
            return Ok(Self(Vec::new()));
        }
        let items = text.split(',').take(LIST_MAX + 1).map(|item| T::parse(item.trim()));
        let items = items.collect::<Result<Vec<_>, _>>()?;
        if items.len() > LIST_MAX { Err(format!("more than {LIST_MAX} items")) } else { Ok(Self(items)) }
    }

    fn show(&self) -> String {
        self.0.iter().map(T::show).collect::<Vec<_>>().join(",")
    }

    fn read(node: &Node) -> Result<Self, Complaint> {
        if matches!(&node.value, Content::List(items) if items.is_empty()) {
            return Ok(Self(Vec::new()));
        }
        read_joined(node)
    }
}
