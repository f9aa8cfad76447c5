//! Programs that only tests need: their Debian packages are downloaded and unpacked under `target/tools`, never
//! installed, because installing them would start services.
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result};

use super::{Report, apt};
use crate::shell;

/// Package, and the program in it that is wanted.
const TOOLS: &[(&str, &str)] = &[("prometheus", "promtool"), ("sslscan", "sslscan")];

/// Downloads and unpacks what is missing; says why not in one line where it cannot.
pub(super) fn fetch(report: &mut Report) {
    for (package, program) in TOOLS {
        if shell::find(program).is_some() || place(program).is_file() {
            continue;
        }
        if shell::find("apt-get").is_none() || shell::find("dpkg-deb").is_none() {
            report.lacks(format!("{program} of Debian's {package} (this system has no apt-get)"));
            continue;
        }
        println!("setup: downloading Debian's {package} for {program} (not installed, only unpacked)");
        match download(package, program) {
            Ok(()) => report.did(format!("{program}, unpacked under target/tools")),
            Err(error) => report.lacks(format!("{program} of Debian's {package} ({error:#})")),
        }
    }
}

/// Puts schemathesis into an environment of its own; it is no Debian package.
pub(super) fn fetch_schemathesis(report: &mut Report) {
    let place = shell::target().join("tools/schemathesis");
    if shell::find("schemathesis").is_some() || place.join("bin/schemathesis").is_file() {
        return;
    }
    println!("setup: installing {SCHEMATHESIS} from PyPI into target/tools");
    match install_python(&place) {
        Ok(()) => report.did(format!("{SCHEMATHESIS}, in target/tools")),
        Err(error) => report.lacks(format!("{SCHEMATHESIS} ({error:#})")),
    }
}

fn install_python(place: &Path) -> Result<()> {
    let mut venv = shell::command("python3");
    shell::run_quietly(&mut shell::bounded(venv.args(["-m", "venv", "--clear"]).arg(place), PYTHON_LIMIT))?;
    let mut pip = shell::command(place.join("bin/pip"));
    pip.args(["install", "--quiet", "--disable-pip-version-check", SCHEMATHESIS]);
    shell::run_quietly(&mut shell::bounded(&pip, PYTHON_LIMIT))?;
    Ok(())
}

/// Where tests look for it, beside the path.
fn place(program: &str) -> PathBuf {
    shell::target().join("tools").join(program)
}

fn download(package: &str, program: &str) -> Result<()> {
    if shell::is_root() {
        apt::update()?;
    }
    let folder = shell::target().join("tools/download");
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| folder.display().to_string())?;
    }
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    shell::run_quietly(
        shell::command("apt-get").args(["download", "-q", "-q", package]).current_dir(&folder),
    )?;
    let archive =
        fs::read_dir(&folder).context("downloaded package")?.next().context("nothing was downloaded")??;
    let unpacked = folder.join("unpacked");
    shell::run_quietly(shell::command("dpkg-deb").arg("-x").arg(archive.path()).arg(&unpacked))?;
    fs::rename(unpacked.join("usr/bin").join(program), place(program))
        .with_context(|| format!("{program} in {package}"))?;
    fs::remove_dir_all(&folder).context("downloaded package")
}

/// The version that the interface was last compared with.
const SCHEMATHESIS: &str = "schemathesis==4.32.5";
const PYTHON_LIMIT: Duration = Duration::from_secs(240);
