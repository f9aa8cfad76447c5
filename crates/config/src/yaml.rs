//! YAML text as a tree of nodes that know where they stand. Called by the loader; it gives no meaning to any key.
//!
//! Aliases are refused, so the tree is never larger than the file; depth and number of nodes are bounded.
use std::collections::HashMap;

use granit_parser::{Event, Options, Parser, ScanError, Span};

/// A place in a file, both counted from one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Line.
    pub line: u32,
    /// Column, in characters.
    pub column: u32,
}

/// A message about one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Complaint {
    pub(crate) at: Position,
    pub(crate) message: String,
}

impl Complaint {
    pub(crate) fn new(at: Position, message: impl Into<String>) -> Self {
        Self { at, message: message.into() }
    }
}

/// One value and where it begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) at: Position,
    pub(crate) value: Content,
}

/// What a node holds. Scalars are their text: types are the business of the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Content {
    /// A plain scalar without text, `~` or `null`.
    Nothing,
    Scalar(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// One key of a map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) at: Position,
    pub(crate) key: String,
    pub(crate) value: Node,
}

/// Reads one document.
pub(crate) fn parse(text: &str) -> Result<Node, Complaint> {
    let mut options = Options::default();
    options.emit_comments = false;
    let mut builder =
        Builder { events: Parser::new_from_str_with_options(text, options), nodes: 0, last: START };
    loop {
        match builder.next()? {
            (Event::StreamStart | Event::DocumentStart(..), _) => {}
            (Event::StreamEnd | Event::DocumentEnd, at) => return Ok(Node { at, value: Content::Nothing }),
            (event, at) => {
                let root = builder.node(event, at, 0)?;
                builder.end()?;
                return Ok(root);
            }
        }
    }
}

struct Builder<I> {
    events: I,
    nodes: usize,
    last: Position,
}

impl<'a, I: Iterator<Item = Result<(Event<'a>, Span), ScanError>>> Builder<I> {
    fn next(&mut self) -> Result<(Event<'a>, Position), Complaint> {
        let Some(event) = self.events.next() else {
            return Err(Complaint::new(self.last, "the file ends in the middle of a value"));
        };
        let (event, span) = event.map_err(|error| {
            let at = position(error.marker().line(), error.marker().col());
            Complaint::new(at, format!("not valid YAML: {}", error.info()))
        })?;
        self.last = position(span.start.line(), span.start.col());
        Ok((event, self.last))
    }

    fn end(&mut self) -> Result<(), Complaint> {
        loop {
            match self.next()? {
                (Event::StreamEnd, _) => return Ok(()),
                (Event::DocumentStart(..), at) => {
                    return Err(Complaint::new(at, "only one YAML document may stand in the file"));
                }
                _ => {}
            }
        }
    }

    fn node(&mut self, event: Event<'a>, at: Position, depth: usize) -> Result<Node, Complaint> {
        self.nodes += 1;
        if self.nodes > NODES_MAX {
            return Err(Complaint::new(at, format!("more than {NODES_MAX} values")));
        }
        if depth > DEPTH_MAX {
            return Err(Complaint::new(at, format!("nested deeper than {DEPTH_MAX} levels")));
        }
        let value = match event {
            Event::Scalar(text, style, ..) => scalar(text.into_owned(), style),
            Event::SequenceStart(..) => self.list(depth)?,
            Event::MappingStart(..) => self.map(depth)?,
            _ => return Err(Complaint::new(at, "anchors and aliases are not supported here")),
        };
        Ok(Node { at, value })
    }

    fn list(&mut self, depth: usize) -> Result<Content, Complaint> {
        let mut items = Vec::new();
        loop {
            let (event, at) = self.next()?;
            if matches!(event, Event::SequenceEnd) {
                return Ok(Content::List(items));
            }
            items.push(self.node(event, at, depth + 1)?);
        }
    }

    fn map(&mut self, depth: usize) -> Result<Content, Complaint> {
        let mut entries = Vec::new();
        let mut lines = HashMap::new();
        loop {
            let (event, at) = self.next()?;
            if matches!(event, Event::MappingEnd) {
                return Ok(Content::Map(entries));
            }
            let Content::Scalar(key) = self.node(event, at, depth + 1)?.value else {
                return Err(Complaint::new(at, "a key must be a word"));
            };
            if let Some(line) = lines.insert(key.clone(), at.line) {
                return Err(Complaint::new(
                    at,
                    format!("`{key}` stands twice in this section, first in line {line}"),
                ));
            }
            let (event, value_at) = self.next()?;
            let value = self.node(event, value_at, depth + 1)?;
            entries.push(Entry { at, key, value });
        }
    }
}

fn scalar(text: String, style: granit_parser::ScalarStyle) -> Content {
    let plain = style == granit_parser::ScalarStyle::Plain;
    if plain && matches!(text.as_str(), "" | "~" | "null") { Content::Nothing } else { Content::Scalar(text) }
}

fn position(line: usize, column: usize) -> Position {
    let clamp = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
    Position { line: clamp(line.max(1)), column: clamp(column + 1) }
}

pub(crate) const START: Position = Position { line: 1, column: 1 };
const NODES_MAX: usize = 20_000;
const DEPTH_MAX: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_where_everything_stands() {
        let root = parse("a: 1\nb:\n  - x\n  - {c: \"2.0\"}\n").unwrap();
        let Content::Map(entries) = root.value else { panic!("a map") };
        assert_eq!(entries[0].value.value, Content::Scalar("1".into()));
        assert_eq!(entries[1].at, Position { line: 2, column: 1 });
        let Content::List(items) = &entries[1].value.value else { panic!("a list") };
        assert_eq!(items[0].at, Position { line: 3, column: 5 });
        assert!(
            matches!(&items[1].value, Content::Map(inner) if inner[0].value.value == Content::Scalar("2.0".into()))
        );
    }

    #[test]
    fn empty_text_is_nothing() {
        for text in ["", "# only a comment\n", "---\n"] {
            assert_eq!(parse(text).unwrap().value, Content::Nothing, "{text:?}");
        }
    }

    #[test]
    fn refuses_what_could_grow_or_confuse() {
        for text in ["a: &x 1\nb: *x\n", "a: 1\na: 2\n", "a: 1\n---\nb: 1\n", "a: [1\n", "? [a]\n: 1\n"] {
            assert!(parse(text).is_err(), "{text:?}");
        }
        assert!(parse(&"[".repeat(200)).is_err());
    }
}
