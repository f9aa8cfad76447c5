//! Server-sent events of one transfer (WHATWG HTML, section 9.2), read line by line with every length bounded.
use std::collections::VecDeque;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::{ClientError, check, from_json};
use crate::{EVENT_FINISHED, EVENT_PROGRESS, Transfer};

/// One report of a transfer.
#[derive(Debug, Clone, PartialEq)]
pub enum TransferEvent {
    /// On its way.
    Progress(Box<Transfer>),
    /// Its end; nothing follows.
    Finished(Box<Transfer>),
}

/// The reports of one transfer, as they come.
#[derive(Debug)]
pub struct TransferEvents {
    body: Incoming,
    lines: Lines,
}

impl TransferEvents {
    /// A stream without any sign of life for so long counts as lost; control sends a comment every 15 s.
    pub const IDLE_MAX: Duration = Duration::from_secs(60);

    pub(super) fn new(body: Incoming) -> Self {
        Self { body, lines: Lines::default() }
    }

    /// The next report; `None` when the daemon closed the stream.
    ///
    /// # Errors
    /// Any [`ClientError`]; the stream is then of no further use.
    pub async fn next(&mut self) -> Result<Option<TransferEvent>, ClientError> {
        loop {
            while let Some(message) = self.lines.messages.pop_front() {
                if let Some(event) = message.parse()? {
                    return Ok(Some(event));
                }
            }
            let frame = match tokio::time::timeout(Self::IDLE_MAX, self.body.frame()).await {
                Ok(Some(frame)) => frame.map_err(ClientError::Lost)?,
                Ok(None) => return Ok(None),
                Err(_elapsed) => return Err(ClientError::Timeout { seconds: Self::IDLE_MAX.as_secs_f64() }),
            };
            if let Some(bytes) = frame.data_ref() {
                self.lines.feed(bytes)?;
            }
        }
    }
}

/// One message: its event name and its data.
#[derive(Debug, Default, PartialEq, Eq)]
struct Message {
    event: Vec<u8>,
    data: Vec<u8>,
}

impl Message {
    /// The report in it; `None` for events of a later version.
    fn parse(self) -> Result<Option<TransferEvent>, ClientError> {
        if self.event == EVENT_PROGRESS.as_bytes() {
            return Ok(Some(TransferEvent::Progress(Box::new(check(from_json(&self.data)?)?))));
        }
        if self.event == EVENT_FINISHED.as_bytes() {
            return Ok(Some(TransferEvent::Finished(Box::new(check(from_json(&self.data)?)?))));
        }
        Ok(None)
    }
}

/// Cuts bytes into messages.
#[derive(Debug, Default)]
struct Lines {
    line: Vec<u8>,
    message: Message,
    messages: VecDeque<Message>,
}

impl Lines {
    fn feed(&mut self, bytes: &[u8]) -> Result<(), ClientError> {
        for &byte in bytes {
            if byte == b'\n' {
                self.end_line()?;
                continue;
            }
            if self.line.len() == MESSAGE_BYTES_MAX {
                return Err(ClientError::TooLong { bytes_max: MESSAGE_BYTES_MAX });
            }
            self.line.push(byte);
        }
        Ok(())
    }

    fn end_line(&mut self) -> Result<(), ClientError> {
        let mut line = std::mem::take(&mut self.line);
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        if line.is_empty() {
            let message = std::mem::take(&mut self.message);
            if !message.data.is_empty() {
                self.messages.push_back(message);
            }
            return Ok(());
        }
        let colon = line.iter().position(|&byte| byte == b':').unwrap_or(line.len());
        let value = line.get(colon + 1..).unwrap_or_default();
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match &line[..colon] {
            b"event" => self.message.event = value.to_vec(),
            b"data" => {
                if self.message.data.len() + value.len() >= MESSAGE_BYTES_MAX {
                    return Err(ClientError::TooLong { bytes_max: MESSAGE_BYTES_MAX });
                }
                if !self.message.data.is_empty() {
                    self.message.data.push(b'\n');
                }
                self.message.data.extend_from_slice(value);
            }
            // Comments, ids, retry times and fields of later versions.
            _ => {}
        }
        Ok(())
    }
}

/// Longest message: a transfer with the most sources and failures, all of them as long as they may be, fits.
const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(pieces: &[&[u8]]) -> Vec<(String, String)> {
        let mut lines = Lines::default();
        for piece in pieces {
            lines.feed(piece).unwrap();
        }
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        lines.messages.into_iter().map(|message| (text(message.event), text(message.data))).collect()
    }

    #[test]
    fn messages_are_found_wherever_the_bytes_are_cut() {
        let whole =
            b": hello\n\nevent: progress\r\ndata: {\"a\":\ndata: 1}\n\nid: 7\nevent:finished\ndata:x\n\n";
        let expected =
            vec![("progress".to_owned(), "{\"a\":\n1}".to_owned()), ("finished".to_owned(), "x".to_owned())];
        for cut in 0..whole.len() {
            assert_eq!(messages(&[&whole[..cut], &whole[cut..]]), expected);
        }
    }

    #[test]
    fn endless_lines_and_messages_are_refused() {
        let megabyte = vec![b'x'; 1024 * 1024];
        let mut lines = Lines::default();
        let result = (0..17).try_for_each(|_| lines.feed(&megabyte));
        assert!(matches!(result, Err(ClientError::TooLong { .. })));

        let mut lines = Lines::default();
        let result = (0..17).try_for_each(|_| {
            lines.feed(b"data: ")?;
            lines.feed(&megabyte)?;
            lines.feed(b"\n")
        });
        assert!(matches!(result, Err(ClientError::TooLong { .. })));
    }
}
