//! Results to stdout, notes to stderr. Every line that leaves the command goes through here.
use std::io::{ErrorKind, IsTerminal, Write, stderr, stdout};

use serde::Serialize;

use crate::exit::{Code, Failure};

/// Prints a result. A reader that went away (`| head`) ends the command quietly.
pub(crate) fn result(text: &str) -> Result<(), Failure> {
    let mut stdout = stdout().lock();
    let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    match written {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(Failure::new(Code::Ok, "")),
        Err(error) => Err(Failure::general(format!("cannot write the result: {error}"))),
    }
}

/// Prints a result as JSON, indented.
pub(crate) fn json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value);
    result(&(text.map_err(|error| Failure::general(error.to_string()))? + "\n"))
}

/// Prints a result as one line of JSON.
pub(crate) fn json_line(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string(value);
    result(&(text.map_err(|error| Failure::general(error.to_string()))? + "\n"))
}

/// Prints a line to stderr.
pub(crate) fn error(line: &str) {
    // Nobody is left to tell when stderr itself fails.
    drop(writeln!(stderr().lock(), "{line}"));
}

/// Whether a person watches stdout.
pub(crate) fn stdout_is_terminal() -> bool {
    stdout().is_terminal()
}

/// Whether a person watches stderr.
pub(crate) fn stderr_is_terminal() -> bool {
    stderr().is_terminal()
}

/// Whether words may be coloured on stdout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Colour {
    Always,
    Never,
}

/// How good the news is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    Good,
    Odd,
    Bad,
}

impl Colour {
    /// `text` in the colour of its tone.
    pub(crate) fn paint(self, tone: Tone, text: &str) -> String {
        let number = match tone {
            Tone::Good => 32,
            Tone::Odd => 33,
            Tone::Bad => 31,
        };
        match self {
            Self::Always => format!("\x1b[{number}m{text}\x1b[0m"),
            Self::Never => text.to_owned(),
        }
    }
}

/// Text that came from elsewhere, fit for a terminal: control characters are shown, not sent.
pub(crate) fn plain(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() {
            safe.extend(character.escape_default());
        } else {
            safe.push(character);
        }
    }
    safe
}
