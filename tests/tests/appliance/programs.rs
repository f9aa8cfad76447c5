//! Programs that know nothing of DWCP, through `dwcp tunnel add`: a web server, git over http, an rsync daemon, Redis,
//! PostgreSQL. Those that this machine lacks are named and left out.
use std::fs::{self, File};
use std::net::TcpStream;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::node::{Node, address};

/// Two nodes; whatever listens on loopback at the second may be reached from the first.
struct Site {
    directory: TempDir,
    west: Node,
    east: Node,
}

impl Site {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        // Servers that give their rights up must get to their data.
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let listen = address();
        let west = Node::start("west", &directory.path().join("west"), &address());
        let east = Node::start("east", &directory.path().join("east"), &listen);
        west.meet(&east, &listen);
        east.meet_with(&west, "", "tunnels: {allow: ['west:127.0.0.1:*']}\n");
        Self { directory, west, east }
    }

    /// A tunnel to a port of the second node; says where to connect.
    fn tunnel(&self, target: &str) -> String {
        let listen = address();
        let status = self.west.spawn(&["tunnel", "add", &listen, &format!("east:{target}")]).wait().unwrap();
        assert!(status.success(), "{}", self.west.log());
        listen
    }

    fn path(&self, name: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        fs::create_dir_all(&path).unwrap();
        path
    }
}

/// A server that ends with the value.
struct Server(Child);

impl Server {
    /// Starts it, and waits until it listens.
    fn start(command: &mut Command, address: &str) -> Self {
        let mut server = Self(command.stdin(Stdio::null()).spawn().unwrap());
        let begin = Instant::now();
        while TcpStream::connect(address).is_err() {
            assert_eq!(server.0.try_wait().unwrap(), None, "{command:?} ended");
            assert!(begin.elapsed() < Duration::from_secs(30), "{command:?} does not listen");
            std::thread::park_timeout(Duration::from_millis(20));
        }
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Most servers clean up on this signal; one that has ended already is no matter.
        let pid = nix::unistd::Pid::from_raw(self.0.id() as i32);
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        drop(self.0.wait());
    }
}

/// Runs to a good end, and says what it printed.
fn run(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{command:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// Whether every program is there; says which is not.
fn have(programs: &[&str]) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = |program: &&&str| std::env::split_paths(&path).any(|place| place.join(program).exists());
    let missing: Vec<_> = programs.iter().filter(|program| !is_there(program)).collect();
    if !missing.is_empty() {
        println!("skipped: {missing:?} is not installed");
    }
    missing.is_empty()
}

fn port(address: &str) -> &str {
    address.rsplit_once(':').unwrap().1
}

/// Files of several sizes.
fn fill(directory: &Path) {
    for (index, size) in [0, 17, 4000, 300_000, 5_000_000].into_iter().enumerate() {
        let words = (0..size as u32).flat_map(|word| word.wrapping_mul(0x9e37_79b9).to_le_bytes());
        fs::write(directory.join(format!("{index}.bin")), words.take(size).collect::<Vec<u8>>()).unwrap();
    }
}

fn assert_same(a: &Path, b: &Path) {
    run(Command::new("diff").arg("-r").args([a, b]));
}

#[test]
fn a_web_server_and_git_over_http() {
    if !have(&["python3", "curl", "git"]) {
        return;
    }
    let site = Site::new();
    let served = site.path("served");
    fill(&served);
    let home = site.path("home");
    let git = |arguments: &[&str]| {
        let mut command = Command::new("git");
        command.args([
            "-c",
            "user.name=T",
            "-c",
            "user.email=t@example.org",
            "-c",
            "init.defaultBranch=main",
        ]);
        command.args(arguments).current_dir(&home).env("HOME", &home).env("GIT_TERMINAL_PROMPT", "0");
        run(&mut command)
    };
    let repository = site.path("repositories").join("r.git");
    git(&["init", "-q", "--bare", repository.to_str().unwrap()]);
    git(&["--git-dir", repository.to_str().unwrap(), "config", "http.receivepack", "true"]);

    let target = address();
    let mut command = Command::new("python3");
    command.args(["-m", "http.server", "--cgi", "--bind", "127.0.0.1", port(&target)]).current_dir(&served);
    command.env("GIT_PROJECT_ROOT", site.path("repositories")).env("GIT_HTTP_EXPORT_ALL", "1");
    // The CGI server becomes nobody; git trusts nobody's repositories only where it is told to.
    command
        .env("GIT_CONFIG_COUNT", "1")
        .env("GIT_CONFIG_KEY_0", "safe.directory")
        .env("GIT_CONFIG_VALUE_0", "*");
    run(Command::new("chmod").args(["-R", "a+rwX"]).arg(&repository));
    let log = File::create(site.path("logs").join("http")).unwrap();
    let _server = Server::start(command.stdout(log.try_clone().unwrap()).stderr(log), &target);
    let entrance = site.tunnel(&target);

    let fetched = site.path("fetched");
    for name in ["0.bin", "1.bin", "2.bin", "3.bin", "4.bin"] {
        let url = format!("http://{entrance}/{name}");
        run(Command::new("curl").args(["-sSf", "--max-time", "60", "-o"]).arg(fetched.join(name)).arg(url));
    }
    assert_same(&served, &fetched);

    let scripts = served.join("cgi-bin");
    fs::create_dir(&scripts).unwrap();
    let backend = PathBuf::from(git(&["--exec-path"]).trim()).join("git-http-backend");
    std::os::unix::fs::symlink(backend, scripts.join("git")).unwrap();
    let url = format!("http://{entrance}/cgi-bin/git/r.git");
    git(&["clone", "-q", &url, "work"]);
    fs::write(home.join("work/file"), "through the tunnel\n").unwrap();
    git(&["-C", "work", "add", "file"]);
    git(&["-C", "work", "commit", "-qm", "one"]);
    git(&["-C", "work", "push", "-q", "origin", "HEAD:main"]);
    git(&["clone", "-q", "-b", "main", &url, "again"]);
    assert_eq!(fs::read_to_string(home.join("again/file")).unwrap(), "through the tunnel\n");
}

#[test]
fn an_rsync_daemon() {
    if !have(&["rsync"]) {
        return;
    }
    let site = Site::new();
    let (served, fetched) = (site.path("served"), site.path("fetched"));
    fill(&served);
    let (target, configuration) = (address(), site.path("rsync").join("conf"));
    let text = format!(
        "use chroot = no\n[data]\npath = {}\nread only = no\nuid = {1}\ngid = {1}\n",
        served.display(),
        nix::unistd::getuid()
    );
    fs::write(&configuration, text).unwrap();
    let mut command = Command::new("rsync");
    command.args(["--daemon", "--no-detach", "--address", "127.0.0.1", "--port", port(&target), "--config"]);
    let _server = Server::start(command.arg(&configuration).stdout(Stdio::null()), &target);
    let entrance = site.tunnel(&target);
    let url = format!("rsync://{entrance}/data/");
    let rsync = |from: &str, to: &str| run(Command::new("rsync").args(["-a", "--timeout", "60", from, to]));
    rsync(&url, fetched.to_str().unwrap());
    assert_same(&served, &fetched);
    fs::write(fetched.join("new"), "back").unwrap();
    rsync(&format!("{}/", fetched.display()), &url);
    assert_same(&served, &fetched);
}

#[test]
fn redis() {
    if !have(&["redis-server", "redis-cli", "redis-benchmark"]) {
        return;
    }
    let site = Site::new();
    let target = address();
    let mut command = Command::new("redis-server");
    command.args(["--bind", "127.0.0.1", "--port", port(&target), "--save", ""]);
    let _server = Server::start(command.current_dir(site.path("redis")).stdout(Stdio::null()), &target);
    let entrance = site.tunnel(&target);
    let redis = |arguments: &[&str]| {
        run(Command::new("redis-cli").args(["-h", "127.0.0.1", "-p", port(&entrance)]).args(arguments))
    };
    let value = "0123456789abcdef".repeat(6000);
    assert_eq!(redis(&["set", "key", &value]), "OK\n");
    assert_eq!(redis(&["get", "key"]).trim_end(), value);
    let mut command = Command::new("redis-benchmark");
    command.args(["-h", "127.0.0.1", "-p", port(&entrance), "-q", "-n", "4000", "-c", "40", "-d", "2000"]);
    let text = run(command.args(["-t", "set,get,incr"]));
    assert!(text.matches("requests per second").count() == 3, "{text}");
    // Forty connections at a time, three times.
    site.west.until("their figures", || {
        let list: serde_json::Value = serde_json::from_str(&site.west.get("/api/v1/dwcp/tunnels")?).ok()?;
        (list["tunnels"][0]["connections_total"].as_u64()? >= 120).then_some(())
    });
}

#[test]
fn postgresql_with_psql_and_pgbench() {
    let Some(programs) = postgresql() else {
        return println!("skipped: PostgreSQL's server, psql or pgbench is not installed");
    };
    let site = Site::new();
    let data = site.path("postgresql");
    let owner = nix::unistd::User::from_name("postgres").ok().flatten();
    let is_root = nix::unistd::getuid().is_root();
    let Some(owner) = owner.or_else(|| nix::unistd::User::from_uid(nix::unistd::getuid()).ok().flatten())
    else {
        return println!("skipped: there is no user to run PostgreSQL as");
    };
    if is_root {
        chown(&data, Some(owner.uid.as_raw()), Some(owner.gid.as_raw())).unwrap();
    }
    // The server refuses to run as root.
    let program = |name: &str| {
        let mut command = Command::new(programs.join(name));
        if is_root {
            use std::os::unix::process::CommandExt;
            command.uid(owner.uid.as_raw()).gid(owner.gid.as_raw());
        }
        command.current_dir(&data).env("PGUSER", "postgres").env("PGDATABASE", "postgres");
        command
    };
    let cluster = data.join("cluster");
    let mut initialize = program("initdb");
    initialize.args(["--auth=trust", "--no-sync", "--username=postgres", "-D"]).arg(&cluster);
    run(&mut initialize);
    let target = address();
    let mut server = program("postgres");
    server.arg("-D").arg(&cluster).args(["-h", "127.0.0.1", "-p", port(&target), "-c", "fsync=off", "-k"]);
    let log = File::create(site.path("logs").join("postgresql")).unwrap();
    server.arg(&data).stdout(log.try_clone().unwrap()).stderr(log);
    let _server = Server::start(&mut server, &target);

    let entrance = site.tunnel(&target);
    let client = |name: &str, arguments: &[&str]| {
        run(program(name).args(["-h", "127.0.0.1", "-p", port(&entrance)]).args(arguments))
    };
    site.west.until("the server takes questions", || {
        let mut command = program("psql");
        command.args(["-h", "127.0.0.1", "-p", port(&entrance), "-tAc", "select 1"]);
        command.output().unwrap().status.success().then_some(())
    });
    client("pgbench", &["-i", "-q", "-s", "1"]);
    assert_eq!(client("psql", &["-tAc", "select count(*) from pgbench_accounts"]), "100000\n");
    let text = client("pgbench", &["-c", "8", "-t", "50"]);
    assert!(text.contains("transactions actually processed: 400/400"), "{text}");
}

/// Where PostgreSQL's programs are, if all of them are.
fn postgresql() -> Option<PathBuf> {
    let versions =
        fs::read_dir("/usr/lib/postgresql").ok()?.filter_map(|entry| Some(entry.ok()?.path().join("bin")));
    let whole = |place: &PathBuf| {
        ["initdb", "postgres", "psql", "pgbench"].iter().all(|name| place.join(name).exists())
    };
    versions.filter(whole).max()
}

#[test]
fn a_tunnel_outlives_both_halves_of_its_node() {
    if !have(&["python3", "curl"]) {
        return;
    }
    let site = Site::new();
    let (served, target) = (site.path("served"), address());
    fill(&served);
    let mut command = Command::new("python3");
    command.args(["-m", "http.server", "--bind", "127.0.0.1", port(&target)]).current_dir(&served);
    let _server = Server::start(command.stdout(Stdio::null()).stderr(Stdio::null()), &target);
    let entrance = site.tunnel(&target);
    let works = |node: &Node| {
        node.until("the tunnel works", || {
            let mut command = Command::new("curl");
            command.args([
                "-sSf",
                "--max-time",
                "40",
                "-o",
                "/dev/null",
                &format!("http://{entrance}/3.bin"),
            ]);
            command.stderr(Stdio::null()).status().unwrap().success().then_some(())
        });
    };
    works(&site.west);
    for node in [&site.west, &site.east] {
        let (dataplane, control) = (node.dataplane(), node.control());
        node.kill(dataplane);
        node.until("another dataplane", || node.find("dwcp-dataplane").filter(|&pid| pid != dataplane));
        works(&site.west);
        node.kill(control);
        works(&site.west);
        node.until("another control", || node.find("dwcp-control").filter(|&pid| pid != control));
        works(&site.west);
    }
    let again = site.west.spawn(&["tunnel", "add", &entrance, &format!("east:{target}")]).wait().unwrap();
    assert!(!again.success(), "the address is taken by the tunnel itself");
    let removed = site.west.spawn(&["tunnel", "remove", &entrance]).wait().unwrap();
    assert!(removed.success(), "{}", site.west.log());
    site.west.until("it listens no more", || TcpStream::connect(&entrance).is_err().then_some(()));
}
