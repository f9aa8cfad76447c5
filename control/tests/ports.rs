//! Ports that other programs hold: said, waited for, and no reason to stop.
mod support;

use std::net::{TcpListener, TcpStream};

use serde_json::Value;
use support::https::{ask, secure};
use support::{Site, wait_for};

#[test]
fn taken_ports_are_named_and_served_once_they_are_free() {
    let site = Site::new();
    let trusted = secure(&site, "");
    let (http, https) =
        (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
    let address = |listener: &TcpListener| listener.local_addr().unwrap().to_string();
    let (http_address, https_address) = (address(&http), address(&https));
    let mut control = site.start_with(&["--listen", &http_address, "--tls-listen", &https_address]);
    let document = control.get("/health?verbose=true").json();
    let errors = document["recent_errors"].as_array().unwrap();
    for (address, key) in [(&http_address, "api.listen"), (&https_address, "api.tls_listen")] {
        let is_it = |error: &&Value| {
            let message = error["message"].as_str().unwrap();
            error["type"] == "listener" && message.contains(address.as_str()) && message.contains(key)
        };
        assert!(errors.iter().any(|error| is_it(&error)), "{document}");
    }
    assert_eq!(control.order(), 1, "the socket takes orders meanwhile");

    drop((http, https));
    wait_for("both ports to be taken", || {
        let is_open = |address: &str| TcpStream::connect(address).is_ok();
        (is_open(&http_address) && is_open(&https_address)).then_some(())
    });
    control.address = http_address;
    control.tls_address = Some(https_address);
    assert_eq!(control.ask_tcp("GET", "/live", &["host: localhost"], "").status, 200);
    assert_eq!(ask(&control, &trusted, "GET", "/live", "", "").unwrap().0, 200);
}
