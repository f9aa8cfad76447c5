//! What `send` and `fetch` take over of a tree beside contents, modes and times.
use clap::Args;
use dwcp_api::TransferOptions;

/// The options, named as in rsync.
#[derive(Debug, Args)]
pub(crate) struct Keep {
    /// Keep owner, group, devices and special files, as rsync's -a does: --owner --group --devices --specials
    #[arg(long, short = 'a')]
    archive: bool,
    /// Keep hard links between files that are sent together
    #[arg(long, short = 'H')]
    hard_links: bool,
    /// Keep extended attributes of users (user.*)
    #[arg(long, short = 'X')]
    xattrs: bool,
    /// Keep access control lists
    #[arg(long, short = 'A')]
    acls: bool,
    /// Keep owners and set-user-ID bits, where the receiver has the right to; the export of a peer must be `privileged`
    #[arg(long, short = 'o')]
    owner: bool,
    /// Keep groups, likewise
    #[arg(long, short = 'g')]
    group: bool,
    /// Owners and groups by number, not by name
    #[arg(long)]
    numeric_ids: bool,
    /// Make devices, likewise
    #[arg(long)]
    devices: bool,
    /// Make named pipes and sockets
    #[arg(long)]
    specials: bool,
}

impl Keep {
    /// Sets what was asked for.
    pub(crate) fn apply(&self, options: TransferOptions) -> TransferOptions {
        TransferOptions {
            hard_links: self.hard_links,
            xattrs: self.xattrs,
            acls: self.acls,
            owner: self.owner || self.archive,
            group: self.group || self.archive,
            numeric_ids: self.numeric_ids,
            devices: self.devices || self.archive,
            specials: self.specials || self.archive,
            ..options
        }
    }
}
