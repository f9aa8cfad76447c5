//! The initial file system of the virtual machine: busybox, modules, and an `init` that overlays this machine's files
//! and runs the command. Called by `vm`.
use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context as _, Result, bail};

use super::{First, Kernel, Request, systemd};
use crate::shell;

/// A folder for one run, removed when dropped.
pub(super) struct Folder(PathBuf);

impl Folder {
    /// Named after this process.
    ///
    /// # Errors
    /// It cannot be made.
    pub(super) fn new() -> Result<Self> {
        let path = shell::target().join(format!("vm/run-{}", std::process::id()));
        fs::create_dir_all(path.join("root")).with_context(|| path.display().to_string())?;
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("vm: {}: {error}", self.0.display());
        }
    }
}

/// Writes the image into `folder`; its path.
///
/// # Errors
/// A part is missing or cannot be written.
pub(super) fn make(kernel: &Kernel, folder: &Path, request: &Request) -> Result<PathBuf> {
    let root = folder.join("root");
    let modules = foundation(kernel, &root)?;
    for name in ["host", "upper", "new"] {
        fs::create_dir_all(root.join(name)).with_context(|| name.to_owned())?;
    }
    executable(&root.join("command"), &script(request))?;
    seal(folder, &init(&modules, request.first))
}

/// Busybox and the modules below `root`; the lines of a script that insert these.
///
/// # Errors
/// A part is missing or cannot be written.
pub(crate) fn foundation(kernel: &Kernel, root: &Path) -> Result<String> {
    for name in ["bin", "modules", "proc", "sys", "dev"] {
        fs::create_dir_all(root.join(name)).with_context(|| name.to_owned())?;
    }
    let busybox = shell::find("busybox").context("busybox")?;
    fs::copy(busybox, root.join("bin/busybox")).context("busybox")?;
    Ok(modules(kernel, root)?.iter().map(|name| format!("insmod /modules/{name}\n")).collect())
}

/// Makes the image of `folder/root` with this `init`; its path.
///
/// # Errors
/// A part cannot be written.
pub(crate) fn seal(folder: &Path, init: &str) -> Result<PathBuf> {
    let root = folder.join("root");
    executable(&root.join("init"), init)?;
    let image = folder.join("initial.cpio");
    archive(&root, &image)?;
    Ok(image)
}

/// Copies the wanted modules with all that they need; their file names in the order of insertion.
fn modules(kernel: &Kernel, root: &Path) -> Result<Vec<String>> {
    let mut order = Vec::new();
    for wanted in MODULES {
        let mut query = shell::command("modprobe");
        query.arg("-d").arg(&kernel.tree).args(["-S", &kernel.version, "--show-depends", wanted]);
        let answer = shell::run_quietly(&mut query)?;
        let paths = answer.lines().filter_map(|line| line.strip_prefix("insmod ")?.split_whitespace().next());
        for path in paths.map(Path::new) {
            let name = path.file_name().context("module without a name")?.to_string_lossy().into_owned();
            if !order.contains(&name) {
                fs::copy(path, root.join("modules").join(&name))
                    .with_context(|| path.display().to_string())?;
                order.push(name);
            }
        }
    }
    Ok(order)
}

/// What the kernel starts. The status port (`ttyS1`) says `booted` before the command and `exit N` after it.
fn init(insert: &str, first: First) -> String {
    let rest = match first {
        First::Script => script_first(),
        First::Systemd => systemd::first(),
    };
    format!(
        "#!/bin/busybox sh\n\
         export PATH=/bin\n\
         /bin/busybox --install -s /bin\n\
         mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev\n\
         {insert}\
         mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=524288,cache=loose host /host || poweroff -f\n\
         mount -t tmpfs -o size=75% upper /upper; mkdir /upper/u /upper/w\n\
         mount -t overlay -o lowerdir=/host,upperdir=/upper/u,workdir=/upper/w root /new || poweroff -f\n\
         {rest}"
    )
}

/// The script goes on as the first process, and runs the command itself.
fn script_first() -> String {
    "mount -t proc proc /new/proc; mount -t sysfs sys /new/sys; mount -o bind /dev /new/dev\n\
         mkdir -p /new/dev/shm /new/dev/pts; mount -t tmpfs shm /new/dev/shm; mount -t devpts pts /new/dev/pts\n\
         mount -t tmpfs run /new/run; mount -t tmpfs tmp /new/tmp; chmod 1777 /new/tmp /new/dev/shm\n\
         mount -t bpf bpf /new/sys/fs/bpf; mount -t cgroup2 none /new/sys/fs/cgroup\n\
         ip link set lo up\n\
         stty -F /dev/ttyS0 raw\n\
         cp /command /new/run/command\n\
         echo booted > /dev/ttyS1\n\
         chroot /new /bin/sh /run/command < /dev/null > /dev/ttyS0 2>&1\n\
         echo \"exit $?\" > /dev/ttyS1\n\
         sync; poweroff -f\n"
        .to_owned()
}

/// What runs inside: the command in this workspace, with this process's path and terminal width.
fn script(request: &Request) -> String {
    let words: Vec<String> = request.command.iter().map(|word| quoted(word)).collect();
    let path = std::env::var("PATH").unwrap_or_default();
    let home = std::env::var("HOME").unwrap_or_else(|_| "/root".into());
    format!(
        "export PATH={} HOME={}\n{}cd {}\nexec {}\n",
        quoted(&path),
        quoted(&home),
        if request.rdma { RDMA_PORTS } else { "" },
        quoted(&shell::root().to_string_lossy()),
        words.join(" ")
    )
}

/// As one word of a shell.
pub(crate) fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

fn executable(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| path.display().to_string())?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).with_context(|| path.display().to_string())
}

fn archive(root: &Path, image: &Path) -> Result<()> {
    let output = fs::File::create(image).with_context(|| image.display().to_string())?;
    let mut find =
        shell::command("find").arg(".").current_dir(root).stdout(Stdio::piped()).spawn().context("find")?;
    let names = find.stdout.take().context("find")?;
    let mut cpio = shell::command("cpio");
    cpio.args(["--quiet", "-o", "-H", "newc"]).current_dir(root).stdin(names).stdout(output);
    let status = cpio.status().context("cpio")?;
    if !(status.success() && find.wait().context("find")?.success()) {
        bail!("cpio failed: {status}");
    }
    Ok(())
}

/// Two ports of soft-RoCE with a wire between them, in one namespace (this kernel's soft-RoCE knows only the first one): so
/// each end must take packets from an address that is this host's own.
const RDMA_PORTS: &str = "\
    ip link add wire0 type veth peer name wire1\n\
    for n in all default wire0 wire1; do for k in accept_local=1 rp_filter=0; do \
    echo ${k#*=} > /proc/sys/net/ipv4/conf/$n/${k%=*}; done; done\n\
    ip address add 10.78.0.1/24 dev wire0; ip address add 10.78.0.2/24 dev wire1\n\
    ip link set wire0 up; ip link set wire1 up\n\
    rdma link add rxe0 type rxe netdev wire0; rdma link add rxe1 type rxe netdev wire1\n";

/// The first two are what soft-RoCE asks for by name and depends on silently: `rdma link add` fails without them.
const MODULES: &[&str] = &[
    "crc32_generic",
    "crc32c_generic",
    "9pnet_virtio",
    "virtio_pci",
    "9p",
    "overlay",
    "virtio_net",
    "veth",
    "sch_fq",
    "sch_fq_codel",
    "sch_netem",
    "sch_ingress",
    "cls_bpf",
    "tcp_bbr",
    "tls",
    "tun",
    "ib_uverbs",
    "rdma_ucm",
    "rdma_rxe",
];

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn words_reach_the_command_as_they_are() {
        let words: Vec<String> = ["printf", "%s|", "a b", "it's", "$HOME"].map(String::from).to_vec();
        let (limit, first) = (Duration::ZERO, First::Script);
        let request = Request { command: words, limit, memory_mib: 1, rdma: false, first };
        let text = shell::run_quietly(shell::command("sh").args(["-c", &script(&request)])).unwrap();
        assert_eq!(text, "a b|it's|$HOME|");
    }

    #[test]
    fn init_inserts_in_order_and_reports() {
        let text = init("insmod /modules/a.ko\ninsmod /modules/b.ko\n", First::Script);
        let place = |part: &str| text.find(part).unwrap();
        assert!(place("insmod /modules/a.ko") < place("insmod /modules/b.ko"));
        assert!(place("echo booted") < place("chroot") && place("chroot") < place("exit $?"));
        let text = init("insmod /modules/a.ko\n", First::Systemd);
        let place = |part: &str| text.find(part).unwrap();
        assert!(place("insmod /modules/a.ko") < place("echo booted"));
        assert!(
            place("echo booted") < place("exit $EXIT_STATUS")
                && place("exit $EXIT_STATUS") < place("switch_root")
        );
    }
}
