//! What is installed where. Read by `install` and by its `--uninstall`.
use std::path::{Path, PathBuf};

/// Where an installation lies.
#[derive(Debug)]
pub(super) struct Layout {
    /// Prepended to every path; `/` unless a package or a test is staged.
    pub(super) root: PathBuf,
    /// `/usr`, `/usr/local`, `/opt/dwcp`.
    pub(super) prefix: PathBuf,
}

impl Layout {
    /// Programs that the operator does not call.
    pub(super) fn libexec(&self) -> PathBuf {
        self.prefix.join("libexec/dwcp")
    }

    pub(super) fn manual_pages(&self) -> PathBuf {
        self.prefix.join("share/man/man1")
    }

    /// An absolute path of the installation, below the root.
    pub(super) fn on_disk(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// Whether this is the running system, which then wants to be told.
    pub(super) fn is_this_system(&self) -> bool {
        self.root == Path::new("/")
    }

    /// The system looks into /usr/lib and /etc; below other prefixes it would not find these.
    fn system(&self, kind: &str) -> PathBuf {
        let base = if self.prefix == Path::new("/usr") { "/usr/lib" } else { "/etc" };
        Path::new(base).join(kind)
    }
}

/// Where a file comes from.
#[derive(Debug, Clone, Copy)]
pub(super) enum Content {
    /// Of the release build.
    Built(&'static str),
    /// Of the release build, where it could be built.
    Optional(&'static str),
    /// Written by the command itself.
    Generated(&'static str),
    /// From the workspace, only where there is none.
    Default(&'static str),
    /// From the workspace, `@libexec@` and `@bin@` replaced.
    Template(&'static str),
}

/// One file of the installation.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) content: Content,
    /// Absolute, without the root.
    pub(super) target: PathBuf,
    pub(super) mode: u32,
}

/// Every file but the manual pages, of which the command knows the names.
pub(super) fn pieces(layout: &Layout) -> Vec<Piece> {
    let share = layout.prefix.join("share");
    let units = layout.system("systemd/system");
    let piece = |content, target, mode| Piece { content, target, mode };
    let mut pieces = vec![
        piece(Content::Built("dwcp"), layout.prefix.join("bin/dwcp"), 0o755),
        piece(Content::Built("dwcp-control"), layout.libexec().join("dwcp-control"), 0o755),
        piece(Content::Built("dwcp-dataplane"), layout.libexec().join("dwcp-dataplane"), 0o755),
        piece(Content::Optional("dwcp-ebpf.o"), layout.libexec().join("dwcp-ebpf.o"), 0o644),
        piece(Content::Generated("bash"), share.join("bash-completion/completions/dwcp"), 0o644),
        piece(Content::Generated("zsh"), share.join("zsh/vendor-completions/_dwcp"), 0o644),
        piece(Content::Generated("fish"), share.join("fish/vendor_completions.d/dwcp.fish"), 0o644),
        piece(Content::Default("configs/dwcp.yaml"), PathBuf::from("/etc/dwcp/config.yaml"), 0o640),
        piece(Content::Template("systemd/owners.conf"), share.join("doc/dwcp/examples/owners.conf"), 0o644),
        piece(
            Content::Template("systemd/dwcp.sysusers"),
            layout.system("sysusers.d").join("dwcp.conf"),
            0o644,
        ),
        piece(
            Content::Template("systemd/dwcp.tmpfiles"),
            layout.system("tmpfiles.d").join("dwcp.conf"),
            0o644,
        ),
        piece(
            Content::Template("systemd/dwcp.sysctl"),
            layout.system("sysctl.d").join("60-dwcp.conf"),
            0o644,
        ),
    ];
    for (source, name) in UNITS {
        pieces.push(piece(Content::Template(source), units.join(name), 0o644));
    }
    pieces
}

const UNITS: [(&str, &str); 4] = [
    ("systemd/dwcp.service", "dwcp.service"),
    ("systemd/dwcp-manager.service", "dwcp-manager.service"),
    ("systemd/dwcp-dataplane.service", "dwcp-dataplane.service"),
    ("systemd/dwcp.slice", "dwcp.slice"),
];
