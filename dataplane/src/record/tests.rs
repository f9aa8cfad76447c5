//! The record layer against rustls, and against damage.
use std::io::{Read as _, Write as _};

use rustls::{CipherSuite, Connection};

use super::*;
use crate::door::tls::testing::{carry, connected, hear};

const SUITES: [CipherSuite; 2] =
    [CipherSuite::TLS13_AES_128_GCM_SHA256, CipherSuite::TLS13_AES_256_GCM_SHA384];
const LENGTHS: [usize; 14] =
    [0, 1, 2, 15, 16, 17, 255, 256, 1500, 16_383, 16_384, 16_385, 50_000, 3 * PLAIN_MAX];

fn secrets(connection: Connection) -> LaneSecrets {
    LaneSecrets::from_extracted(connection.dangerous_extract_secrets().expect("secrets")).expect("suite")
}

/// Both directions between two lanes: near's sealer, far's opener.
fn lane(suite: CipherSuite) -> (Sealer, Opener) {
    let (near, far) = connected(suite);
    let (near, far) = (secrets(near), secrets(far));
    (Sealer::new(&near.send).expect("key"), Opener::new(&far.receive).expect("key"))
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 31 + length) as u8).collect()
}

fn seal(sealer: &mut Sealer, plain: &[u8]) -> Vec<u8> {
    let mut out = vec![0xee; sealed_length(plain.len()) + 3];
    let length = sealer.seal(plain, &mut out).expect("room");
    assert_eq!(length, sealed_length(plain.len()));
    assert_eq!(out.split_off(length), [0xee; 3], "nothing behind the records is touched");
    out
}

fn records(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut records = Vec::new();
    while let Some(header) = bytes.first_chunk() {
        let (record, rest) = bytes.split_at(Opener::record_length(header).expect("header"));
        records.push(record);
        bytes = rest;
    }
    assert!(bytes.is_empty());
    records
}

fn open_all(opener: &mut Opener, bytes: &[u8]) -> Result<Vec<u8>, RecordError> {
    let mut plain = Vec::new();
    for record in records(bytes) {
        let mut out = vec![0; Opener::room_for(record.len())];
        match opener.open(&mut record.to_vec(), &mut out)? {
            Opened::Data(length) => plain.extend_from_slice(&out[..length]),
            Opened::CloseNotify => break,
        }
    }
    Ok(plain)
}

#[test]
fn rustls_reads_what_we_seal() {
    for suite in SUITES {
        for dialled in [true, false] {
            let (dialler, acceptor) = connected(suite);
            let (ours, mut theirs) = if dialled { (dialler, acceptor) } else { (acceptor, dialler) };
            let mut sealer = Sealer::new(&secrets(ours).send).expect("key");
            for length in LENGTHS {
                let plain = pattern(length);
                let mut read = Vec::new();
                for record in records(&seal(&mut sealer, &plain)) {
                    hear(&mut theirs, record);
                    let mut part = [0; PLAIN_MAX];
                    let count = theirs.reader().read(&mut part).unwrap_or(0);
                    read.extend_from_slice(&part[..count]);
                }
                assert_eq!(read, plain, "{suite:?} {length}");
            }
            let mut farewell = [0; CLOSE_NOTIFY_LENGTH];
            assert_eq!(sealer.seal_close_notify(&mut farewell), Ok(CLOSE_NOTIFY_LENGTH));
            hear(&mut theirs, &farewell);
            assert_eq!(theirs.reader().read(&mut [0]).expect("end in good order"), 0);
        }
    }
}

#[test]
fn we_read_what_rustls_seals() {
    for suite in SUITES {
        let (dialler, mut acceptor) = connected(suite);
        let secrets = secrets(dialler);
        assert_eq!(secrets.suite() == Suite::Aes256Gcm, suite == SUITES[1]);
        let mut opener = Opener::new(&secrets.receive).expect("key");
        acceptor.set_buffer_limit(None);
        for length in LENGTHS {
            let plain = pattern(length);
            acceptor.writer().write_all(&plain).expect("memory");
            let mut bytes = Vec::new();
            while acceptor.wants_write() {
                acceptor.write_tls(&mut bytes).expect("memory");
            }
            assert_eq!(open_all(&mut opener, &bytes), Ok(plain), "{suite:?} {length}");
        }
        acceptor.send_close_notify();
        let mut bytes = Vec::new();
        acceptor.write_tls(&mut bytes).expect("memory");
        assert_eq!(opener.open(&mut bytes.to_vec(), &mut [0; 64]), Ok(Opened::CloseNotify));
    }
}

#[test]
fn sequence_numbers_continue_after_data_in_tls() {
    let (mut dialler, mut acceptor) = connected(SUITES[0]);
    dialler.writer().write_all(b"greeting").expect("memory");
    carry(&mut dialler, &mut acceptor);
    let mut sealer = Sealer::new(&secrets(dialler).send).expect("key");
    hear(&mut acceptor, &seal(&mut sealer, b" and frame"));
    let mut read = [0; 18];
    acceptor.reader().read_exact(&mut read).expect("both");
    assert_eq!(&read, b"greeting and frame");
}

#[test]
fn every_changed_bit_is_found() {
    let (mut sealer, _) = lane(SUITES[0]);
    let sealed = seal(&mut sealer, b"some plain text");
    for bit in 0..sealed.len() * 8 {
        let (mut sealer, mut opener) = lane_again();
        let mut changed = seal(&mut sealer, b"some plain text");
        changed[bit / 8] ^= 1 << (bit % 8);
        let failed = opener.open(&mut changed.to_vec(), &mut [0; 64]).expect_err("changed");
        match bit / 8 {
            0..3 => assert!(matches!(failed, RecordError::Header { .. }), "{bit}: {failed}"),
            3..5 => {
                assert!(matches!(failed, RecordError::Length { .. } | RecordError::Header { .. }), "{failed}")
            }
            _ => assert_eq!(failed, RecordError::Forged, "{bit}"),
        }
    }
}

/// A lane with fixed keys: a handshake for every bit would take long.
fn lane_again() -> (Sealer, Opener) {
    let key = |sequence| {
        let unbound = ring::aead::UnboundKey::new(&ring::aead::AES_128_GCM, &[7; 16]).expect("key");
        (ring::aead::LessSafeKey::new(unbound), Sequence { iv: [9; 12], next: sequence })
    };
    let ((seal, ahead), (open, behind)) = (key(0), key(0));
    (Sealer::from_parts(seal, ahead), Opener::from_parts(open, behind))
}

#[test]
fn order_and_repetition_are_found() {
    for (first, second) in [(1, 0), (0, 0), (0, 2)] {
        let (mut sealer, mut opener) = lane(SUITES[1]);
        let sealed = [b"one", b"two", b"six"].map(|plain| seal(&mut sealer, plain));
        let outcome = opener.open(&mut sealed[first].to_vec(), &mut [0; 64]);
        if first == 0 {
            assert_eq!(outcome, Ok(Opened::Data(3)));
            assert_eq!(opener.open(&mut sealed[second].to_vec(), &mut [0; 64]), Err(RecordError::Forged));
        } else {
            assert_eq!(outcome, Err(RecordError::Forged));
        }
    }
}

#[test]
fn the_directions_and_other_lanes_have_other_keys() {
    let (mut sealer, _) = lane(SUITES[0]);
    let (_, mut stranger) = lane(SUITES[0]);
    let sealed = seal(&mut sealer, b"plain");
    assert_eq!(stranger.open(&mut sealed.to_vec(), &mut [0; 64]), Err(RecordError::Forged));
    let (near, _) = connected(SUITES[0]);
    let secrets = secrets(near);
    let sealed = seal(&mut Sealer::new(&secrets.send).expect("key"), b"plain");
    let mut mirror = Opener::new(&secrets.receive).expect("key");
    assert_eq!(mirror.open(&mut sealed.to_vec(), &mut [0; 64]), Err(RecordError::Forged));
}

#[test]
fn truncated_and_misfit_records_are_refused() {
    let (mut sealer, mut opener) = lane_again();
    let sealed = seal(&mut sealer, b"plain");
    for end in 0..sealed.len() {
        let failed = opener.open(&mut sealed[..end].to_vec(), &mut [0; 64]).expect_err("truncated");
        assert!(matches!(failed, RecordError::Length { .. }), "{end}: {failed}");
    }
    let longer = [&sealed[..], &[0]].concat();
    assert!(matches!(opener.open(&mut longer.to_vec(), &mut [0; 64]), Err(RecordError::Length { .. })));
    let room = Opener::room_for(sealed.len());
    let failed = opener.open(&mut sealed.to_vec(), &mut vec![0; room - 1]);
    assert_eq!(failed, Err(RecordError::NoRoom { needed: room, room: room - 1 }));
    assert_eq!(opener.open(&mut sealed.to_vec(), &mut vec![0; room]), Ok(Opened::Data(5)));
    let mut short = vec![0; sealed_length(5) - 1];
    assert!(matches!(sealer.seal(b"plain", &mut short), Err(RecordError::NoRoom { .. })));
}

#[test]
fn headers_are_checked() {
    let header =
        |content_type, minor, length: usize| [content_type, 3, minor, (length >> 8) as u8, length as u8];
    assert_eq!(Opener::record_length(&header(23, 3, BODY_MAX)), Ok(HEADER_LENGTH + BODY_MAX));
    assert_eq!(Opener::record_length(&header(23, 3, TAG_LENGTH + 1)), Ok(OVERHEAD));
    for wrong in [
        header(22, 3, 100),
        header(23, 1, 100),
        header(23, 3, BODY_MAX + 1),
        header(23, 3, TAG_LENGTH),
        [23, 2, 3, 0, 99],
    ] {
        assert_eq!(Opener::record_length(&wrong), Err(RecordError::Header { header: wrong }));
    }
}

#[test]
fn alerts_and_handshake_messages_end_the_lane() {
    let inner = |content: &[u8]| {
        let (mut sealer, mut opener) = lane_again();
        let mut record = vec![0; content.len() + HEADER_LENGTH + TAG_LENGTH];
        // The sealer appends one content type; the last byte of `content` stands for it.
        let (kind, plain) = content.split_last().expect("not empty");
        sealer.seal_record(*kind, plain, &mut record).expect("room");
        let mut out = vec![0; Opener::room_for(record.len())];
        opener.open(&mut record.to_vec(), &mut out)
    };
    assert_eq!(inner(&[1, 0, TYPE_ALERT]), Ok(Opened::CloseNotify));
    assert_eq!(inner(&[2, 20, TYPE_ALERT]), Err(RecordError::Alert { code: 20 }));
    assert_eq!(inner(&[1, 0, 0, TYPE_ALERT]), Err(RecordError::ContentType { content_type: TYPE_ALERT }));
    assert_eq!(inner(&[24, 0, 0, 1, 0, 22]), Err(RecordError::ContentType { content_type: 22 }));
    assert_eq!(inner(&[0]), Err(RecordError::ContentType { content_type: 0 }));
    assert_eq!(inner(&[5, 6, 23, 0, 0]), Ok(Opened::Data(2)), "padding is taken off");
    assert_eq!(inner(&[0; 300]), Err(RecordError::ContentType { content_type: 0 }));
    let too_long = Err(RecordError::Length { expected: PLAIN_MAX + 1, found: PLAIN_MAX + 2 });
    assert_eq!(inner(&[23; PLAIN_MAX + 2]), too_long);
}

#[test]
fn a_key_is_retired_in_time() {
    let (mut sealer, mut opener) = lane_again();
    assert!(!sealer.needs_retirement() && !opener.needs_retirement());
    (sealer.sequence.next, opener.sequence.next) = (RETIREMENT_RECORDS - 1, RETIREMENT_RECORDS - 1);
    let sealed = seal(&mut sealer, b"the last but not quite");
    assert_eq!(opener.open(&mut sealed.to_vec(), &mut [0; 64]), Ok(Opened::Data(22)));
    assert!(sealer.needs_retirement() && opener.needs_retirement());
    sealer.sequence.next = RECORDS_MAX;
    assert_eq!(sealer.seal(b"more", &mut [0; 64]), Err(RecordError::Exhausted));
}

#[test]
fn secrets_are_not_shown() {
    let (near, _) = connected(SUITES[0]);
    let shown = format!("{:?}", secrets(near));
    assert!(shown.contains("Aes128Gcm") && shown.len() < 200, "{shown}");
}
