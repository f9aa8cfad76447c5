//! `demo --cluster`: four nodes that agree with each other, and go on agreeing while one is killed, one is cut off, and
//! the protocol changes. In network namespaces of their own where we may, else on loopback addresses, where a node that
//! is stopped stands for one that is cut off.
use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::{janitor::Janitor, json::Json, place};
use crate::shell;

const NAMES: [&str; 4] = ["berlin", "paris", "oslo", "lima"];
/// Commands that are decided in each situation.
const COMMANDS: usize = 20;
/// Longest that one command may take while a member fails.
const PATIENCE: Duration = Duration::from_secs(30);
const ROOM_BYTES: u64 = 64 << 20;

/// Everything between the start and the end of the janitor.
///
/// # Errors
/// Something is not decided, or not the same everywhere.
pub(super) fn show(programs: &Path, janitor: &mut Janitor) -> Result<()> {
    let run = place::find(ROOM_BYTES)?;
    janitor.directory(&run)?;
    fs::create_dir_all(&run).with_context(|| run.display().to_string())?;
    let road = Road::lay(janitor)?;
    println!("\ndemo: four nodes on {}; their files are in {}", road.shown, run.display());
    let mut nodes = Vec::new();
    for number in 0..NAMES.len() {
        nodes.push(Node::start(number, &road, &run, programs, janitor)?);
    }
    let result = agree(&mut nodes, &road, janitor);
    if result.is_err() {
        nodes.iter().for_each(Node::print_log_end);
    }
    result
}

fn agree(nodes: &mut [Node], road: &Road, janitor: &mut Janitor) -> Result<()> {
    nodes[0].show(&["cluster", "init"])?;
    for number in 1..nodes.len() {
        let token = nodes[0].ask(&["cluster", "token"])?;
        let (peer, secret) = (token.text("peer").to_owned(), token.text("token").to_owned());
        println!("\n{}$ dwcp cluster join --peer {peer} --token TOKEN", nodes[number].name);
        nodes[number].run(&["cluster", "join", "--peer", &peer, "--token", &secret])?;
    }
    nodes[0].show(&["cluster", "list"])?;
    let mut story = Story { written: 0 };
    story.decide(nodes, 0, "all four are there")?;

    nodes[2].kill()?;
    story.decide(nodes, 1, "oslo was killed (kill -9)")?;
    nodes[2].spawn(janitor)?;
    story.compare(nodes, "oslo is back")?;

    let leader = leader(&nodes[1])?;
    let other = (leader + 1) % nodes.len();
    road.cut(&nodes[leader])?;
    story.decide(nodes, other, &format!("{}, who led, {}", nodes[leader].name, road.cut_shown()))?;
    road.mend(&nodes[leader])?;
    story.compare(nodes, &format!("{} is back", nodes[leader].name))?;

    nodes[3].show(&["cluster", "algorithm", "bullshark"])?;
    story.decide(nodes, 3, "the protocol is another one")?;
    nodes[1].kill()?;
    story.decide(nodes, 0, "paris was killed (kill -9)")?;
    nodes[1].spawn(janitor)?;
    story.compare(nodes, "paris is back")?;

    for node in &mut *nodes {
        node.kill()?;
    }
    for node in &mut *nodes {
        node.spawn(janitor)?;
    }
    story.compare(nodes, "the power failed everywhere")?;
    nodes[0].show(&["debug", "consensus"])
}

/// Number of the node that leads: the committee's order begins with the view.
fn leader(node: &Node) -> Result<usize> {
    let status = node.ask(&["debug", "consensus"])?;
    let mark: usize = status.text("mark").parse().context("the view")?;
    Ok((mark / 2) % NAMES.len())
}

/// What was decided so far.
struct Story {
    written: usize,
}

impl Story {
    fn decide(&mut self, nodes: &[Node], speaker: usize, situation: &str) -> Result<()> {
        let mut slowest = Duration::ZERO;
        let begun = Instant::now();
        for _ in 0..COMMANDS {
            let start = Instant::now();
            let (key, value) = (format!("step/{}", self.written), format!("{}", self.written));
            let set = || nodes[speaker].run(&["cluster", "set", &key, &value]);
            while let Err(error) = set() {
                if start.elapsed() > PATIENCE {
                    return Err(error).with_context(|| format!("nothing is decided while {situation}"));
                }
            }
            self.written += 1;
            slowest = slowest.max(start.elapsed());
        }
        println!(
            "demo: {situation}: {COMMANDS} commands decided in {:.2} s, the slowest in {:.2} s",
            begun.elapsed().as_secs_f64(),
            slowest.as_secs_f64()
        );
        Ok(())
    }

    /// Every node reads everything that was decided.
    fn compare(&self, nodes: &[Node], situation: &str) -> Result<()> {
        let begun = Instant::now();
        for node in nodes {
            for number in [0, self.written / 2, self.written - 1] {
                let (key, value) = (format!("step/{number}"), number.to_string());
                loop {
                    let found = node.ask(&["cluster", "get", &key]);
                    match &found {
                        Ok(found) if found.text("value") == value => break,
                        _ if begun.elapsed() > PATIENCE => {
                            bail!("{} does not read {key} as {value}: {found:?}", node.name)
                        }
                        _ => std::thread::sleep(Duration::from_millis(100)),
                    }
                }
            }
        }
        let seconds = begun.elapsed().as_secs_f64();
        println!("demo: {situation}: all four read the same {seconds:.2} s later");
        Ok(())
    }
}

/// What joins the nodes.
struct Road {
    /// The namespace of the bridge; `None` on loopback.
    hub: Option<String>,
    shown: String,
}

impl Road {
    fn lay(janitor: &mut Janitor) -> Result<Self> {
        if !shell::is_root() {
            return Ok(Self {
                hub: None,
                shown: "loopback addresses, without own network namespaces: not root".into(),
            });
        }
        let hub = format!("dwcp-cluster-{}", std::process::id());
        janitor.namespace(&hub)?;
        ip(&["netns", "add", &hub])?;
        ip(&["-n", &hub, "link", "add", "bridge", "type", "bridge"])?;
        ip(&["-n", &hub, "link", "set", "bridge", "up"])?;
        for number in 0..NAMES.len() {
            let (name, port) = (Self::namespace(&hub, number), format!("port{number}"));
            janitor.namespace(&name)?;
            ip(&["netns", "add", &name])?;
            ip(&["-n", &hub, "link", "add", &port, "type", "veth", "peer", "name", "dwcp0", "netns", &name])?;
            ip(&["-n", &hub, "link", "set", &port, "master", "bridge", "up"])?;
            let address = format!("10.78.0.{}/24", number + 1);
            ip(&["-n", &name, "address", "add", &address, "dev", "dwcp0"])?;
            ip(&["-n", &name, "link", "set", "dwcp0", "up"])?;
            ip(&["-n", &name, "link", "set", "lo", "up"])?;
        }
        Ok(Self { hub: Some(hub), shown: "network namespaces, 10.78.0.1 to 10.78.0.4 on a bridge".into() })
    }

    fn namespace(hub: &str, number: usize) -> String {
        format!("{hub}-{number}")
    }

    fn cut_shown(&self) -> &'static str {
        if self.hub.is_some() { "is cut off (its link is down)" } else { "says nothing (SIGSTOP)" }
    }

    fn cut(&self, node: &Node) -> Result<()> {
        match &self.hub {
            Some(hub) => ip(&["-n", hub, "link", "set", &format!("port{}", node.number), "down"]),
            None => node.signal("STOP"),
        }
    }

    fn mend(&self, node: &Node) -> Result<()> {
        match &self.hub {
            Some(hub) => ip(&["-n", hub, "link", "set", &format!("port{}", node.number), "up"]),
            None => node.signal("CONT"),
        }
    }
}

fn ip(arguments: &[&str]) -> Result<()> {
    shell::run_quietly(Command::new("ip").args(arguments)).map(drop)
}

/// A control that is a member.
struct Node {
    name: &'static str,
    number: usize,
    home: PathBuf,
    namespace: Option<String>,
    programs: PathBuf,
    child: Option<Child>,
}

impl Node {
    fn start(number: usize, road: &Road, run: &Path, programs: &Path, janitor: &mut Janitor) -> Result<Self> {
        let name = NAMES[number];
        let home = run.join(name);
        fs::create_dir_all(&home).with_context(|| home.display().to_string())?;
        let namespace = road.hub.as_ref().map(|hub| Road::namespace(hub, number));
        let own = number + 1;
        let host = if namespace.is_some() { format!("10.78.0.{own}") } else { format!("127.0.78.{own}") };
        let configuration = format!(
            "node: {{name: {name}}}\nmonitoring: {{metrics_port: 0}}\nconsensus: {{listen: \"{host}:6000\"}}\n\
             api: {{listen: \"{host}:8080\", tls_listen: \"{host}:8443\"}}\n"
        );
        fs::write(home.join("dwcp.yaml"), configuration)?;
        let mut node = Self { name, number, home, namespace, programs: programs.to_owned(), child: None };
        node.spawn(janitor)?;
        Ok(node)
    }

    /// Starts it, and waits until it answers.
    fn spawn(&mut self, janitor: &mut Janitor) -> Result<()> {
        let control = self.programs.join("dwcp-control");
        let mut command = match &self.namespace {
            Some(namespace) => {
                let mut command = shell::command("ip");
                command.args(["netns", "exec", namespace]).arg(control);
                command
            }
            None => shell::command(control),
        };
        command.arg("--config").arg(self.home.join("dwcp.yaml"));
        command
            .arg("--state-dir")
            .arg(self.home.join("state"))
            .arg("--runtime-dir")
            .arg(self.home.join("run"));
        let log = File::options().create(true).append(true).open(self.home.join("log"))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
        let child = command.spawn().context("start dwcp-control")?;
        janitor.process(child.id())?;
        self.child = Some(child);
        let begun = Instant::now();
        while self.run(&["peers"]).is_err() {
            if begun.elapsed() > PATIENCE {
                bail!("{} does not answer", self.name);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    fn kill(&mut self) -> Result<()> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        child.kill().context("kill -9")?;
        child.wait().map(drop).context("wait for the end")
    }

    fn signal(&self, signal: &str) -> Result<()> {
        let pid = self.child.as_ref().map_or(0, Child::id).to_string();
        shell::run_quietly(Command::new("sh").args(["-c", "kill -s \"$0\" \"$1\"", signal, &pid])).map(drop)
    }

    fn dwcp(&self, arguments: &[&str]) -> Command {
        let mut command = shell::command(self.programs.join("dwcp"));
        command.arg("--socket").arg(self.home.join("run/control.sock")).args(arguments);
        command
    }

    fn run(&self, arguments: &[&str]) -> Result<()> {
        shell::run_quietly(&mut shell::bounded(&self.dwcp(arguments), PATIENCE)).map(drop)
    }

    fn ask(&self, arguments: &[&str]) -> Result<Json> {
        Json::parse(&shell::run_quietly(self.dwcp(arguments).arg("--json"))?)
    }

    fn show(&self, arguments: &[&str]) -> Result<()> {
        println!("\n{}$ dwcp {}", self.name, arguments.join(" "));
        shell::run(&mut shell::bounded(&self.dwcp(arguments), PATIENCE))
    }

    fn print_log_end(&self) {
        let log = fs::read_to_string(self.home.join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        eprintln!("\ndemo: the end of the log of {}:", self.name);
        lines[lines.len().saturating_sub(12)..].iter().for_each(|line| eprintln!("{line}"));
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // The janitor ends what is left.
        drop(self.kill());
    }
}
