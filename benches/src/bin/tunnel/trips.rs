//! Round trips of small requests: four connections that each send 100 bytes, await them, and pause for 5 ms.
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use dwcp_benches::far::FarPair;
use dwcp_benches::node::BBR;
use dwcp_benches::scratch::Scratch;
use dwcp_wan::{Emulator, Link, Namespace};
use serde_json::{Value, json};

use super::{allowing, listening};

/// Every row, and what follows.
pub(crate) fn run(scratch: &Scratch, seconds: u64) -> Result<Value> {
    println!("{:<44} {:>9} {:>9} {:>9} {:>7}", "100 Mbit/s, 50 ms", "p50 ms", "p99 ms", "max ms", "trips");
    let mut rows = Vec::new();
    for (label, way, beside) in [
        ("plain connection, idle", Way::Plain, Beside::Nothing),
        ("tunnel, idle", Way::Tunnel, Beside::Nothing),
        ("plain connection, beside our bulk", Way::Plain, Beside::Bulk),
        ("tunnel, beside our bulk", Way::Tunnel, Beside::Bulk),
        ("tunnel, beside bulk in the same tunnel", Way::Tunnel, Beside::TunnelledBulk),
    ] {
        let row = measure(scratch, way, beside, seconds).with_context(|| label.to_owned())?;
        let late = if row.is_void { " VOID: the emulator was late" } else { "" };
        println!(
            "{label:<44} {:>9.1} {:>9.1} {:>9.1} {:>7}{late}{}",
            row.at(0.5),
            row.at(0.99),
            row.at(1.0),
            row.trips_ms.len(),
            row.bulk_share.map_or_else(String::new, |share| format!("  bulk at {share:.2} of the link"))
        );
        rows.push((label, row));
    }
    let p99 = |label: &str| {
        rows.iter().find(|(known, _)| *known == label).map_or(f64::NAN, |(_, row)| row.at(0.99))
    };
    let ratio = p99("tunnel, beside our bulk") / p99("tunnel, idle");
    println!("p99 through the tunnel beside bulk is {ratio:.2} of an idle link's (target: at most 2)");
    Ok(rows
        .iter()
        .map(|(label, row)| {
            let value = json!({
                "p50_ms": row.at(0.5), "p99_ms": row.at(0.99), "trips": row.trips_ms.len(),
                "bulk_share": row.bulk_share, "void": row.is_void,
            });
            ((*label).to_owned(), value)
        })
        .collect::<serde_json::Map<_, _>>()
        .into())
}

#[derive(Clone, Copy, PartialEq)]
enum Way {
    Plain,
    Tunnel,
}

#[derive(Clone, Copy, PartialEq)]
enum Beside {
    Nothing,
    /// A transfer of ours between the same nodes.
    Bulk,
    /// A connection that sends as much as it can through the same tunnel.
    TunnelledBulk,
}

struct Row {
    /// Sorted.
    trips_ms: Vec<f64>,
    bulk_share: Option<f64>,
    is_void: bool,
}

impl Row {
    fn at(&self, quantile: f64) -> f64 {
        let last = self.trips_ms.len().saturating_sub(1);
        self.trips_ms.get((last as f64 * quantile).round() as usize).copied().unwrap_or(f64::NAN)
    }
}

/// On a link of its own, so that nothing is remembered from another row.
fn measure(scratch: &Scratch, way: Way, beside: Beside, seconds: u64) -> Result<Row> {
    let emulator = Emulator::start(&Link::both_ways("rate=100mbit,delay=25ms")?)?;
    let (near, far) = (emulator.first(), emulator.second());
    let target = serve(far)?;
    let through = format!("127.0.0.1:{}", target.port());
    let plan = (&[listening(ENTRANCE, &through)][..], &[allowing()][..]);
    let mut pair = FarPair::start_with(scratch, (near, far), Emulator::ADDRESSES[1], BBR, plan)?;
    let address = match way {
        Way::Plain => SocketAddr::new(Emulator::ADDRESSES[1], target.port()),
        Way::Tunnel => ENTRANCE.parse()?,
    };
    let bulk = match beside {
        Beside::Nothing => None,
        Beside::Bulk => {
            let source = scratch.path().join("bulk");
            let source = if source.exists() {
                source
            } else {
                scratch.file("bulk", RATE_BYTES_PER_S * (seconds + 10))?
            };
            pair.begin(&source)?;
            Some(())
        }
        Beside::TunnelledBulk => {
            let mut stream = connect(near, ENTRANCE.parse()?)?;
            stream.write_all(b"B")?;
            thread::spawn(move || {
                let piece = vec![7; 64 * 1024];
                // Until the row is over and the tunnel with it.
                while stream.write_all(&piece).is_ok() {}
            });
            Some(())
        }
    };
    if bulk.is_some() {
        // The start of a transfer is another question.
        thread::sleep(Duration::from_secs(3));
    }
    let before = emulator.snapshot().there.delivered_bytes;
    let begun = Instant::now();
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let stream = connect(near, address)?;
            Ok(thread::spawn(move || ask(stream, Duration::from_secs(seconds))))
        })
        .collect::<Result<_>>()?;
    let mut trips_ms = Vec::new();
    for client in clients {
        trips_ms.extend(client.join().map_err(|_| anyhow::anyhow!("a client panicked"))??);
    }
    trips_ms.sort_by(f64::total_cmp);
    let elapsed = begun.elapsed().as_secs_f64();
    let carried = emulator.snapshot().there.delivered_bytes - before;
    let bulk_share = bulk.map(|()| carried as f64 / elapsed / RATE_BYTES_PER_S as f64);
    drop(pair);
    let is_void = emulator.stop()?.void().is_some();
    Ok(Row { trips_ms, bulk_share, is_void })
}

/// Sends requests one after the other; how long each took, in milliseconds.
fn ask(mut stream: TcpStream, time: Duration) -> Result<Vec<f64>> {
    stream.write_all(b"E")?;
    let (request, mut answer) = ([1; REQUEST_BYTES], [0; REQUEST_BYTES]);
    let begun = Instant::now();
    let mut trips = Vec::new();
    // The first one sees the connection made.
    while trips.len() < 2 || begun.elapsed() < time {
        let asked = Instant::now();
        stream.write_all(&request)?;
        stream.read_exact(&mut answer)?;
        trips.push(asked.elapsed().as_secs_f64() * 1000.0);
        thread::sleep(Duration::from_millis(5));
    }
    trips.remove(0);
    Ok(trips)
}

/// A server at the far end: what begins with `E` is sent back, what begins with `B` is swallowed.
fn serve(far: &Namespace) -> Result<SocketAddr> {
    let listener = far.run(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)))?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || {
                // A client that goes away ends its thread.
                drop(stream.set_nodelay(true));
                let (mut kind, mut buffer) = ([0], vec![0; 64 * 1024]);
                if stream.read_exact(&mut kind).is_err() {
                    return;
                }
                while let Ok(count @ 1..) = stream.read(&mut buffer) {
                    if kind == *b"E" && stream.write_all(&buffer[..count]).is_err() {
                        return;
                    }
                }
            });
        }
    });
    Ok(address)
}

/// Connects from an end; a tunnel's listener may take a moment to stand.
fn connect(end: &Namespace, address: SocketAddr) -> Result<TcpStream> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match end.run(|| TcpStream::connect(address)) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(Duration::from_secs(30)))?;
                return Ok(stream);
            }
            Err(error) if Instant::now() > deadline => return Err(error.into()),
            Err(_) => thread::sleep(Duration::from_millis(20)),
        }
    }
}

const ENTRANCE: &str = "127.0.0.1:7100";
const REQUEST_BYTES: usize = 100;
const RATE_BYTES_PER_S: u64 = 12_500_000;
