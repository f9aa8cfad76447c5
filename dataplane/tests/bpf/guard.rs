//! The guard before a real port: strangers are held back, peers and other ports are not, and it refuses where it could
//! cut somebody else off.
use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use dwcp_abi::bpf::{Class, Guarded};
use dwcp_dataplane::bpf::{GuardMode, GuardPolicy, Policy, Programs};

use crate::support::{Pair, inside, object_or_skip, options};

fn guarded(mode: GuardMode) -> Policy {
    Policy { guard: GuardPolicy { mode, source_per_s: 8, total_per_s: 1_000_000 }, ..Policy::default() }
}

/// How many of `count` connections from the far side stand in time.
fn connects(far: &str, to: SocketAddr, count: usize) -> usize {
    let tries = inside(far, move || {
        (0..count).filter(|_| TcpStream::connect_timeout(&to, Duration::from_millis(150)).is_ok()).count()
    });
    tries.join().unwrap()
}

#[test]
fn strangers_are_held_back_until_they_are_known() {
    let Some(object) = object_or_skip() else { return };
    let pair = match Pair::new("guard") {
        Ok(pair) => pair,
        Err(complaint) => return println!("skipped: no namespaces: {complaint}"),
    };
    let far = pair.far.clone();
    let body = inside(&pair.near, move || {
        let [peer, other] = [(); 2].map(|()| TcpListener::bind("10.77.0.1:0").unwrap());
        let [peer_at, other_at] = [&peer, &other].map(|listener| listener.local_addr().unwrap());
        let mut programs = Programs::load(options(object, vec![(peer_at.port(), Class::Bulk)])).unwrap();
        assert_eq!(connects(&far, peer_at, 20), 20, "it is off by default");
        programs.apply(&guarded(GuardMode::On)).unwrap();
        assert!(programs.guards(), "{}", programs.report().text());
        let passed = connects(&far, peer_at, 20);
        assert!((1..15).contains(&passed), "{passed} of 20");
        assert_eq!(connects(&far, other_at, 20), 20, "another port");
        programs.set_known(["10.77.0.2".parse().unwrap()].into()).unwrap();
        assert_eq!(connects(&far, peer_at, 20), 20, "a peer");
        let counts = programs.guarded().unwrap();
        assert!(
            counts[Guarded::SourceRate as usize] > 0 && counts[Guarded::Known as usize] >= 40,
            "{counts:?}"
        );
        programs.apply(&Policy::default()).unwrap();
        assert!(!programs.guards());
        let before = programs.guarded().unwrap();
        assert_eq!(connects(&far, peer_at, 20), 20);
        assert_eq!(programs.guarded().unwrap(), before, "off is off");
    });
    body.join().unwrap();
}

#[test]
fn it_refuses_the_port_that_operators_log_in_by() {
    let Some(object) = object_or_skip() else { return };
    let pair = match Pair::new("login") {
        Ok(pair) => pair,
        Err(complaint) => return println!("skipped: no namespaces: {complaint}"),
    };
    let body = inside(&pair.near, move || {
        let mut programs = Programs::load(options(object, vec![(22, Class::Bulk)])).unwrap();
        programs.apply(&guarded(GuardMode::On)).unwrap();
        assert!(!programs.guards() && programs.report().text().contains("guard.mode: force"));
        programs.apply(&guarded(GuardMode::Forced)).unwrap();
        assert!(programs.guards());
    });
    body.join().unwrap();
}
