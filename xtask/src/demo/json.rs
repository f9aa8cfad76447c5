//! Reads the JSON that `dwcp --json` prints, so that xtask needs no library for it and a newcomer no longer build.
//! Called by the demo alone. It accepts a little more than JSON; it writes none.
use std::iter::Peekable;
use std::str::Chars;

use anyhow::{Result, bail};

/// A value; members in the order of the document.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Json {
    /// `null`, `true`, `false` and numbers, as written.
    Plain(String),
    /// A string.
    Text(String),
    /// A list.
    List(Vec<Self>),
    /// An object.
    Object(Vec<(String, Self)>),
}

impl Json {
    /// Reads one document.
    ///
    /// # Errors
    /// It is none, or is nested too deeply.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let mut parser = Parser { rest: text.chars().peekable() };
        let value = parser.value(0)?;
        parser.skip_space();
        match parser.rest.next() {
            None => Ok(value),
            Some(odd) => bail!("'{odd}' after the end of a JSON document"),
        }
    }

    /// The member at a path of names, such as `dataplane.pid`.
    pub(super) fn at(&self, path: &str) -> Option<&Self> {
        path.split('.').try_fold(self, |value, name| match value {
            Self::Object(members) => members.iter().find(|(known, _)| known == name).map(|(_, value)| value),
            Self::Plain(_) | Self::Text(_) | Self::List(_) => None,
        })
    }

    /// The text there; empty where there is none.
    pub(super) fn text(&self, path: &str) -> &str {
        match self.at(path) {
            Some(Self::Plain(text) | Self::Text(text)) => text,
            Some(Self::List(_) | Self::Object(_)) | None => "",
        }
    }

    /// The number there; 0 where there is none.
    pub(super) fn number(&self, path: &str) -> f64 {
        self.text(path).parse().unwrap_or(0.0)
    }

    /// The list there; empty where there is none.
    pub(super) fn list(&self, path: &str) -> &[Self] {
        match self.at(path) {
            Some(Self::List(items)) => items,
            Some(Self::Plain(_) | Self::Text(_) | Self::Object(_)) | None => &[],
        }
    }
}

struct Parser<'a> {
    rest: Peekable<Chars<'a>>,
}

impl Parser<'_> {
    fn value(&mut self, depth: usize) -> Result<Json> {
        if depth > DEPTH_MAX {
            bail!("a JSON document is nested too deeply");
        }
        self.skip_space();
        match self.rest.peek() {
            Some('{') => self.object(depth),
            Some('[') => self.items(depth),
            Some('"') => Ok(Json::Text(self.string()?)),
            Some(_) => self.plain(),
            None => bail!("a JSON document ends early"),
        }
    }

    fn object(&mut self, depth: usize) -> Result<Json> {
        self.expect('{')?;
        let mut members = Vec::new();
        while !self.take('}') {
            if !members.is_empty() {
                self.expect(',')?;
            }
            self.skip_space();
            let name = self.string()?;
            self.expect(':')?;
            members.push((name, self.value(depth + 1)?));
        }
        Ok(Json::Object(members))
    }

    fn items(&mut self, depth: usize) -> Result<Json> {
        self.expect('[')?;
        let mut items = Vec::new();
        while !self.take(']') {
            if !items.is_empty() {
                self.expect(',')?;
            }
            items.push(self.value(depth + 1)?);
        }
        Ok(Json::List(items))
    }

    fn string(&mut self) -> Result<String> {
        self.expect('"')?;
        let mut text = String::new();
        loop {
            match self.rest.next() {
                Some('"') => return Ok(text),
                Some('\\') => text.push(self.escaped()?),
                Some(character) => text.push(character),
                None => bail!("a JSON string does not end"),
            }
        }
    }

    fn escaped(&mut self) -> Result<char> {
        Ok(match self.rest.next() {
            Some('n') => '\n',
            Some('t') => '\t',
            Some('r') => '\r',
            Some('b') => '\u{8}',
            Some('f') => '\u{c}',
            Some('u') => {
                let digits: String = self.rest.by_ref().take(4).collect();
                let code = u32::from_str_radix(&digits, 16)?;
                // Halves of surrogate pairs: nothing that the demo looks at has them.
                char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
            }
            Some(character) => character,
            None => bail!("a JSON string does not end"),
        })
    }

    fn plain(&mut self) -> Result<Json> {
        let mut text = String::new();
        while let Some(character) =
            self.rest.next_if(|next| next.is_ascii_alphanumeric() || "+-.".contains(*next))
        {
            text.push(character);
        }
        if text.is_empty() {
            bail!("no JSON value at {:?}", self.rest.peek());
        }
        Ok(Json::Plain(text))
    }

    fn take(&mut self, wanted: char) -> bool {
        self.skip_space();
        self.rest.next_if_eq(&wanted).is_some()
    }

    fn expect(&mut self, wanted: char) -> Result<()> {
        if !self.take(wanted) {
            bail!("'{wanted}' is missing in a JSON document before {:?}", self.rest.peek());
        }
        Ok(())
    }

    fn skip_space(&mut self) {
        while self.rest.next_if(|next| next.is_ascii_whitespace()).is_some() {}
    }
}

const DEPTH_MAX: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_read() {
        let json =
            Json::parse(" {\"a\": {\"b\" : [1, -2.5e3, null, \"x\\\"\\u0041\\n\"], \"c\":{}}, \"d\":[]}\n")
                .unwrap();
        let items = json.list("a.b");
        assert_eq!(items.len(), 4);
        assert_eq!(items[1], Json::Plain("-2.5e3".into()));
        assert_eq!(items[3], Json::Text("x\"A\n".into()));
        assert!(json.list("d").is_empty() && json.at("a.x").is_none() && json.number("a.c").abs() < 1e-9);
    }

    #[test]
    fn damage_is_an_error() {
        for text in [
            "",
            "{",
            "[1",
            "[1,]",
            "{\"a\"}",
            "{\"a\":}",
            "\"x",
            "1 2",
            "[1 2]",
            "\"\\u00\"",
            &"[".repeat(99),
        ] {
            assert!(Json::parse(text).is_err(), "{text}");
        }
    }
}
