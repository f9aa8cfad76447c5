//! State on a PostgreSQL server: the same store, and a server that goes away and comes back. Debian's server is started
//! by the tests; without it they say so and pass.
mod server;
#[path = "../support/mod.rs"]
mod support;

use dwcp_abi::link::Outcome;
use server::Server;
use support::dataplane::{FakeDataplane, Said};
use support::{Control, ORDER, Site, wait_for};

const INSTANCE: u64 = 0x1111;

fn start(job: u64, attempt: u32) -> Said {
    Said::Start { job, attempt, peer: "paris".into() }
}

/// A site whose state is in this database.
fn site(server: &Server, database: &str) -> Site {
    server.create_database(database);
    let site = Site::new();
    configure(&site, &format!("postgres_url: 'postgres://dwcp@127.0.0.1:{}/{database}'", server.port));
    site
}

fn configure(site: &Site, keys: &str) {
    let recovery = "recovery: {backoff: [200ms]}";
    site.configure(&format!("{recovery}\nstate: {{backend: postgres, {keys}}}\n"));
}

/// What health says of the store.
fn store_state(control: &Control) -> String {
    let health = control.get("/health?verbose=true").json();
    let parts = health["parts"].as_array().unwrap();
    let store = parts.iter().find(|part| part["name"] == "store").unwrap();
    store["status"].as_str().unwrap().to_owned()
}

#[test]
fn nothing_acknowledged_is_lost_when_control_or_the_server_dies() {
    let Some(mut server) = Server::new() else { return };
    let site = site(&server, "deaths");
    let mut control = site.start();
    let first = control.order();
    control.kill();
    drop(control);

    // Its session may still stand at the server: the next one waits for it.
    let control = site.start();
    assert_eq!(control.transfer(first)["state"], "queued");
    let mut dataplane = FakeDataplane::start(site.dataplane_socket(), INSTANCE, 1);
    assert_eq!(dataplane.next(), start(first, 1));
    dataplane.progress(first, 1, 40);
    control.wait_for_state(first, "running");

    server.crash();
    let refused = control.ask("POST", "/api/v1/dwcp/transfers", ORDER);
    assert!(refused.status >= 500, "{}: {}", refused.status, refused.text());
    wait_for("health to say so", || {
        let health = control.get("/health").json();
        (health["status"] != "healthy" && store_state(&control) != "healthy").then_some(())
    });
    // What runs goes on, and its end is told again until it is stored: the dataplane may not forget it before.
    dataplane.finish(first, 1, Outcome::Done);
    assert!(dataplane.nothing_within(std::time::Duration::from_millis(600)), "forgotten too early");

    server.start();
    assert_eq!(dataplane.next(), Said::Forget(first));
    control.wait_for_state(first, "done");
    wait_for("health", || (store_state(&control) == "healthy").then_some(()));
    let second = control.order();
    assert!(second > first);
    assert_eq!(
        server.sql("deaths", "SELECT string_agg(state, ',' ORDER BY id) FROM jobs WHERE state = 'done'"),
        "done"
    );
}

#[test]
fn a_database_belongs_to_one_control() {
    let Some(server) = Server::new() else { return };
    let site = site(&server, "owned");
    let _control = site.start();
    let other = Site::new();
    configure(&other, &format!("postgres_url: 'postgres://dwcp@127.0.0.1:{}/owned'", server.port));
    let output = other.command().output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("another dwcp-control has it open"), "{said}");
    server.sql("owned", "UPDATE dwcp_layout SET number = 999");
    drop(_control);
    let output = site.command().output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("layout 999"), "{said}");
}

#[test]
fn copies_move_state_from_a_file_to_the_server_and_back() {
    let Some(server) = Server::new() else { return };
    // Embedded first.
    let embedded = Site::new();
    let mut control = embedded.start();
    let ids = [control.order(), control.order()];
    let copy = control.ask("POST", "/api/v1/dwcp/backup", "").body;
    assert!(copy.starts_with(b"SQLite format 3\0"));
    control.kill();
    drop(control);

    let site = site(&server, "moved");
    std::fs::create_dir_all(site.path("state")).unwrap();
    std::fs::write(site.path("state/control.db.pending"), &copy).unwrap();
    let mut control = site.start();
    for id in ids {
        assert_eq!(control.transfer(id)["state"], "queued");
    }
    let third = control.order();
    assert_eq!(third, ids[1] + 1, "numbers go on");
    let copy = control.ask("POST", "/api/v1/dwcp/backup", "").body;
    control.kill();
    drop(control);
    // What the server had before is kept, too.
    let kept = std::fs::read_dir(site.path("state")).unwrap().flatten();
    assert!(kept.into_iter().any(|file| file.file_name().to_string_lossy().contains("pre-restore")));

    std::fs::write(embedded.path("state/control.db.pending"), &copy).unwrap();
    let control = embedded.start();
    assert_eq!(control.transfer(third)["state"], "queued");
    assert_eq!(control.order(), third + 1);
}

#[test]
fn tls_and_a_password_and_neither_without_the_other_end_known() {
    let Some(mut server) = Server::new() else { return };
    let authority = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    server.write("server.crt", &authority.cert.pem());
    server.write("server.key", &authority.signing_key.serialize_pem());
    server.sql("postgres", "ALTER USER dwcp PASSWORD 'correct horse'");
    server.create_database("sealed");
    server.crash();
    server.write(
        "cluster/pg_hba.conf",
        "hostssl sealed dwcp 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 trust\n",
    );
    let settings = format!(
        "ssl = on\nssl_cert_file = '{}'\nssl_key_file = '{}'\n",
        server.path("server.crt").display(),
        server.path("server.key").display()
    );
    server.write("cluster/postgresql.auto.conf", &settings);
    server.start();

    let site = Site::new();
    std::fs::write(site.path("ca.crt"), authority.cert.pem()).unwrap();
    std::fs::write(site.path("password"), "correct horse\n").unwrap();
    let keys = |authority: &str| {
        format!(
            "postgres_url: 'postgres://dwcp@127.0.0.1:{}/sealed', postgres_ca_file: '{}', postgres_password_file: '{}'",
            server.port,
            site.path(authority).display(),
            site.path("password").display()
        )
    };
    configure(&site, &keys("ca.crt"));
    let mut control = site.start();
    let id = control.order();
    let ssl = "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE ssl AND application_name = 'dwcp'";
    assert_eq!(server.sql("postgres", ssl), "1");
    control.kill();
    drop(control);
    assert_eq!(site.start().transfer(id)["state"], "queued");

    let stranger = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    std::fs::write(site.path("other.crt"), stranger.cert.pem()).unwrap();
    configure(&site, &keys("other.crt"));
    let output = site.command().output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("certificate"), "{said}");
    std::fs::write(site.path("password"), "wrong horse\n").unwrap();
    configure(&site, &keys("ca.crt"));
    let output = site.command().output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("password authentication failed"), "{said}");
    assert!(!said.contains("wrong horse"), "secrets stay where they are");
}
