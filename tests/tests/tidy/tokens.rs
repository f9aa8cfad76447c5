//! Words of Rust source outside comments and literals. Used by the rules about source.

/// Every identifier and keyword, with its line (from 1).
pub(crate) fn words(source: &str) -> Vec<(usize, &str)> {
    let mut scanner = Scanner { source, at: 0, line: 1 };
    let mut words = Vec::new();
    while let Some(byte) = scanner.peek(0) {
        match (byte, scanner.peek(1)) {
            (b'/', Some(b'/')) => scanner.skip_until(b'\n'),
            (b'/', Some(b'*')) => scanner.skip_block_comment(),
            (b'"', _) => scanner.skip_string(),
            (b'\'', _) => scanner.skip_character_or_lifetime(),
            _ if is_word(byte) => {
                let line = scanner.line;
                let word = scanner.take_word();
                if scanner.starts_raw_string(word) {
                    scanner.skip_raw_string();
                } else {
                    words.push((line, word));
                }
            }
            _ => scanner.advance(1),
        }
    }
    words
}

struct Scanner<'a> {
    source: &'a str,
    at: usize,
    line: usize,
}

impl<'a> Scanner<'a> {
    fn peek(&self, ahead: usize) -> Option<u8> {
        self.source.as_bytes().get(self.at + ahead).copied()
    }

    fn advance(&mut self, count: usize) {
        for _ in 0..count {
            self.line += usize::from(self.peek(0) == Some(b'\n'));
            self.at += 1;
        }
    }

    fn skip_until(&mut self, end: u8) {
        while self.peek(0).is_some_and(|byte| byte != end) {
            self.advance(1);
        }
    }

    /// They nest.
    fn skip_block_comment(&mut self) {
        let mut depth = 0_usize;
        while self.peek(0).is_some() {
            match (self.peek(0), self.peek(1)) {
                (Some(b'/'), Some(b'*')) => {
                    depth += 1;
                    self.advance(2);
                }
                (Some(b'*'), Some(b'/')) => {
                    depth -= 1;
                    self.advance(2);
                }
                _ => self.advance(1),
            }
            if depth == 0 {
                return;
            }
        }
    }

    fn skip_string(&mut self) {
        self.advance(1);
        while let Some(byte) = self.peek(0) {
            match byte {
                b'\\' => self.advance(2),
                b'"' => return self.advance(1),
                _ => self.advance(1),
            }
        }
    }

    /// `'x'` and `'\''` are characters; `'x` alone is a lifetime, of which the quote alone is passed.
    fn skip_character_or_lifetime(&mut self) {
        if self.peek(1) == Some(b'\\') {
            self.advance(3);
            self.skip_until(b'\'');
            return self.advance(1);
        }
        let rest = self.source.get(self.at + 1..).unwrap_or_default();
        let mut characters = rest.char_indices().skip(1);
        match characters.next() {
            Some((end, '\'')) => self.advance(end + 2),
            _ => self.advance(1),
        }
    }

    fn take_word(&mut self) -> &'a str {
        let start = self.at;
        while self.peek(0).is_some_and(is_word) {
            self.advance(1);
        }
        &self.source[start..self.at]
    }

    fn starts_raw_string(&self, prefix: &str) -> bool {
        let hashes = self.hashes();
        matches!(prefix, "r" | "br" | "cr") && self.peek(hashes) == Some(b'"')
    }

    fn skip_raw_string(&mut self) {
        let hashes = self.hashes();
        let end = format!("\"{}", "#".repeat(hashes));
        self.advance(hashes + 1);
        let length = self.source[self.at..].find(&end).map_or(self.source.len(), |found| found + end.len());
        self.advance(length);
    }

    fn hashes(&self) -> usize {
        self.source.as_bytes()[self.at..].iter().take_while(|&&byte| byte == b'#').count()
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

#[test]
fn comments_and_literals_hold_no_words() {
    let source = r####"
        // unsafe one
        /* unsafe /* nested */ unsafe */
        let a = "unsafe \" unsafe"; let b = r#"unsafe " unsafe"#; let c = b"unsafe"; let d = br"unsafe";
        let e = '"'; let f = '\''; let g: &'static str = "unsafe"; let h = 'é';
        unsafe_code();
    "####;
    assert!(words(source).iter().all(|(_, word)| *word != "unsafe"), "{:?}", words(source));
    assert!(words(source).contains(&(6, "unsafe_code")));
}

#[test]
fn code_is_seen_with_its_line() {
    assert_eq!(
        words("fn a<'b>() {\n    unsafe { c() }\n}").iter().find(|(_, word)| *word == "unsafe"),
        Some(&(2, "unsafe"))
    );
    assert!(words("let x = 'a'; unsafe {}").contains(&(1, "unsafe")));
    assert!(words("let x = \"a\"; unsafe {}").contains(&(1, "unsafe")));
}
