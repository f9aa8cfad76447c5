//! Frames out of the tunnel core: answers and ends first, then words of connections, then data in turn.
use dwcp_abi::codec::CodecError;
use dwcp_abi::wire::{
    TUNNEL_FLAG_BLOCKED, TUNNEL_FLAG_OPENER, TUNNEL_HEADER_BYTES, TUNNEL_PAYLOAD_MAX, TunnelAck, TunnelKind,
    TunnelOpen, TunnelReset, tunnel_frame, tunnel_seal,
};

use super::connection::{Connection, Opening, Outgoing};
use super::{ConnectionKey, Mux, Opener, TunnelLane};
use crate::Time;

impl Mux {
    /// Writes the next frame for a lane into `bytes`, which has room for the largest; says how many bytes it took. `None`
    /// = nothing to say at present.
    pub fn poll_frame(&mut self, lane: TunnelLane, now: Time, bytes: &mut [u8]) -> Option<usize> {
        // Our own frames always fit.
        self.next_frame(lane, now, bytes).and_then(Result::ok)
    }

    fn next_frame(
        &mut self,
        id: TunnelLane,
        now: Time,
        bytes: &mut [u8],
    ) -> Option<Result<usize, CodecError>> {
        let lane = self.lanes.get_mut(&id).filter(|lane| !lane.is_mute)?;
        if core::mem::take(&mut lane.wants_ping) {
            lane.pings += 1;
            lane.ping = Some((lane.pings, now));
            lane.unconfirmed_before_ping = lane.unconfirmed.len();
            return Some(tunnel_seal(TunnelKind::Ping, 0, 0, lane.pings, 0, bytes));
        }
        if let Some(number) = lane.pongs.pop_front() {
            return Some(tunnel_seal(TunnelKind::Pong, 0, 0, number, 0, bytes));
        }
        if let Some(number) = self.probes.pop_front() {
            self.probes_sent.insert(number, now);
            if self.probes_sent.len() > super::PROBES_MAX {
                self.probes_sent.pop_first();
            }
            return Some(tunnel_seal(TunnelKind::Ping, 0, 0, super::PROBE | number, 0, bytes));
        }
        if let Some(reset) = self.resets.pop_front() {
            let words = TunnelReset { code: reset.code, text: reset.text.as_bytes() };
            let frame = tunnel_frame(TunnelKind::Reset, flag(reset.key), reset.key.number, 0, &words, bytes);
            lane.unconfirmed.push_back(reset);
            if lane.unconfirmed.len() > UNCONFIRMED_MAX {
                lane.unconfirmed.pop_front();
                lane.unconfirmed_before_ping = lane.unconfirmed_before_ping.saturating_sub(1);
            }
            return Some(frame);
        }
        self.next_words(id, bytes).or_else(|| self.next_data(id, bytes))
    }

    fn next_words(&mut self, id: TunnelLane, bytes: &mut [u8]) -> Option<Result<usize, CodecError>> {
        while let Some(&key) = self.lanes.get(&id)?.words.front() {
            let here = self.connections.get_mut(&key).filter(|connection| connection.lane == Some(id));
            let frame = here.and_then(|connection| words(connection, key, bytes));
            match frame {
                // There may be more of them.
                Some(frame) => {
                    self.close_if_over(key);
                    return Some(frame);
                }
                None => {
                    self.lanes.get_mut(&id)?.words.pop_front();
                    if let Some(connection) =
                        self.connections.get_mut(&key).filter(|connection| connection.lane == Some(id))
                    {
                        connection.queued.words = false;
                    }
                }
            }
        }
        None
    }

    fn next_data(&mut self, id: TunnelLane, bytes: &mut [u8]) -> Option<Result<usize, CodecError>> {
        loop {
            let lane = self.lanes.get_mut(&id)?;
            let key = lane.fresh.pop_front().or_else(|| lane.busy.pop_front())?;
            // It may have ended, or moved, since it was queued.
            let here = self.connections.get_mut(&key).filter(|connection| connection.lane == Some(id));
            let Some(connection) = here else { continue };
            let frame = connection.has_data().then(|| data(&mut connection.out, key, bytes)).flatten();
            if connection.has_data() {
                lane.busy.push_back(key);
            } else {
                connection.queued.data = false;
            }
            if frame.is_some() {
                return frame;
            }
        }
    }
}

/// The next word of a connection.
fn words(
    connection: &mut Connection,
    key: ConnectionKey,
    bytes: &mut [u8],
) -> Option<Result<usize, CodecError>> {
    let says = &mut connection.says;
    let credit = connection.incoming.credit();
    if core::mem::take(&mut says.open) {
        let Opening::Asking { target, .. } = &connection.opening else { return None };
        let open = TunnelOpen { credit, target };
        return Some(tunnel_frame(TunnelKind::Open, flag(key), key.number, 0, &open, bytes));
    }
    if core::mem::take(&mut says.accept) {
        return Some(tunnel_seal(TunnelKind::Accept, flag(key), key.number, 0, 0, bytes));
    }
    if core::mem::take(&mut says.ack) {
        let incoming = &mut connection.incoming;
        (incoming.acked_said, incoming.credit_said) = (incoming.received, credit);
        incoming.end_acked = incoming.end.is_some();
        let offset = incoming.acknowledged();
        return Some(tunnel_frame(
            TunnelKind::Ack,
            flag(key),
            key.number,
            offset,
            &TunnelAck { credit },
            bytes,
        ));
    }
    None
}

/// The next piece of a stream, its end, or the complaint that there is no credit for more.
fn data(out: &mut Outgoing, key: ConnectionKey, bytes: &mut [u8]) -> Option<Result<usize, CodecError>> {
    if out.may_end() {
        out.end_sent = true;
        return Some(tunnel_seal(TunnelKind::Fin, flag(key), key.number, out.sent, 0, bytes));
    }
    let room = bytes.get_mut(TUNNEL_HEADER_BYTES..)?;
    let count = (out.sendable() as usize).min(TUNNEL_PAYLOAD_MAX).min(room.len());
    copy(out, count, room);
    let offset = out.sent;
    out.sent += count as u64;
    out.sent_max = out.sent_max.max(out.sent);
    let mut flags = flag(key);
    if out.is_blocked() {
        out.blocked_said = Some(out.credit);
        flags |= TUNNEL_FLAG_BLOCKED;
    }
    Some(tunnel_seal(TunnelKind::Data, flags, key.number, offset, count, bytes))
}

/// Copies `count` bytes from the first that was not sent.
fn copy(out: &Outgoing, count: usize, target: &mut [u8]) {
    let at = (out.sent - out.acked) as usize;
    let (front, back) = out.buffer.as_slices();
    let first = front.get(at..).unwrap_or_default();
    let first = &first[..first.len().min(count)];
    target[..first.len()].copy_from_slice(first);
    let at = at.saturating_sub(front.len());
    let rest = count - first.len();
    target[first.len()..count].copy_from_slice(&back[at..at + rest]);
}

fn flag(key: ConnectionKey) -> u8 {
    match key.opener {
        Opener::Local => TUNNEL_FLAG_OPENER,
        Opener::Peer => 0,
    }
}

/// Ends that are remembered for each lane until a ping's answer shows that they arrived.
const UNCONFIRMED_MAX: usize = 1024;
