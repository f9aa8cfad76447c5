//! The reference program: one connection, blocking calls, no frames and no checksums. It sends the same memory that the
//! engine walks and receives into one hot buffer.
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use anyhow::Result;
use dwcp_abi::wire::CHUNK_BYTES;

pub(crate) fn send(mut socket: TcpStream, memory: &[u8], bytes: u64) -> Result<()> {
    let pieces = memory.chunks(CHUNK_BYTES as usize).cycle();
    let count = bytes.div_ceil(u64::from(CHUNK_BYTES)) as usize;
    for piece in pieces.take(count) {
        socket.write_all(piece)?;
    }
    Ok(())
}

pub(crate) fn receive(mut socket: TcpStream) -> Result<()> {
    let mut buffer = vec![0; CHUNK_BYTES as usize];
    while socket.read(&mut buffer)? > 0 {}
    Ok(())
}
