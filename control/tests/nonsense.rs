//! Something at the dataplane's socket that is no dataplane: it says nothing, or anything, or too much. Control says
//! so, goes on serving, and takes the real one when it comes.
mod support;

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use dwcp_abi::codec::Encoded;
use dwcp_abi::link::{Attached, LINK_VERSION};
use support::dataplane::FakeDataplane;
use support::{DEADLINE, Site, wait_for};

/// An answer to `Attach` that is whole, and whose descriptors are missing.
fn attached(workers: u16) -> Vec<u8> {
    let attached = Attached { version: LINK_VERSION, workers, instance: 1, pid: 1, fingerprint: [1; 32] };
    let mut body = vec![0; 1024];
    let length = attached.encode(&mut body).unwrap();
    [&(length as u32).to_le_bytes()[..], &body[..length]].concat()
}

/// The next connection of control, after it has asked.
fn accept(listener: &UnixListener) -> UnixStream {
    let begin = Instant::now();
    loop {
        match listener.accept() {
            Ok((mut stream, _)) => {
                stream.set_nonblocking(false).unwrap();
                stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
                let mut asked = [0; 64];
                assert!(stream.read(&mut asked).unwrap() > 0, "control asked nothing");
                return stream;
            }
            Err(_) if begin.elapsed() < DEADLINE => std::thread::park_timeout(Duration::from_millis(5)),
            Err(error) => panic!("control does not try again: {error}"),
        }
    }
}

#[test]
fn what_is_no_dataplane_is_said_and_the_next_one_taken() {
    let site = Site::new();
    site.configure("recovery: {backoff: [100ms], max_retries: 100}\n");
    std::fs::create_dir_all(site.path("run")).unwrap();
    let socket = site.dataplane_socket();
    let listener = UnixListener::bind(&socket).unwrap();
    listener.set_nonblocking(true).unwrap();
    let control = site.start();
    let noise: Vec<u8> = (0..65_536_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let answers: [Vec<u8>; 8] = [
        Vec::new(),
        vec![0],
        u32::MAX.to_le_bytes().to_vec(),
        vec![0; 4],
        b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_vec(),
        attached(1),
        attached(u16::MAX),
        noise,
    ];
    for answer in &answers {
        let mut stream = accept(&listener);
        // Control may hang up before it has all.
        drop(stream.write_all(answer));
        drop(stream);
        assert_eq!(control.get("/live").status, 200);
        assert_eq!(control.get("/api/v1/dwcp/status").json()["dataplane"]["connected"], false);
    }
    // One that never answers holds up nothing but itself.
    let silent = accept(&listener);
    assert_eq!(control.get("/ready").status, 503);
    let id = control.order();
    drop((silent, listener));
    std::fs::remove_file(&socket).unwrap();
    let mut dataplane = FakeDataplane::start(socket, 77, 1);
    wait_for("the real one", || {
        (control.get("/api/v1/dwcp/status").json()["dataplane"]["connected"] == true).then_some(())
    });
    let said = dataplane.next();
    assert!(matches!(said, support::dataplane::Said::Start { job, .. } if job == id), "{said:?}");
    let errors = control.get("/health?verbose=true").json()["recent_errors"].to_string();
    assert!(errors.contains("\"link\""), "{errors}");
}
