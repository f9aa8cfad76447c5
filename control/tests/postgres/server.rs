//! Debian's PostgreSQL, of the test's own: a cluster in a temporary directory, started and stopped at will.
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::unistd::{User, getuid};

use crate::support::wait_for;

pub(crate) struct Server {
    directory: tempfile::TempDir,
    programs: PathBuf,
    owner: User,
    pub(crate) port: u16,
    running: Option<Child>,
}

impl Server {
    /// A fresh cluster that runs; `None`, with a line that says so, where there is no PostgreSQL.
    pub(crate) fn new() -> Option<Self> {
        let versions = fs::read_dir("/usr/lib/postgresql").ok();
        let places = versions.into_iter().flatten().flatten().map(|version| version.path().join("bin"));
        let Some(programs) = places.filter(|place| place.join("initdb").exists()).max() else {
            println!("skipped: PostgreSQL's server is not installed; `cargo xtask setup` installs it");
            return None;
        };
        // The server refuses to run as root.
        let name = if getuid().is_root() { User::from_name("postgres") } else { User::from_uid(getuid()) };
        let Some(owner) = name.ok().flatten() else {
            println!("skipped: there is no user to run PostgreSQL as");
            return None;
        };
        let directory = tempfile::tempdir().unwrap();
        if getuid().is_root() {
            chown(directory.path(), Some(owner.uid.as_raw()), Some(owner.gid.as_raw())).unwrap();
        }
        // Which control has to enter too, where the certificate lies.
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut server = Self { directory, programs, owner, port, running: None };
        server.run("initdb", &["--auth=trust", "--no-sync", "--username=dwcp", "-D", "cluster"]);
        server.start();
        Some(server)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A file that only the server's user reads.
    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        if getuid().is_root() {
            chown(&path, Some(self.owner.uid.as_raw()), Some(self.owner.gid.as_raw())).unwrap();
        }
    }

    pub(crate) fn start(&mut self) {
        let port = self.port.to_string();
        let mut command = self.program("postgres");
        // Commits go to the page cache, which outlives a server that is killed.
        command.args(["-D", "cluster", "-h", "127.0.0.1", "-p", &port, "-c", "fsync=off", "-k"]);
        command.arg(self.directory.path()).stdout(Stdio::null()).stderr(Stdio::null());
        self.running = Some(command.spawn().unwrap());
        wait_for("PostgreSQL", || {
            let mut ready = self.program("pg_isready");
            ready.args(["-q", "-h", "127.0.0.1", "-p", &port]).status().unwrap().success().then_some(())
        });
    }

    /// As a crash: nobody is asked to finish anything.
    pub(crate) fn crash(&mut self) {
        self.run("pg_ctl", &["stop", "-m", "immediate", "-D", "cluster"]);
        if let Some(mut child) = self.running.take() {
            child.wait().unwrap();
        }
    }

    pub(crate) fn create_database(&self, name: &str) {
        self.run("createdb", &["-h", "127.0.0.1", "-p", &self.port.to_string(), "-U", "dwcp", name]);
    }

    pub(crate) fn sql(&self, database: &str, statement: &str) -> String {
        let port = self.port.to_string();
        let place = ["-h", "127.0.0.1", "-p", &port, "-U", "dwcp", "-d", database];
        let rest = ["-v", "ON_ERROR_STOP=1", "-tAc", statement];
        self.run("psql", &[&place[..], &rest[..]].concat())
    }

    fn run(&self, name: &str, arguments: &[&str]) -> String {
        let output = self.program(name).args(arguments).output().unwrap();
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    fn program(&self, name: &str) -> Command {
        let mut command = Command::new(self.programs.join(name));
        if getuid().is_root() {
            command.uid(self.owner.uid.as_raw()).gid(self.owner.gid.as_raw());
        }
        command.current_dir(self.directory.path()).env_remove("PGPASSWORD");
        command
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.running.is_some() && Path::new(&self.path("cluster")).exists() {
            self.crash();
        }
    }
}
