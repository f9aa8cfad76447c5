//! Our side: two proactors, each on its thread, with a stream between their ports.
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use dwcp_sys::proactor::{BufferId, Options, Proactor, Span, Wait};
use dwcp_sys::rdma::{Device, QueuePair};

/// A chunk with its headers.
const SEND_BYTES: u32 = 512 * 1024;
/// As many as a worker keeps hot.
const BUFFERS: u32 = 4;

/// Sends so many bytes and waits until the other end has all of them.
pub(super) fn megabytes_per_s(bytes: u64) -> Result<f64> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let line = TcpStream::connect(listener.local_addr()?)?;
    let (far_line, _) = listener.accept()?;
    let near = Ipv4Addr::LOCALHOST.into();
    let [one, other] = [Device::open("rxe0", 1)?, Device::open("rxe1", 1)?];
    let first = one.prepare(near, None)?;
    let second = other.prepare(near, Some(first.end()))?;
    let (first_end, second_end) = (*first.end(), *second.end());
    let (pair, far_pair) = (first.connect(&second_end)?, second.connect(&first_end)?);
    let count = bytes.div_ceil(u64::from(SEND_BYTES));
    let receiver = thread::spawn(move || move_all(far_line, far_pair, count, Proactor::recv_all));
    let started = Instant::now();
    move_all(line, pair, count, Proactor::send_all)?;
    receiver.join().map_err(|_| anyhow!("the receiver panicked"))??;
    Ok(count as f64 * f64::from(SEND_BYTES) / 1e6 / started.elapsed().as_secs_f64())
}

type Operation = fn(&mut Proactor, dwcp_sys::proactor::Handle, Span, u64);

/// Keeps all buffers busy until so many operations are done.
fn move_all(line: TcpStream, pair: QueuePair, count: u64, operation: Operation) -> Result<()> {
    let options =
        Options { large_count: BUFFERS, large_bytes: SEND_BYTES, small_count: 0, ..Options::default() };
    let mut proactor = Proactor::open(&options)?;
    let handle = proactor.add_pair(line.into(), pair)?;
    let span = |buffer| Span { buffer: BufferId(buffer), start: 0, length: SEND_BYTES };
    let mut begun = 0;
    while begun < count.min(u64::from(BUFFERS)) {
        operation(&mut proactor, handle, span(begun as u32), begun);
        begun += 1;
    }
    let (mut done, mut completions) = (0, Vec::new());
    while done < count {
        proactor.turn(Wait::Until(Duration::from_secs(30)), &mut completions)?;
        ensure!(!completions.is_empty(), "nothing moves any more");
        for completion in completions.drain(..) {
            let trouble = proactor.pair_trouble(handle).unwrap_or("no trouble is known");
            let moved = completion.result.with_context(|| trouble.to_owned())?;
            ensure!(moved == SEND_BYTES, "a part is missing");
            done += 1;
            if begun < count {
                operation(&mut proactor, handle, span(completion.token as u32), completion.token);
                begun += 1;
            }
        }
    }
    Ok(())
}
