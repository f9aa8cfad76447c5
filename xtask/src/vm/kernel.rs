//! Debian's kernel package: downloaded and unpacked under `target/vm`, never installed. Called by `setup` and `vm`.
use std::{fs, path::Path};

use anyhow::{Context as _, Result};

use super::Kernel;
use crate::{
    setup::{Report, apt},
    shell,
};

/// Downloads and unpacks it where it is missing; says why not in one line where it cannot.
pub(crate) fn fetch(report: &mut Report) {
    if unpacked().is_some() {
        return;
    }
    if shell::find("apt-get").is_none() || shell::find("dpkg-deb").is_none() {
        report.lacks("Debian's kernel package for `vm` (this system has no apt-get)");
        return;
    }
    println!("setup: downloading Debian's kernel package (not installed, only unpacked)");
    match download() {
        Ok(name) => report.did(format!("{name}, unpacked under target/vm")),
        Err(error) => report.lacks(format!("Debian's kernel package for `vm` ({error:#})")),
    }
}

/// The kernel that has been unpacked.
pub(super) fn unpacked() -> Option<Kernel> {
    let tree = tree();
    let modules = fs::read_dir(tree.join("lib/modules")).ok()?;
    let mut versions = modules.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    versions.find_map(|version| {
        let image = tree.join(format!("boot/vmlinuz-{version}"));
        image.is_file().then(|| Kernel { image, tree: tree.clone(), version })
    })
}

fn tree() -> std::path::PathBuf {
    shell::target().join("vm/kernel")
}

fn download() -> Result<String> {
    if shell::is_root() {
        apt::update()?;
    }
    let name = package()?;
    let folder = shell::target().join("vm/download");
    empty(&folder)?;
    shell::run_quietly(shell::command("apt-get").args(["download", "-q", "-q", &name]).current_dir(&folder))?;
    let package =
        fs::read_dir(&folder).context("downloaded package")?.next().context("nothing was downloaded")??;
    // Unpacked aside and renamed: an interrupted run leaves no half kernel.
    let aside = shell::target().join("vm/kernel.new");
    empty(&aside)?;
    shell::run_quietly(shell::command("dpkg-deb").arg("-x").arg(package.path()).arg(&aside))?;
    for version in fs::read_dir(aside.join("lib/modules")).context("modules of the package")? {
        let version = version?.file_name();
        shell::run_quietly(shell::command("depmod").arg("-b").arg(&aside).arg(version))?;
    }
    fs::rename(&aside, tree()).context("target/vm/kernel")?;
    fs::remove_dir_all(&folder).context("downloaded package")?;
    Ok(name)
}

/// What the metapackage stands for today.
fn package() -> Result<String> {
    let answer = shell::run_quietly(shell::command("apt-cache").args(["depends", "linux-image-amd64"]))?;
    let name = answer.lines().find_map(|line| line.trim().strip_prefix("Depends: linux-image-"));
    Ok(format!("linux-image-{}", name.context("linux-image-amd64 depends on no image")?))
}

fn empty(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())
}
