//! Our two dataplanes at the ends of a link.
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use dwcp_benches::far::FarPair;
use dwcp_benches::node::{BBR, CUBIC};
use dwcp_benches::scratch::{Scratch, same};
use dwcp_wan::Emulator;

use crate::row::Outcome;
use dwcp_benches::road::{Congestion, Road, SETTLED};

/// Ten seconds, say, of a file that takes longer; counted where it is written. Lanes are made within the time.
pub(crate) fn stream(
    road: &Road,
    scratch: &Scratch,
    source: &Path,
    seconds: u64,
    congestion: Congestion,
) -> Result<Outcome> {
    let mut pair = start(road, scratch, congestion)?;
    let ((all, settled), counted) = road.count(|| {
        let begun = Instant::now();
        pair.begin(source)?;
        sleep(SETTLED);
        let (early_bytes, early) = (pair.bytes_written()?, begun.elapsed().as_secs_f64());
        sleep(Duration::from_secs(seconds).saturating_sub(begun.elapsed()));
        let (bytes, taken) = (pair.bytes_written()?, begun.elapsed().as_secs_f64());
        Ok(((bytes, taken), (bytes - early_bytes, taken - early)))
    })?;
    ensure!(all.0 > 0, "nothing arrived");
    Ok(Outcome { all, settled: Some(settled), counted })
}

/// A file or tree from the order to the receipt, between ends that have sent something else before.
pub(crate) fn send(
    road: &Road,
    scratch: &Scratch,
    warm: &Path,
    (source, bytes): (&Path, u64),
    congestion: Congestion,
) -> Result<Outcome> {
    let mut pair = start(road, scratch, congestion)?;
    pair.send(warm)?;
    // Long enough for TCP to forget what it knew of the path (RFC 2861).
    sleep(PAUSE);
    let (taken, counted) = road.count(|| {
        let begun = Instant::now();
        pair.send(source)?;
        Ok(begun.elapsed().as_secs_f64())
    })?;
    if let (true, Some(name)) = (source.is_file(), source.file_name()) {
        same(source, &pair.arrived().join(name))?;
    }
    Ok(Outcome { all: (bytes, taken), settled: None, counted })
}

fn start(road: &Road, scratch: &Scratch, congestion: Congestion) -> Result<FarPair> {
    let congestion = match congestion {
        Congestion::Bbr => BBR,
        Congestion::Cubic => CUBIC,
    };
    FarPair::start(scratch, (road.first(), road.second()), Emulator::ADDRESSES[1], congestion)
}

const PAUSE: Duration = Duration::from_secs(1);
