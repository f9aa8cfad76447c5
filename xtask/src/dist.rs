//! `dist`: a Debian package of the release build. `install` fills a staged root, dpkg-deb packs it; the scripts that dpkg
//! runs are below. It publishes nothing.
use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::{Outcome, build, install, shell};

/// Entry point of the command.
///
/// # Errors
/// A build fails, or a file cannot be written.
pub(crate) fn run(arguments: &[String]) -> Result<Outcome> {
    if let Some(argument) = arguments.first() {
        eprintln!("xtask dist: unknown argument '{argument}'; it takes none");
        return Ok(Outcome::Usage);
    }
    if shell::find("dpkg-deb").is_none() {
        println!("dist: skipped: this system has no dpkg-deb");
        return Ok(Outcome::Skipped);
    }
    let package = package(&build::release()?, &shell::target().join("dist"), "xz")?;
    println!("dist: {}", package.display());
    Ok(Outcome::Done)
}

/// Makes the package of the programs in the folder `built`, in `folder`; its path. `compression` is one of dpkg-deb's.
///
/// # Errors
/// A program is missing, or a file cannot be written.
pub(crate) fn package(built: &Path, folder: &Path, compression: &str) -> Result<PathBuf> {
    let staged = folder.join("root");
    if staged.exists() {
        fs::remove_dir_all(&staged).with_context(|| staged.display().to_string())?;
    }
    let root =
        fs::create_dir_all(&staged).and_then(|()| staged.canonicalize()).context("target/dist/root")?;
    install::stage(&root, built)?;
    strip(&root)?;
    pack(&root, folder, &depends(&root)?, compression)
}

/// Takes the debug information out of the programs, where there is a tool for it. The kernel programs keep theirs, which
/// the kernel reads.
fn strip(root: &Path) -> Result<()> {
    if shell::find("strip").is_none() {
        println!("dist: the programs keep their debug information: no strip here");
        return Ok(());
    }
    shell::run_quietly(shell::command("strip").args(PROGRAMS.map(|program| root.join(program))))?;
    Ok(())
}

/// Packs a staged root; the package's path.
fn pack(root: &Path, folder: &Path, depends: &str, compression: &str) -> Result<PathBuf> {
    let architecture =
        shell::run_quietly(shell::command("dpkg").arg("--print-architecture"))?.trim().to_owned();
    let version = env!("CARGO_PKG_VERSION");
    let control = root.join("DEBIAN");
    fs::create_dir_all(&control).with_context(|| control.display().to_string())?;
    let fields = format!(
        "Package: dwcp\nVersion: {version}\nArchitecture: {architecture}\nMaintainer: The DWCP developers <dwcp@localhost>\n\
         Section: net\nPriority: optional\nDepends: {depends}\n\
         Description: moves data between sites\n Files, disk images and trees over many lanes at once, verified and durable at the other end.\n"
    );
    write(&control.join("control"), &fields, 0o644)?;
    // dpkg keeps what an operator changed in these.
    write(&control.join("conffiles"), "/etc/dwcp/config.yaml\n", 0o644)?;
    for (name, script) in [("postinst", POSTINST), ("prerm", PRERM), ("postrm", POSTRM)] {
        write(&control.join(name), script, 0o755)?;
    }
    let package = folder.join(format!("dwcp_{version}_{architecture}.deb"));
    shell::run_quietly(
        shell::command("dpkg-deb")
            .args(["--root-owner-group", "-Z", compression, "--build"])
            .arg(root)
            .arg(&package),
    )?;
    Ok(package)
}

/// The packages that the programs' libraries are of.
fn depends(root: &Path) -> Result<String> {
    // The unit files and their users.
    let mut packages = BTreeSet::from(["systemd".to_owned()]);
    for program in PROGRAMS {
        let libraries = shell::run_quietly(shell::command("ldd").arg(root.join(program)))?;
        for path in
            libraries.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
        {
            packages.extend(owner(path));
        }
    }
    Ok(packages.into_iter().collect::<Vec<_>>().join(", "))
}

/// The package that a library is of; dpkg knows it by the path that it was unpacked to.
fn owner(path: &str) -> Option<String> {
    let merged = Path::new("/usr").join(path.trim_start_matches('/'));
    let mut answers = [PathBuf::from(path), merged].into_iter().filter_map(|path| {
        let output = Command::new("dpkg-query").arg("-S").arg(path).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    });
    let answer = answers.next()?;
    answer.split([':', ',']).next().map(str::to_owned)
}

fn write(path: &Path, text: &str, mode: u32) -> Result<()> {
    let written =
        fs::write(path, text).and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(mode)));
    written.with_context(|| path.display().to_string())
}

const PROGRAMS: [&str; 3] =
    ["usr/bin/dwcp", "usr/libexec/dwcp/dwcp-control", "usr/libexec/dwcp/dwcp-dataplane"];

/// Makes the user and the directories, and lets a running node go on with the new version.
const POSTINST: &str = "\
#!/bin/sh
set -e
if [ \"$1\" = configure ]; then
    systemd-sysusers dwcp.conf
    systemd-tmpfiles --create dwcp.conf
    if [ -d /run/systemd/system ]; then
        systemctl daemon-reload
        if [ -n \"$2\" ]; then
            systemctl try-restart dwcp-manager.service dwcp-dataplane.service
        fi
    fi
fi
";
const PRERM: &str = "\
#!/bin/sh
set -e
if [ \"$1\" = remove ] && [ -d /run/systemd/system ]; then
    systemctl disable --now dwcp.service dwcp-manager.service dwcp-dataplane.service
fi
";
/// Removing keeps configuration, identity and state; purging does not. The user stays, as Debian's policy has it: files
/// in exports belong to it, and its number must not go to somebody else.
const POSTRM: &str = "\
#!/bin/sh
set -e
if [ \"$1\" = purge ]; then
    rm -rf /var/lib/dwcp /run/dwcp /sys/fs/bpf/dwcp
    rmdir --ignore-fail-on-non-empty /etc/dwcp 2>/dev/null || true
    # What the unit's BindPaths left: an empty folder that the pins were mounted on.
    rmdir /run/dwcp-bpf 2>/dev/null || true
fi
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload
fi
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_package_has_its_files_fields_and_scripts() {
        if shell::find("dpkg-deb").is_none() {
            println!("skipped: this system has no dpkg-deb");
            return;
        }
        let folder = std::env::temp_dir().join(format!("dwcp-dist-{}", std::process::id()));
        let root = folder.join("root");
        fs::create_dir_all(root.join("etc/dwcp")).unwrap();
        fs::write(root.join("etc/dwcp/config.yaml"), "enabled: true\n").unwrap();
        let package = pack(&root, &folder, "libc6, systemd", "xz").unwrap();
        let ask =
            |option: &str| shell::run_quietly(shell::command("dpkg-deb").arg(option).arg(&package)).unwrap();
        let fields = ask("--field");
        assert!(
            fields.contains("Package: dwcp\n") && fields.contains("Depends: libc6, systemd\n"),
            "{fields}"
        );
        assert!(ask("--contents").contains("./etc/dwcp/config.yaml"));
        let info = ask("--info");
        for part in ["conffiles", "postinst", "prerm", "postrm"] {
            assert!(info.contains(part), "{info}");
        }
        for script in [POSTINST, PRERM, POSTRM] {
            let checked = Command::new("sh").arg("-n").arg("-c").arg(script).status().unwrap();
            assert!(checked.success(), "{script}");
        }
        fs::remove_dir_all(folder).unwrap();
    }
}
