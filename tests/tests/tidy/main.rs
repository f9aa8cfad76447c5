//! House rules that a machine can check, over every file that git tracks. Each rule is a function from files to
//! complaints, stands in a file of its own and has a test that shows that it can fail.
mod documents;
mod edges;
mod layout;
mod source;
mod tokens;

use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// A tracked file.
struct File {
    /// From the root of the workspace, with `/`.
    path: String,
    bytes: Vec<u8>,
}

impl File {
    fn new(path: &str, text: &str) -> Self {
        Self { path: path.into(), bytes: text.into() }
    }

    /// Its text; `None` where it is not UTF-8.
    fn text(&self) -> Option<&str> {
        std::str::from_utf8(&self.bytes).ok()
    }

    fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Every tracked file that is there, or a line that says why there are none.
fn tracked() -> Option<Vec<File>> {
    let listing = Command::new("git").args(["ls-files", "-z"]).current_dir(root()).output();
    let listing = listing.ok().filter(|output| output.status.success());
    let Some(listing) = listing else {
        println!("skipped: this is no git checkout");
        return None;
    };
    let names = listing.stdout.split(|&byte| byte == 0).filter(|name| !name.is_empty());
    let names = names.map(|name| String::from_utf8_lossy(name).into_owned());
    let files = names.filter_map(|path| {
        let place = root().join(&path);
        // Deleted but not yet committed, or a link: nothing to read.
        if !place.is_file() || place.is_symlink() {
            return None;
        }
        let bytes = std::fs::read(&place).expect("tracked file is readable");
        Some(File { path, bytes })
    });
    Some(files.collect())
}

/// Fails with all complaints at once.
fn holds(rule: fn(&[File]) -> Vec<String>) {
    let Some(files) = tracked() else { return };
    assert!(!files.is_empty(), "git tracks nothing");
    let complaints = rule(&files);
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}
