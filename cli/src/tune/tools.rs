//! The programs that know and change what no file does: tc, ethtool, systemctl. Below another root than `/` they are
//! never called: they would tell of this machine.
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// Runs a program; its output, or what is wrong in one line.
pub(super) fn run(program: &str, arguments: &[&str]) -> Result<String, String> {
    let output = match Command::new(program).args(arguments).env("LC_ALL", "C").output() {
        Ok(output) => output,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(format!("{program} is not installed"));
        }
        Err(error) => return Err(format!("{program}: {error}")),
    };
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let first = said.lines().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
    Err(format!("{program} {}: {}", arguments.join(" "), first.trim()))
}

/// The interface's own discipline (kind, and whether the kernel chose it) and the kinds below it.
pub(super) fn disciplines(root: &Path, interface: &str) -> (Option<(String, bool)>, Vec<String>) {
    if root != Path::new("/") {
        return (None, Vec::new());
    }
    let answer = run("tc", &["-j", "qdisc", "show", "dev", interface]).unwrap_or_default();
    parse_disciplines(&answer)
}

fn parse_disciplines(answer: &str) -> (Option<(String, bool)>, Vec<String>) {
    let all: Vec<Value> = serde_json::from_str(answer).unwrap_or_default();
    let kind = |one: &Value| one["kind"].as_str().unwrap_or_default().to_owned();
    let own = all.iter().find(|one| one["root"] == true);
    let leaves = all.iter().filter(|one| one["root"] != true && one["parent"].is_string());
    let queues = leaves.filter(|one| !matches!(kind(one).as_str(), "clsact" | "ingress")).map(kind).collect();
    (own.map(|one| (kind(one), one["handle"] == "0:")), queues)
}

/// Receive and transmit rings, each now and at most.
pub(super) fn rings(root: &Path, interface: &str) -> Option<[(u32, u32); 2]> {
    if root != Path::new("/") {
        return None;
    }
    parse_rings(&run("ethtool", &["-g", interface]).ok()?)
}

/// `ethtool -g` prints the maxima first, then what is in use.
fn parse_rings(answer: &str) -> Option<[(u32, u32); 2]> {
    let all = |name: &str| -> Vec<u32> {
        let values = answer.lines().filter_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        values.collect()
    };
    let (receive, transmit) = (all("RX:"), all("TX:"));
    let (&[receive_most, receive_now], &[transmit_most, transmit_now]) = (&receive[..], &transmit[..]) else {
        return None;
    };
    Some([(receive_now, receive_most), (transmit_now, transmit_most)])
}

/// `AllowedCPUs` of a unit; empty = all.
pub(super) fn allowed_cores(root: &Path, unit: &str) -> Option<String> {
    if root != Path::new("/") {
        return None;
    }
    let answer = run("systemctl", &["show", "--property=AllowedCPUs", "--value", unit]).ok()?;
    Some(answer.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disciplines_of_tc_are_read() {
        let single = r#"[{"kind":"pfifo_fast","handle":"0:","root":true}]"#;
        assert_eq!(parse_disciplines(single), (Some(("pfifo_fast".into(), true)), vec![]));
        let many = r#"[{"kind":"mq","handle":"8001:","root":true},{"kind":"fq","handle":"0:","parent":":1"},
            {"kind":"clsact","handle":"ffff:","parent":"ffff:fff1"}]"#;
        assert_eq!(parse_disciplines(many), (Some(("mq".into(), false)), vec!["fq".to_owned()]));
        assert_eq!(parse_disciplines("no JSON"), (None, vec![]));
    }

    #[test]
    fn rings_of_ethtool_are_read() {
        let answer = "Ring parameters for eth0:\nPre-set maximums:\nRX:\t\t4096\nRX Mini:\tn/a\nTX:\t\t8192\n\
                      Current hardware settings:\nRX:\t\t512\nTX:\t\t1024\n";
        assert_eq!(parse_rings(answer), Some([(512, 4096), (1024, 8192)]));
        assert_eq!(parse_rings("RX: n/a\n"), None);
    }

    #[test]
    fn a_missing_program_is_one_line() {
        let complaint = run("dwcp-no-such-program", &[]).unwrap_err();
        assert_eq!(complaint, "dwcp-no-such-program is not installed");
    }
}
