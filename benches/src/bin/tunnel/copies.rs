//! Bytes per second over loopback: one connection that sends, one that swallows and answers when it has all.
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use dwcp_benches::measure::median;
use dwcp_benches::node::{Cipher, Node, Shape};
use dwcp_benches::peers::{free_port, installed};
use dwcp_benches::scratch::Scratch;
use serde_json::{Value, json};

use super::{allowing, listening};

/// Every row, and their ratios to two socats.
pub(crate) fn run(scratch: &Scratch, bytes: u64, rounds: u64) -> Result<Value> {
    let target = swallow(bytes)?;
    let clear = Pair::start(scratch, "clear", Cipher::Clear, &target)?;
    let sealed = Pair::start(scratch, "tls", Cipher::Tls, &target)?;
    let socats = Socats::start(&target)?;
    let mut ways = vec![("no tunnel", target.clone())];
    match &socats {
        Some(socats) => ways.push(("two socats", socats.entrance.clone())),
        None => println!("bench tunnel: two socats: skipped: socat is not installed"),
    }
    ways.extend([("tunnel, clear", clear.entrance.clone()), ("tunnel, TLS", sealed.entrance.clone())]);
    let mut rates = vec![Vec::new(); ways.len()];
    for (_, entrance) in &ways {
        copy(entrance, bytes)?;
    }
    for _ in 0..rounds.max(1) {
        for ((_, entrance), rates) in ways.iter().zip(&mut rates) {
            rates.push(copy(entrance, bytes)?);
        }
    }
    println!("{:<24} {:>8} {:>18}", "loopback, one connection", "Gbit/s", "against two socats");
    let base = ways.iter().position(|(label, _)| *label == "two socats");
    let mut rows = serde_json::Map::new();
    for (index, (label, _)) in ways.iter().enumerate() {
        let ratio =
            base.map(|base| median(rates[index].iter().zip(&rates[base]).map(|(a, b)| a / b).collect()));
        let rate = median(rates[index].clone());
        let shown = ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"));
        println!("{label:<24} {rate:>8.2} {shown:>18}");
        rows.insert((*label).to_owned(), json!({ "gbit_per_s": rate, "against_socats": ratio }));
    }
    println!("medians of {} rounds, ratios within a round", rounds.max(1));
    Ok(rows.into())
}

/// Sends so many bytes and awaits the answer; Gbit/s.
fn copy(entrance: &str, bytes: u64) -> Result<f64> {
    let piece = vec![5; 128 * 1024];
    let mut stream = connect(entrance)?;
    let begun = Instant::now();
    let mut left = bytes;
    while left > 0 {
        let count = left.min(piece.len() as u64) as usize;
        stream.write_all(&piece[..count])?;
        left -= count as u64;
    }
    stream.shutdown(Shutdown::Write)?;
    let mut answer = [0; 8];
    stream.read_exact(&mut answer)?;
    ensure!(u64::from_le_bytes(answer) == bytes, "{} bytes arrived", u64::from_le_bytes(answer));
    Ok(bytes as f64 * 8e-9 / begun.elapsed().as_secs_f64())
}

/// Listeners may take a moment to stand.
fn connect(entrance: &str) -> Result<TcpStream> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match TcpStream::connect(entrance) {
            Ok(stream) => return Ok(stream),
            Err(error) if Instant::now() > deadline => return Err(error.into()),
            Err(_) => thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// Takes bytes to their end and says how many there were.
fn swallow(bytes: u64) -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?.to_string();
    thread::spawn(move || {
        let mut buffer = vec![0; 256 * 1024];
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut total = 0;
            while let Ok(count @ 1..) = stream.read(&mut buffer) {
                total += count as u64;
            }
            // Only a whole copy is answered; a client that broke off hears nothing.
            if total == bytes {
                drop(stream.write_all(&total.to_le_bytes()));
            }
        }
    });
    Ok(address)
}

/// Two dataplanes and a tunnel between them.
struct Pair {
    entrance: String,
    _nodes: [Node; 2],
}

impl Pair {
    fn start(scratch: &Scratch, name: &str, cipher: Cipher, target: &str) -> Result<Self> {
        let root = scratch.fresh(name)?;
        let (address, entrance) =
            (format!("127.0.0.1:{}", free_port()?), format!("127.0.0.1:{}", free_port()?));
        let shape = Shape { workers: 1, lanes: 1, cipher };
        let near = Node::start(&root.join("a"), shape, 0, "")?;
        let far = Node::start(&root.join("b"), shape, 1, &address)?;
        near.plan_more(shape.transport(), &far, &address, &[listening(&entrance, target)])?;
        far.plan_more(shape.transport(), &near, "", &[allowing()])?;
        near.await_plan()?;
        far.await_plan()?;
        Ok(Self { entrance, _nodes: [near, far] })
    }
}

/// Two relays in a row, as a tunnel is two.
struct Socats {
    entrance: String,
    children: Vec<Child>,
}

impl Socats {
    fn start(target: &str) -> Result<Option<Self>> {
        if !installed("socat") {
            return Ok(None);
        }
        let mut socats = Self { entrance: target.to_owned(), children: Vec::new() };
        for _ in 0..2 {
            let port = free_port()?;
            let mut command = Command::new("socat");
            command.args(["-b", "131072"]).arg(format!("TCP-LISTEN:{port},bind=127.0.0.1,reuseaddr,fork"));
            let child = command.arg(format!("TCP:{}", socats.entrance)).stdin(Stdio::null()).spawn()?;
            socats.children.push(child);
            socats.entrance = format!("127.0.0.1:{port}");
        }
        Ok(Some(socats))
    }
}

impl Drop for Socats {
    fn drop(&mut self) {
        for child in &mut self.children {
            // It may have ended before.
            drop(child.kill());
            drop(child.wait());
        }
    }
}
