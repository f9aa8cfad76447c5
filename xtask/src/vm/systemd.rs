//! systemd as the first process of the virtual machine: what the script in the initial file system does before it gives
//! way to it. The command is a service that everything else waits for; its end switches the machine off. Part of `vm`.

/// Moves into the overlay and becomes systemd there.
pub(super) fn first() -> String {
    let masks: String = MASKED.iter().map(|unit| format!("ln -sf /dev/null $units/{unit}\n")).collect();
    // A host that is a container says so in a file, and systemd would then leave file systems of the kernel alone.
    // Generators make units of what the host has (fstab, init.d, clusters of databases): none of it is wanted here.
    // systemd mounts /proc, /sys and control groups itself. Only a state file says that the machine was set up before,
    // so that no unit is enabled by a preset.
    format!(
        "mount --move /dev /new/dev\n\
         mount -t tmpfs run /new/run; mount -t tmpfs tmp /new/tmp; chmod 1777 /new/tmp\n\
         units=/new/etc/systemd/system\n\
         {masks}\
         rm -rf $units/multi-user.target.wants $units/sysinit.target.wants $units/timers.target.wants\n\
         generators=/new/etc/systemd/system-generators; mkdir -p $generators\n\
         for name in /new/lib/systemd/system-generators/*; do ln -sf /dev/null $generators/${{name##*/}}; done\n\
         rm -f /new/.dockerenv\n\
         : > /new/etc/fstab; echo 0123456789abcdef0123456789abcdef > /new/etc/machine-id\n\
         cp /command /new/command\n\
         cat > $units/xtask.service <<'END'\n{COMMAND_UNIT}END\n\
         cat > $units/xtask.target <<'END'\n{TARGET_UNIT}END\n\
         /bin/busybox stty -F /new/dev/ttyS0 raw\n\
         exec switch_root /new /lib/systemd/systemd --unit=xtask.target --log-target=kmsg --show-status=no\n"
    )
}

/// Its status goes to the status port, as that of a plain command does.
const COMMAND_UNIT: &str = "\
[Unit]
Description=The command of this machine
After=basic.target
Requires=basic.target
[Service]
Type=oneshot
ExecStartPre=/bin/sh -c 'echo booted > /dev/ttyS1'
ExecStart=/bin/sh /command
StandardInput=null
StandardOutput=file:/dev/ttyS0
StandardError=inherit
TimeoutStartSec=infinity
LimitMEMLOCK=infinity
ExecStopPost=/bin/sh -c 'echo \"exit $EXIT_STATUS\" > /dev/ttyS1; sync; systemctl poweroff -ff'
";

const TARGET_UNIT: &str = "\
[Unit]
Description=The command and what it needs
Requires=xtask.service
AllowIsolate=yes
";

/// Slow under emulation, or of no use without devices, disks and a clock to set.
const MASKED: &[&str] = &[
    "apparmor.service",
    "binfmt-support.service",
    "console-setup.service",
    "dev-hugepages.mount",
    "dev-mqueue.mount",
    "getty.target",
    "keyboard-setup.service",
    "kmod-static-nodes.service",
    "ldconfig.service",
    "modprobe@.service",
    "networking.service",
    "proc-sys-fs-binfmt_misc.automount",
    "sys-fs-fuse-connections.mount",
    "sys-kernel-config.mount",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "systemd-ask-password-console.path",
    "systemd-ask-password-wall.path",
    "systemd-binfmt.service",
    "systemd-boot-system-token.service",
    "systemd-firstboot.service",
    "systemd-hwdb-update.service",
    "systemd-journal-catalog-update.service",
    "systemd-journal-flush.service",
    "systemd-machine-id-commit.service",
    "systemd-modules-load.service",
    "systemd-pstore.service",
    "systemd-random-seed.service",
    "systemd-remount-fs.service",
    "systemd-sysctl.service",
    "systemd-sysusers.service",
    "systemd-timesyncd.service",
    "systemd-tmpfiles-setup-dev.service",
    "systemd-tmpfiles-setup.service",
    "systemd-udev-trigger.service",
    "systemd-udevd-control.socket",
    "systemd-udevd-kernel.socket",
    "systemd-udevd.service",
    "systemd-update-done.service",
    "systemd-update-utmp.service",
];
