//! The page at `/` in a real browser: it fills itself from the node and puts nothing of the node's into its markup.
//! Skipped with a line where Chromium is not installed.
mod support;

use std::process::{Command, Stdio};

use support::dataplane::FakeDataplane;
use support::{Control, Site, wait_for};

/// The page's document a few seconds after it was opened; `None` without a browser.
fn opened(control: &Control) -> Option<String> {
    let profile = tempfile::tempdir().unwrap();
    let mut browser = Command::new("timeout");
    browser.args([
        "60",
        "chromium",
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--virtual-time-budget=4000",
    ]);
    browser.arg(format!("--user-data-dir={}", profile.path().display())).arg("--dump-dom");
    browser.arg(format!("http://{}/", control.address)).stderr(Stdio::null());
    let output = browser.output().ok().filter(|output| output.status.success());
    if output.is_none() {
        println!("skipped: chromium is not installed, or cannot run here");
    }
    output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn the_page_fills_itself_and_shows_names_as_text() {
    let site = Site::new();
    site.configure("node: {name: '<b id=x>berlin</b>'}\n");
    let mut dataplane = FakeDataplane::start(site.dataplane_socket(), 1, 2);
    let control = site.start();
    wait_for("ready", || (control.get("/ready").status == 200).then_some(()));
    let id = control.order();
    dataplane.next();
    dataplane.progress(id, 1, 40);
    control.wait_for_state(id, "running");
    let Some(document) = opened(&control) else { return };
    let text = |part: &str| assert!(document.contains(part), "{part} is not in {document}");
    text("<dd id=\"health\" class=\"good\">healthy</dd>");
    text("DWCP &lt;b id=x&gt;berlin&lt;/b&gt;");
    assert!(!document.contains("<b id=\"x\"") && !document.contains("<b id=x>"), "a name became markup");
    text(">running<");
    text("/srv/a and 1 more");
    text(">paris<");
    text("transfer");
    let rows = document.matches("<i style=\"width:").count();
    assert!(rows >= 3, "two workers and a transfer have meters, found {rows}");
}

#[test]
fn the_page_may_ask_this_node_only() {
    let site = Site::new();
    let control = site.start();
    let page = control.get("/");
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.contains("default-src 'none'") && policy.contains("connect-src 'self'"), "{policy}");
    assert!(!page.text().contains("http://") && !page.text().contains("https://"), "it needs the internet");
}
