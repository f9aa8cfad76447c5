//! Jobs from order to end, through crashes of either half: nothing accepted is lost, nothing is done twice.
mod support;

use dwcp_abi::codec::Encoded;
use dwcp_abi::link::Outcome;
use dwcp_abi::wire::{JobChanges, TreeOptions};
use nix::sys::signal::Signal;
use support::dataplane::{FakeDataplane, Said};
use support::{ORDER, Site, wait_for};

const FIRST: u64 = 0x1111;
const SECOND: u64 = 0x2222;

fn start(job: u64, attempt: u32) -> Said {
    Said::Start { job, attempt, peer: "paris".into() }
}

#[test]
fn a_job_goes_from_order_to_end() {
    let site = Site::new();
    let mut dataplane = FakeDataplane::start(site.dataplane_socket(), FIRST, 2);
    let control = site.start();
    dataplane.wait_for_snapshots(2);
    assert_eq!(dataplane.plans.recv().unwrap(), ["paris"]);
    let id = control.order();
    assert_eq!(dataplane.next(), start(id, 1));
    dataplane.progress(id, 1, 40);
    let running = control.wait_for_state(id, "running");
    assert_eq!(running["counts"]["bytes_done"], 40);
    assert_eq!((running["lanes"].as_u64(), running["attempt"].as_u64()), (Some(3), Some(1)));
    dataplane.finish(id, 1, Outcome::Done);
    assert_eq!(dataplane.next(), Said::Forget(id));
    let done = control.transfer(id);
    assert_eq!(done["state"], "done");
    assert_eq!((done["counts"]["bytes_done"].as_u64(), done["ratio"].as_f64()), (Some(100), Some(2.0)));
    let listed = control.get("/api/v1/dwcp/transfers?state=done").json();
    assert_eq!(listed["transfers"][0]["id"].as_u64(), Some(id));
    assert_eq!(control.ask("DELETE", &format!("/api/v1/dwcp/transfers/{id}"), "").status, 409);
}

#[test]
fn kill_9_of_control_loses_nothing_at_any_step() {
    let site = Site::new();
    // Without a dataplane: an accepted order is on disk.
    let mut control = site.start();
    let id = control.order();
    control.kill();
    drop(control);

    let mut control = site.start();
    assert_eq!(control.transfer(id)["state"], "queued");
    let mut dataplane = FakeDataplane::start(site.dataplane_socket(), FIRST, 2);
    assert_eq!(dataplane.next(), start(id, 1));
    control.kill();
    drop(control);

    // The same dataplane still has the job: it is not given again.
    let mut control = site.start();
    let snapshots = dataplane.snapshots;
    dataplane.wait_for_snapshots(snapshots + 2);
    dataplane.progress(id, 1, 50);
    control.wait_for_state(id, "running");
    control.kill();
    drop(control);

    // It ends while nobody listens: the end is told again until it is stored.
    dataplane.finish(id, 1, Outcome::Done);
    let mut control = site.start();
    assert_eq!(dataplane.next(), Said::Forget(id));
    assert_eq!(control.wait_for_state(id, "done")["attempt"], 1);
    control.kill();
    drop(control);

    let control = site.start();
    assert_eq!(control.transfer(id)["state"], "done");
    assert_eq!(control.order(), id + 1);
}

/// A new attempt leaves out what the first one did.
#[test]
fn kill_9_of_control_keeps_what_is_left_out() {
    let filters = r#"[{"include":"keep.o"},{"exclude":{"base64":"Ki7/"}}]"#;
    let order = ORDER.replace(
        r#""direction""#,
        &format!(r#""options":{{"filters":{filters},"delete":true,"dry_run":true}},"direction""#),
    );
    let site = Site::new();
    let mut control = site.start();
    let id = control.ask("POST", "/api/v1/dwcp/transfers", &order).json()["id"].as_u64().unwrap();
    control.kill();
    drop(control);
    let control = site.start();
    assert_eq!(control.transfer(id)["options"]["filters"].to_string(), filters);
    let mut dataplane = FakeDataplane::start(site.dataplane_socket(), FIRST, 2);
    assert_eq!(dataplane.next(), start(id, 1));
    assert_eq!(dataplane.filters, b"\x01\x06\0keep.o\x02\x03\0*.\xff");
    assert_eq!(dataplane.tree, TreeOptions::DELETE.with(TreeOptions::DRY_RUN, true));

    // What it has changed outlives control as well, and a peer that says nonsense is not believed.
    let changes =
        JobChanges { created: 1, replaced: 0, bytes: 9, deleted: 2, names: b"\x03\x01\0a\x07", notes: b"n" };
    dataplane.changes = vec![0; 64];
    let length = changes.encode(&mut dataplane.changes).unwrap();
    dataplane.changes.truncate(length);
    dataplane.finish(id, 1, Outcome::Done);
    control.wait_for_state(id, "done");
    drop(control);
    let said = site.start().transfer(id)["changes"].to_string();
    let names = r#""names":[{"change":"deleted","path":"a"}]"#;
    assert_eq!(said, format!(r#"{{"bytes":9,"created":1,"deleted":2,{names},"replaced":0}}"#));
}

#[test]
fn a_new_dataplane_gets_unfinished_jobs_as_a_new_attempt() {
    let site = Site::new();
    let mut dataplane = FakeDataplane::start(site.dataplane_socket(), FIRST, 1);
    let control = site.start();
    let id = control.order();
    assert_eq!(dataplane.next(), start(id, 1));
    drop(dataplane);
    control.wait_for_state(id, "interrupted");
    wait_for("not ready", || (control.get("/ready").status == 503).then_some(()));

    let mut dataplane = FakeDataplane::start(site.dataplane_socket(), SECOND, 3);
    let said = wait_for("the second attempt", || {
        Some(dataplane.next()).filter(|said| matches!(said, Said::Start { .. }))
    });
    assert_eq!(said, start(id, 2));
    dataplane.finish(id, 2, Outcome::Done);
    assert_eq!(control.wait_for_state(id, "done")["attempt"], 2);
    let status = control.get("/api/v1/dwcp/status").json();
    assert_eq!(
        (status["dataplane"]["restarts"].as_u64(), status["dataplane"]["workers"].as_u64()),
        (Some(1), Some(3))
    );
}

#[test]
fn a_job_that_the_same_dataplane_lost_is_given_again() {
    let site = Site::new();
    let mut dataplane = FakeDataplane::start(site.dataplane_socket(), FIRST, 1);
    let mut control = site.start();
    let id = control.order();
    assert_eq!(dataplane.next(), start(id, 1));
    control.kill();
    drop(control);
    dataplane.known.clear();
    let _control = site.start();
    assert_eq!(dataplane.next(), start(id, 1));
}

#[test]
fn cancelling_is_durable_and_reaches_the_dataplane() {
    let site = Site::new();
    let mut control = site.start();
    let waiting = control.order();
    let path = |id: u64| format!("/api/v1/dwcp/transfers/{id}");
    assert_eq!(control.ask("DELETE", &path(waiting), "").status, 202);
    control.wait_for_state(waiting, "cancelled");

    let mut dataplane = FakeDataplane::start(site.dataplane_socket(), FIRST, 1);
    let id = control.order();
    let said =
        wait_for("the start", || Some(dataplane.next()).filter(|said| matches!(said, Said::Start { .. })));
    assert_eq!(said, start(id, 1));
    assert_eq!(control.ask("DELETE", &path(id), "").status, 202);
    control.kill();
    drop(control);
    let control = site.start();
    assert_eq!(dataplane.next(), Said::Cancel(id));
    dataplane.finish(id, 1, Outcome::Cancelled);
    control.wait_for_state(id, "cancelled");
    assert_eq!(control.ask("DELETE", &path(id), "").status, 409);
    assert_eq!(control.ask("DELETE", &path(999), "").status, 404);
}

#[test]
fn a_paused_job_stays_paused_through_kill_9_of_control() {
    let site = Site::new();
    let mut dataplane = FakeDataplane::start(site.dataplane_socket(), FIRST, 1);
    let mut control = site.start();
    let id = control.order();
    assert_eq!(dataplane.next(), start(id, 1));
    let order = |control: &support::Control, what: &str| {
        control.ask("POST", &format!("/api/v1/dwcp/transfers/{id}/{what}"), "").status
    };
    // Killed before the dataplane has ended the attempt: it is told again.
    assert_eq!(order(&control, "pause"), 202);
    control.kill();
    drop(control);
    let mut control = site.start();
    let said = wait_for("the pause", || Some(dataplane.next()).filter(|said| *said == Said::Pause(id)));
    assert_eq!(said, Said::Pause(id));
    dataplane.finish(id, 1, Outcome::Interrupted);
    control.wait_for_state(id, "paused");
    control.kill();
    drop(control);

    // Killed while it rests: nothing is started until it is resumed.
    let control = site.start();
    let snapshots = dataplane.snapshots;
    dataplane.wait_for_more(snapshots);
    assert!(dataplane.nothing_within(std::time::Duration::from_millis(1500)));
    assert_eq!(control.transfer(id)["state"], "paused");
    assert_eq!(order(&control, "pause"), 202);
    assert_eq!(order(&control, "resume"), 202);
    let said = wait_for("the second attempt", || {
        Some(dataplane.next()).filter(|said| matches!(said, Said::Start { .. }))
    });
    assert_eq!(said, start(id, 2));
    dataplane.finish(id, 2, Outcome::Done);
    control.wait_for_state(id, "done");
    assert_eq!(order(&control, "pause"), 409);
    assert_eq!(control.ask("POST", "/api/v1/dwcp/transfers/999/resume", "").status, 404);
}

#[test]
fn an_interrupted_job_is_tried_again() {
    let site = Site::new();
    let mut dataplane = FakeDataplane::start(site.dataplane_socket(), FIRST, 2);
    let control = site.start();
    let id = control.order();
    assert_eq!(dataplane.next(), start(id, 1));
    dataplane.finish(id, 1, Outcome::Interrupted);
    assert_eq!(dataplane.next(), Said::Forget(id));
    assert_eq!(control.transfer(id)["state"], "interrupted");
    let said = wait_for("the second attempt", || {
        Some(dataplane.next()).filter(|said| matches!(said, Said::Start { .. }))
    });
    assert_eq!(said, start(id, 2));
    dataplane.finish(id, 2, Outcome::Failed);
    let failed = control.wait_for_state(id, "failed");
    assert_eq!(failed["error"], "as the test wants it");
}

#[test]
fn garbage_in_the_event_ring_is_counted_and_survived() {
    let site = Site::new();
    let mut dataplane = FakeDataplane::start(site.dataplane_socket(), FIRST, 2);
    let control = site.start();
    let id = control.order();
    assert_eq!(dataplane.next(), start(id, 1));
    let snapshots = dataplane.snapshots;
    for length in 0..64 {
        let bytes: Vec<u8> = (0..length).map(|at| (at * 37 + length * 11) as u8).collect();
        dataplane.emit_bytes(0, &bytes);
        dataplane.emit_bytes(1, &bytes);
    }
    // Reports of jobs that are not there, for the wrong worker and for attempts that were never made.
    dataplane.progress(id + 2, 1, 5);
    dataplane.progress(id, 9, 77);
    dataplane.wait_for_more(snapshots);
    dataplane.progress(id, 1, 60);
    let running =
        wait_for("progress", || Some(control.transfer(id)).filter(|job| job["counts"]["bytes_done"] == 60));
    assert_eq!(running["state"], "running");
    let metrics = control.get("/metrics").text();
    let counted =
        metrics.lines().find(|line| line.starts_with("dwcp_dataplane_events_garbage_total ")).unwrap();
    assert!(counted.rsplit(' ').next().unwrap().parse::<u64>().unwrap() > 50, "{counted}");
}

#[test]
fn a_reload_sends_a_new_plan_and_a_wrong_one_changes_nothing() {
    let site = Site::new();
    let dataplane = FakeDataplane::start(site.dataplane_socket(), FIRST, 1);
    let control = site.start();
    assert_eq!(dataplane.plans.recv().unwrap(), ["paris"]);
    std::fs::write(site.path("dwcp.yaml"), "peers: [\n").unwrap();
    control.signal(Signal::SIGHUP);
    wait_for("the failed reload", || {
        control.get("/metrics").text().contains("\ndwcp_config_loaded 0\n").then_some(())
    });
    let digits = "ab".repeat(32);
    let peers = format!("peers: [{{name: berlin, identity: 'sha256:{digits}'}}]\napi: {{listen: ':1'}}\n");
    std::fs::write(site.path("dwcp.yaml"), peers).unwrap();
    control.signal(Signal::SIGHUP);
    assert_eq!(dataplane.plans.recv().unwrap(), ["berlin"]);
    let config = control.get("/api/v1/dwcp/config").json();
    assert!(config["restart_required"].as_array().unwrap().iter().any(|key| key == "api.listen"), "{config}");
    let order = control.ask("POST", "/api/v1/dwcp/transfers", support::ORDER);
    assert_eq!(
        (order.status, order.json()["type"].as_str().unwrap().to_owned()),
        (422, "urn:dwcp:problem:unknown-peer".into())
    );
}

#[test]
fn another_link_version_is_said_plainly() {
    let site = Site::new();
    let _dataplane = FakeDataplane::start_with_version(site.dataplane_socket(), FIRST, 1, 99);
    let control = site.start();
    let health = wait_for("unhealthy", || Some(control.get("/health")).filter(|health| health.status == 503));
    let error = health.json()["error"].as_str().unwrap().to_owned();
    assert!(error.contains("99") && error.contains("version"), "{error}");
}
