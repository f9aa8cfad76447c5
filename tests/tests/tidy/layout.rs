//! Rules about what is tracked: no built objects, no shell scripts besides the runner's entry.
use crate::{File, holds};

const SCRIPT: &str = ".ci/run";

/// First bytes of executables, objects, archives and bitcode.
const BUILT: &[(&[u8], &str)] = &[
    (b"\x7fELF", "ELF"),
    (b"!<arch>\n", "archive"),
    (b"BC\xc0\xde", "LLVM bitcode"),
    (b"\0asm", "WebAssembly"),
    (b"MZ", "Windows executable"),
    (b"\xca\xfe\xba\xbe", "Java class"),
    (b"\xcf\xfa\xed\xfe", "Mach-O"),
    (b"\x1f\x8b", "gzip"),
    (b"PK\x03\x04", "zip"),
    (b"\xfd7zXZ\0", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
];

fn no_built_objects(files: &[File]) -> Vec<String> {
    let kind =
        |file: &File| BUILT.iter().find(|(magic, _)| file.bytes.starts_with(magic)).map(|(_, kind)| *kind);
    files
        .iter()
        .filter_map(|file| Some(format!("{}: is built ({}): make it instead", file.path, kind(file)?)))
        .collect()
}

fn no_shell_scripts(files: &[File]) -> Vec<String> {
    let is_script = |file: &&File| {
        let first = file.bytes.split(|&byte| byte == b'\n').next().unwrap_or_default();
        let first = String::from_utf8_lossy(first);
        let interpreter = first.strip_prefix("#!").unwrap_or_default();
        let shell =
            interpreter.split(['/', ' ']).any(|word| matches!(word, "sh" | "bash" | "dash" | "zsh" | "ksh"));
        file.path != SCRIPT && (shell || file.path.ends_with(".sh"))
    };
    files
        .iter()
        .filter(is_script)
        .map(|file| format!("{}: shell script: make it an xtask", file.path))
        .collect()
}

#[test]
fn nothing_built_is_tracked() {
    holds(no_built_objects);
    assert_eq!(no_built_objects(&[File { path: "a.o".into(), bytes: b"\x7fELF\x02".to_vec() }]).len(), 1);
    assert!(no_built_objects(&[File::new("a.txt", "ELF")]).is_empty());
}

#[test]
fn developers_run_xtask_not_scripts() {
    holds(no_shell_scripts);
    for script in
        [File::new("tool", "#!/usr/bin/env bash\n"), File::new("t", "#!/bin/sh -e\n"), File::new("a.sh", "")]
    {
        assert_eq!(no_shell_scripts(&[script]).len(), 1);
    }
    assert!(
        no_shell_scripts(&[File::new(SCRIPT, "#!/bin/bash\n"), File::new("a", "#!/usr/bin/python3\n")])
            .is_empty()
    );
}
