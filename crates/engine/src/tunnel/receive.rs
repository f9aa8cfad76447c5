//! Frames into the tunnel core. Everything here is hostile input: a peer can end its own connections and its lanes, and
//! nothing else.
use alloc::string::String;
use alloc::vec::Vec;

use dwcp_abi::codec::Encoded;
use dwcp_abi::wire::{
    Code, TUNNEL_FLAG_BLOCKED, TUNNEL_FLAG_CODED, TUNNEL_FLAG_OPENER, TUNNEL_TARGET_MAX, TUNNEL_TEXT_MAX,
    TunnelAck, TunnelFrame, TunnelHeader, TunnelKind, TunnelOpen, TunnelReset,
};

use super::connection::{Connection, Opening};
use super::{ConnectionKey, Mux, Opener, TunnelEvent, TunnelLane, Violation};
use crate::Time;

impl Mux {
    /// Takes a frame that came over a lane.
    ///
    /// # Errors
    /// [`Violation`]: the lane must go.
    pub fn handle_frame(
        &mut self,
        lane: TunnelLane,
        frame: &TunnelFrame<'_>,
        now: Time,
    ) -> Result<(), Violation> {
        let Some(state) = self.lanes.get_mut(&lane) else { return Ok(()) };
        state.heard = now;
        let is_first = core::mem::take(&mut state.is_mute);
        let header = &frame.header;
        if header.flags & TUNNEL_FLAG_CODED != 0 {
            return Err(Violation::Order("a coded frame that nobody decoded"));
        }
        if is_first {
            self.adopt_orphans();
        }
        let Some(state) = self.lanes.get_mut(&lane) else { return Ok(()) };
        // Whoever numbered it says so: what its opener calls its own is the peer's here.
        let opener = if header.flags & TUNNEL_FLAG_OPENER != 0 { Opener::Peer } else { Opener::Local };
        let key = ConnectionKey { opener, number: header.connection };
        match header.kind {
            TunnelKind::Ping => {
                if state.pongs.len() >= PONGS_MAX {
                    return Err(Violation::Order("pings without end"));
                }
                state.pongs.push_back(header.offset);
            }
            TunnelKind::Pong if header.offset & super::PROBE != 0 => {
                let number = header.offset & !super::PROBE;
                if let Some(since) = self.probes_sent.remove(&number) {
                    let rtt_ns = now.saturating_sub(since).max(1);
                    self.events.push_back(TunnelEvent::Probed { number, rtt_ns });
                }
            }
            TunnelKind::Pong => state.handle_pong(header.offset, now),
            TunnelKind::Open => self.handle_open(key, frame.payload)?,
            TunnelKind::Accept => self.handle_accept(key),
            TunnelKind::Data => self.handle_data(key, header, frame.payload),
            TunnelKind::Fin => self.handle_end(key, header.offset),
            TunnelKind::Ack => self.handle_ack(key, header.offset, TunnelAck::decode(frame.payload)?.credit),
            TunnelKind::Reset => self.handle_reset(key, TunnelReset::decode(frame.payload)?),
        }
        Ok(())
    }

    fn handle_open(&mut self, key: ConnectionKey, payload: &[u8]) -> Result<(), Violation> {
        let open = TunnelOpen::decode(payload)?;
        if key.opener != Opener::Peer || open.target.len() > TUNNEL_TARGET_MAX {
            return Err(Violation::Order("a connection is asked for that its sender did not number"));
        }
        if let Some(connection) = self.connections.get(&key) {
            // Said again after a lane was lost: the answer may have been lost, too.
            let accepted = matches!(connection.opening, Opening::Done);
            self.say(key, |connection| connection.says.accept = accepted);
            return Ok(());
        }
        if !self.seen.insert(key.number) {
            self.answer_unknown(key);
        } else if self.count(Opener::Peer) >= self.limits.connections_max {
            self.say_reset(key, Code::Busy, "the peer has as many tunnelled connections as it takes");
        } else {
            let mut connection = Connection::new(Opening::Asked);
            connection.out.credit = open.credit;
            self.insert(key, connection);
            self.events.push_back(TunnelEvent::Asked { key, target: open.target.to_vec() });
        }
        Ok(())
    }

    fn handle_accept(&mut self, key: ConnectionKey) {
        let Some(connection) = self.connections.get_mut(&key) else { return self.answer_unknown(key) };
        if matches!(connection.opening, Opening::Asking { .. }) {
            connection.opening = Opening::Done;
            self.events.push_back(TunnelEvent::Opened { key });
        }
    }

    fn handle_data(&mut self, key: ConnectionKey, header: &TunnelHeader, payload: &[u8]) {
        let Some(connection) = self.connections.get_mut(&key) else { return self.answer_unknown(key) };
        let incoming = &mut connection.incoming;
        let end = header.offset.saturating_add(payload.len() as u64);
        if header.offset > incoming.received
            || end > incoming.credit_said
            || incoming.end.is_some_and(|last| end > last)
        {
            return self.break_off(key, "bytes beyond the window, the end, or what was sent before");
        }
        // What came before over another lane is known by its offset.
        let known = (incoming.received - header.offset).min(payload.len() as u64) as usize;
        incoming.buffer.extend(&payload[known..]);
        incoming.received = incoming.received.max(end);
        let is_new = known < payload.len();
        let is_late = incoming.received - incoming.acked_said >= ACK_AFTER.min(incoming.window / 4);
        if header.flags & TUNNEL_FLAG_BLOCKED != 0 {
            self.widen(key);
        }
        if is_late {
            self.say(key, |connection| connection.says.ack = true);
        }
        self.late_acks |= is_new;
        if is_new {
            self.tell_readable(key);
        }
    }

    /// The peer could send more than the window allows. It gets more if what it sent is taken.
    fn widen(&mut self, key: ConnectionKey) {
        let first = dwcp_abi::wire::TUNNEL_WINDOW_FIRST;
        let beyond = self.windows_total - self.connections.len() as u64 * first;
        let Some(connection) = self.connections.get_mut(&key) else { return };
        let incoming = &mut connection.incoming;
        let more = incoming.window.min(self.limits.window_max.saturating_sub(incoming.window));
        let keeps_up = incoming.received - incoming.consumed <= incoming.window / 2;
        let used_up = incoming.received >= incoming.grown_until;
        if keeps_up && used_up && more > 0 && beyond + more <= self.limits.windows_total_max {
            incoming.window += more;
            incoming.grown_until = incoming.credit();
            self.windows_total += more;
            self.say(key, |connection| connection.says.ack = true);
        }
    }

    fn handle_end(&mut self, key: ConnectionKey, offset: u64) {
        let Some(connection) = self.connections.get_mut(&key) else { return self.answer_unknown(key) };
        let incoming = &mut connection.incoming;
        if offset != incoming.received || incoming.end.is_some_and(|end| end != offset) {
            return self.break_off(key, "an end that is not behind the last byte");
        }
        let is_new = incoming.end.replace(offset).is_none();
        self.say(key, |connection| connection.says.ack = true);
        if is_new {
            self.tell_readable(key);
        }
    }

    fn handle_ack(&mut self, key: ConnectionKey, offset: u64, credit: u64) {
        let Some(connection) = self.connections.get_mut(&key) else { return self.answer_unknown(key) };
        let out = &mut connection.out;
        let acks_end = out.end.is_some_and(|end| offset == end + 1);
        let offset = offset - u64::from(acks_end);
        if offset > out.sent_max {
            return self.break_off(key, "an acknowledgement of what was not sent");
        }
        out.end_acked |= acks_end;
        let freed = offset.saturating_sub(out.acked);
        out.buffer.drain(..freed as usize);
        out.acked = out.acked.max(offset);
        out.sent = out.sent.max(out.acked);
        out.end_sent |= out.end_acked;
        out.credit = out.credit.max(credit);
        self.buffered_total -= freed;
        if self.room(key) > 0 {
            self.tell_writable(key);
        }
        self.queue_data(key);
        self.close_if_over(key);
    }

    fn handle_reset(&mut self, key: ConnectionKey, reset: TunnelReset<'_>) {
        let Some(connection) = self.connections.get_mut(&key) else {
            if key.opener == Opener::Peer {
                // What it asks for later, over a slower lane, is over already.
                self.seen.insert(key.number);
            }
            return;
        };
        if reset.code == Code::Ok && connection.is_nearly_over() {
            // It had acknowledged our end, which was lost, and then forgot the connection.
            let out = &mut connection.out;
            self.buffered_total -= out.buffer.len() as u64;
            out.buffer.clear();
            out.acked = out.end.unwrap_or(out.acked);
            (out.sent, out.end_sent, out.end_acked) = (out.acked, true, true);
            connection.incoming.end_acked = true;
            return self.close_if_over(key);
        }
        let text: String = String::from_utf8_lossy(reset.text).chars().filter(|c| !c.is_control()).collect();
        self.end(key, reset.code, &text[..text.floor_char_boundary(TUNNEL_TEXT_MAX)]);
    }

    /// A frame about a connection that is not there: its sender must not wait for it.
    fn answer_unknown(&mut self, key: ConnectionKey) {
        if self.closed.contains(&key) {
            self.say_reset(key, Code::Ok, "");
        } else {
            self.say_reset(key, Code::Again, "the peer does not know this connection any more");
        }
    }

    fn break_off(&mut self, key: ConnectionKey, why: &'static str) {
        self.end(key, Code::Protocol, why);
        self.say_reset(key, Code::Protocol, why);
    }

    /// Keys of the connections that stand, for the driver's shutdown.
    #[must_use]
    pub fn connections(&self) -> Vec<ConnectionKey> {
        self.connections.keys().copied().collect()
    }
}

/// Answers that one lane may owe.
const PONGS_MAX: usize = 16;
/// Bytes after which the peer is freed of what it keeps, whatever else there is to say.
const ACK_AFTER: u64 = 64 * 1024;
