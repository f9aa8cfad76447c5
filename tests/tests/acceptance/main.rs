//! What operators' runbooks tell them to type, as a table: each command is run by a shell against a real node, and what
//! it prints and leaves with is compared. Names of former versions (`dwcp-manager`, `dwcp-api-server`) are links to the
//! command, as an installation makes them. A command whose program this machine lacks is skipped with a line.
//!
//! The programs are those beside the test in the target directory: `cargo build` comes first.
mod node;
mod table;

use node::Node;
use table::{COMMANDS, Command, Wanted};

#[test]
fn every_command_of_the_runbooks_does_what_they_say() {
    let node = Node::start();
    let mut wrong = Vec::new();
    for command in COMMANDS {
        if let Some(missing) = command.programs().find(|program| !node.has(program)) {
            println!("skipped: {missing} is not installed: {}", command.line);
            continue;
        }
        let (status, text) = node.shell(command.line);
        if let Err(reason) = judge(command, status, &text) {
            wrong.push(format!("{}\n    {reason}\n    it left with {status} and said: {text}", command.line));
        }
    }
    assert!(wrong.is_empty(), "{}\n{}", wrong.join("\n"), node.log());
}

fn judge(command: &Command, status: i32, text: &str) -> Result<(), String> {
    let holds = |wanted: &str| text.contains(wanted);
    match command.wanted {
        Wanted::Text(wanted) if status == 0 && holds(wanted) => Ok(()),
        Wanted::Text(wanted) => Err(format!("wanted 0 and {wanted:?}")),
        Wanted::Only(wanted) if status == 0 && text.trim() == wanted => Ok(()),
        Wanted::Only(wanted) => Err(format!("wanted 0 and nothing but {wanted:?}")),
        Wanted::Status(wanted, _) if status != wanted => Err(format!("wanted {wanted}")),
        Wanted::Status(_, part) if !holds(part) => Err(format!("wanted {part:?}")),
        Wanted::Status(..) => Ok(()),
    }
}

#[test]
fn a_command_that_does_something_else_would_be_seen() {
    let text = Command { source: "S0", line: "x", wanted: Wanted::Text("healthy") };
    assert!(judge(&text, 0, "it is healthy").is_ok());
    assert!(judge(&text, 1, "it is healthy").is_err() && judge(&text, 0, "it is not").is_err());
    let only = Command { wanted: Wanted::Only("\"closed\""), ..text };
    assert!(judge(&only, 0, "\"closed\"\n").is_ok() && judge(&only, 0, "\"closed\" x").is_err());
    let status = Command { wanted: Wanted::Status(78, "key"), ..text };
    assert!(judge(&status, 78, "no key").is_ok());
    assert!(judge(&status, 0, "no key").is_err() && judge(&status, 78, "nothing").is_err());
}
