//! The smallest HTTP client that keeps its connection: one request, one answer, the time between. Used by benches that
//! ask control; a library would measure itself.
use std::io::{BufRead, BufReader, Read as _, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

/// A kept connection.
pub struct Connection {
    stream: BufReader<TcpStream>,
    line: String,
    body: Vec<u8>,
}

impl Connection {
    /// Connects to `host:port`.
    ///
    /// # Errors
    /// Nobody listens there.
    pub fn open(address: &str) -> Result<Self> {
        let stream = TcpStream::connect(address).with_context(|| address.to_owned())?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { stream: BufReader::new(stream), line: String::new(), body: Vec::new() })
    }

    /// `GET` of a path: status and body.
    ///
    /// # Errors
    /// The connection broke, or the answer is none.
    pub fn get(&mut self, path: &str) -> Result<(u16, &[u8])> {
        self.send("GET", path, "")?;
        self.receive()
    }

    /// `POST` of a JSON body: status and body.
    ///
    /// # Errors
    /// The connection broke, or the answer is none.
    pub fn post(&mut self, path: &str, body: &str) -> Result<(u16, &[u8])> {
        self.send("POST", path, body)?;
        self.receive()
    }

    /// How long one `GET` took.
    ///
    /// # Errors
    /// As [`Self::get`]; another status than 200.
    pub fn time(&mut self, path: &str) -> Result<Duration> {
        let start = Instant::now();
        let (status, _) = self.get(path)?;
        let took = start.elapsed();
        ensure!(status == 200, "{path} answered {status}");
        Ok(took)
    }

    /// Writes a request and does not wait for its answer.
    ///
    /// # Errors
    /// The connection broke.
    pub fn send(&mut self, method: &str, path: &str, body: &str) -> Result<()> {
        let more = match body {
            "" => String::new(),
            body => format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len()),
        };
        let request = format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\n{more}\r\n{body}");
        self.stream.get_mut().write_all(request.as_bytes())?;
        Ok(())
    }

    /// Reads the next answer.
    ///
    /// # Errors
    /// The connection broke, or the answer is none.
    pub fn receive(&mut self) -> Result<(u16, &[u8])> {
        self.read_line()?;
        let status = self.line.split(' ').nth(1).and_then(|text| text.parse().ok());
        let status = status.with_context(|| format!("no status in {:?}", self.line))?;
        let mut length = None;
        loop {
            self.read_line()?;
            if self.line.trim_end().is_empty() {
                break;
            }
            if let Some((name, value)) = self.line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse::<usize>().ok();
            }
        }
        let length = length.context("an answer without Content-Length")?;
        ensure!(length <= BODY_BYTES_MAX, "an answer of {length} bytes");
        self.body.resize(length, 0);
        self.stream.read_exact(&mut self.body)?;
        Ok((status, &self.body))
    }

    fn read_line(&mut self) -> Result<()> {
        self.line.clear();
        ensure!(self.stream.read_line(&mut self.line)? > 0, "the connection was closed");
        Ok(())
    }
}

const PATIENCE: Duration = Duration::from_secs(60);
const BODY_BYTES_MAX: usize = 64 << 20;
