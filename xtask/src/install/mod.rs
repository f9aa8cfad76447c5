//! `install` and `--uninstall`: binaries, kernel programs, units, completions and manual pages to a prefix, as a
//! package would. It never overwrites a configuration and starts nothing.
mod manifest;

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};
use manifest::{Content, Layout, Piece};

use crate::{Outcome, build, shell, suggest};

/// Entry point of the command.
///
/// # Errors
/// A build fails, or a file cannot be written.
pub(crate) fn run(arguments: &[String]) -> Result<Outcome> {
    let request = match Request::parse(arguments) {
        Ok(request) => request,
        Err(complaint) => {
            eprintln!("xtask install: {complaint}");
            return Ok(Outcome::Usage);
        }
    };
    match request.action {
        Action::Install => install(&request.layout, &build::release()?)?,
        Action::Uninstall => uninstall(&request.layout)?,
    }
    Ok(Outcome::Done)
}

#[derive(Debug, PartialEq, Eq)]
enum Action {
    Install,
    Uninstall,
}

#[derive(Debug)]
struct Request {
    action: Action,
    layout: Layout,
}

impl Request {
    fn parse(arguments: &[String]) -> Result<Self, String> {
        let mut action = Action::Install;
        let mut prefix = PathBuf::from("/usr/local");
        let mut root = PathBuf::from("/");
        let mut words = arguments.iter();
        while let Some(word) = words.next() {
            let (flag, inline) =
                word.split_once('=').map_or((word.as_str(), None), |(flag, value)| (flag, Some(value)));
            let mut path = || {
                let value = inline.or_else(|| words.next().map(String::as_str)).unwrap_or_default();
                if value.starts_with('/') {
                    Ok(PathBuf::from(value))
                } else {
                    Err(format!("{flag} needs an absolute path"))
                }
            };
            match flag {
                "--uninstall" => action = Action::Uninstall,
                "--prefix" => prefix = path()?,
                "--root" => root = path()?,
                other => {
                    return Err(format!(
                        "unknown argument '{other}'{}",
                        suggest::hint(other, FLAGS.into_iter())
                    ));
                }
            }
        }
        Ok(Self { action, layout: Layout { root, prefix } })
    }
}

/// Fills a staged root as a package wants it: everything below `/usr`, with the programs in the folder `built`.
///
/// # Errors
/// A program is missing, or a file cannot be written.
pub(crate) fn stage(root: &Path, built: &Path) -> Result<()> {
    install(&Layout { root: root.to_owned(), prefix: "/usr".into() }, built)
}

fn install(layout: &Layout, built: &Path) -> Result<()> {
    let generated = generate(built)?;
    for piece in manifest::pieces(layout) {
        let target = layout.on_disk(&piece.target);
        match place(&piece, built, &generated, layout, &target)? {
            Placed::Written => println!("install: {}", target.display()),
            Placed::Kept => println!("install: {} kept as it is", target.display()),
            Placed::Absent => println!("install: {} left out: not built here", target.display()),
        }
    }
    let pages = layout.on_disk(&layout.manual_pages());
    for page in manual_pages(&generated.join("man"))? {
        copy(&generated.join("man").join(&page), &pages.join(&page), 0o644)?;
    }
    println!("install: {}", pages.join("dwcp*.1").display());
    if layout.is_this_system() {
        tell_system();
    }
    println!("install: next: edit /etc/dwcp/config.yaml, then systemctl enable --now dwcp");
    Ok(())
}

fn uninstall(layout: &Layout) -> Result<()> {
    let mut removed = 0;
    for piece in
        manifest::pieces(layout).into_iter().filter(|piece| !matches!(piece.content, Content::Default(_)))
    {
        removed += remove(&layout.on_disk(&piece.target))?;
    }
    let pages = layout.on_disk(&layout.manual_pages());
    if pages.is_dir() {
        for page in manual_pages(&pages)? {
            removed += remove(&pages.join(page))?;
        }
    }
    if layout.is_this_system() {
        tell_system();
    }
    println!("uninstall: {removed} files removed; /etc/dwcp and /var/lib/dwcp are left as they are");
    Ok(())
}

/// Completions and manual pages, written by the command itself.
fn generate(built: &Path) -> Result<PathBuf> {
    let folder = shell::target().join("install");
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| folder.display().to_string())?;
    }
    fs::create_dir_all(folder.join("man")).with_context(|| folder.display().to_string())?;
    let dwcp = built.join("dwcp");
    for shell_name in ["bash", "zsh", "fish"] {
        let script = shell::run_quietly(shell::command(&dwcp).args(["completion", shell_name]))?;
        fs::write(folder.join(shell_name), script).with_context(|| folder.display().to_string())?;
    }
    shell::run_quietly(shell::command(&dwcp).arg("man").arg(folder.join("man")))?;
    Ok(folder)
}

fn manual_pages(folder: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    Ok(names.filter(|name| name.starts_with("dwcp") && name.ends_with(".1")).collect())
}

enum Placed {
    Written,
    Kept,
    Absent,
}

fn place(piece: &Piece, built: &Path, generated: &Path, layout: &Layout, target: &Path) -> Result<Placed> {
    match piece.content {
        Content::Built(name) => copy(&built.join(name), target, piece.mode)?,
        Content::Optional(name) if !built.join(name).is_file() => return Ok(Placed::Absent),
        Content::Optional(name) => copy(&built.join(name), target, piece.mode)?,
        Content::Generated(name) => copy(&generated.join(name), target, piece.mode)?,
        Content::Default(_) if target.exists() => return Ok(Placed::Kept),
        Content::Default(path) => copy(&shell::root().join(path), target, piece.mode)?,
        Content::Template(path) => {
            let source = shell::root().join(path);
            let text = fs::read_to_string(&source).with_context(|| source.display().to_string())?;
            write(
                target,
                text.replace("@libexec@", &layout.libexec().display().to_string())
                    .replace("@bin@", &layout.prefix.join("bin").display().to_string())
                    .as_bytes(),
                piece.mode,
            )?;
        }
    }
    Ok(Placed::Written)
}

fn copy(source: &Path, target: &Path, mode: u32) -> Result<()> {
    let bytes = fs::read(source).with_context(|| source.display().to_string())?;
    write(target, &bytes, mode)
}

/// Beside the target first, then over it: a running program keeps its file, and a crash leaves the old one.
fn write(target: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let Some((folder, name)) = target.parent().zip(target.file_name()) else {
        bail!("{} is no file name", target.display());
    };
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let fresh = folder.join(format!(".{}.new", name.to_string_lossy()));
    fs::write(&fresh, bytes).with_context(|| fresh.display().to_string())?;
    fs::set_permissions(&fresh, fs::Permissions::from_mode(mode))
        .with_context(|| fresh.display().to_string())?;
    fs::rename(&fresh, target).with_context(|| target.display().to_string())
}

/// How many files went: one or none.
fn remove(target: &Path) -> Result<u32> {
    match fs::remove_file(target) {
        Ok(()) => Ok(1),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error).with_context(|| target.display().to_string()),
    }
}

/// Makes the user and the folders known, where there is a systemd to tell.
fn tell_system() {
    for (program, arguments) in [
        ("systemd-sysusers", &["dwcp.conf"][..]),
        ("systemd-tmpfiles", &["--create", "dwcp.conf"]),
        ("systemctl", &["daemon-reload"]),
    ] {
        let running = program != "systemctl" || Path::new("/run/systemd/system").is_dir();
        if shell::find(program).is_none() || !running {
            println!("install: {program} {} left out: no systemd here", arguments.join(" "));
        } else if let Err(error) = shell::run_quietly(Command::new(program).args(arguments)) {
            println!("install: {error:#}");
        }
    }
}

const FLAGS: [&str; 3] = ["--prefix", "--root", "--uninstall"];

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Request, String> {
        Request::parse(&text.split_whitespace().map(String::from).collect::<Vec<_>>())
    }

    #[test]
    fn arguments_in_both_spellings() {
        let request = parse("--prefix /opt/dwcp --root=/tmp/stage --uninstall").unwrap();
        assert_eq!(request.action, Action::Uninstall);
        assert_eq!(request.layout.prefix, Path::new("/opt/dwcp"));
        assert_eq!(request.layout.root, Path::new("/tmp/stage"));
        assert!(parse("--prefix relative").unwrap_err().contains("absolute"));
        assert!(parse("--prefx=/x").unwrap_err().contains("--prefix"));
    }

    #[test]
    fn a_configuration_is_never_overwritten() {
        let folder = std::env::temp_dir().join(format!("dwcp-xtask-install-{}", std::process::id()));
        let layout = Layout { root: folder.clone(), prefix: "/usr".into() };
        let pieces = manifest::pieces(&layout);
        let piece = pieces.iter().find(|piece| matches!(piece.content, Content::Default(_))).unwrap();
        let target = layout.on_disk(&piece.target);
        let none = Path::new("/nonexistent");
        assert!(matches!(place(piece, none, none, &layout, &target).unwrap(), Placed::Written));
        fs::write(&target, "mine").unwrap();
        assert!(matches!(place(piece, none, none, &layout, &target).unwrap(), Placed::Kept));
        assert_eq!(fs::read_to_string(&target).unwrap(), "mine");
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn units_name_the_installed_programs() {
        let folder = std::env::temp_dir().join(format!("dwcp-xtask-units-{}", std::process::id()));
        let layout = Layout { root: folder.clone(), prefix: "/opt/dwcp".into() };
        let none = Path::new("/nonexistent");
        for piece in
            manifest::pieces(&layout).iter().filter(|piece| matches!(piece.content, Content::Template(_)))
        {
            let target = layout.on_disk(&piece.target);
            place(piece, none, none, &layout, &target).unwrap();
            let text = fs::read_to_string(&target).unwrap();
            assert!(!text.contains("@libexec@") && !text.contains("@bin@"), "{}", target.display());
        }
        let unit = folder.join("etc/systemd/system/dwcp-dataplane.service");
        assert!(
            fs::read_to_string(unit).unwrap().contains("ExecStart=/opt/dwcp/libexec/dwcp/dwcp-dataplane ")
        );
        fs::remove_dir_all(&folder).unwrap();
    }
}
