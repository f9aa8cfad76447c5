//! The other names that the command goes by: scripts and units of earlier versions call them.
use std::ffi::{OsStr, OsString};
use std::path::Path;

/// Puts the subcommand behind the name that stands for it; other names change nothing.
pub(crate) fn rewrite(mut arguments: Vec<OsString>) -> Vec<OsString> {
    let Some(name) = arguments.first().and_then(|first| Path::new(first).file_name()) else {
        return arguments;
    };
    let inserted: &[&str] = match name.to_str() {
        Some("dwcp-manager" | "dwcp-api-server") => &["server"],
        Some("dwcp-config-validator" | "config-validator") => &["config", "validate"],
        _ => return arguments,
    };
    if arguments.get(1).is_some_and(|second| second == OsStr::new("--version") || second == OsStr::new("-V"))
    {
        return arguments;
    }
    arguments.splice(1..1, inserted.iter().map(OsString::from));
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(arguments: &[&str]) -> Vec<OsString> {
        rewrite(arguments.iter().map(OsString::from).collect())
    }

    #[test]
    fn names_stand_for_subcommands() {
        assert_eq!(
            rewritten(&["/opt/dwcp/bin/dwcp-manager", "--config", "c"]),
            ["/opt/dwcp/bin/dwcp-manager", "server", "--config", "c"]
        );
        assert_eq!(rewritten(&["dwcp-api-server"]), ["dwcp-api-server", "server"]);
        assert_eq!(
            rewritten(&["dwcp-config-validator", "c"]),
            ["dwcp-config-validator", "config", "validate", "c"]
        );
        assert_eq!(rewritten(&["dwcp-manager", "--version"]), ["dwcp-manager", "--version"]);
        assert_eq!(rewritten(&["dwcp", "status"]), ["dwcp", "status"]);
        assert_eq!(rewritten(&[]), Vec::<OsString>::new());
    }
}
