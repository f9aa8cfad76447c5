//! What a receiver takes over, and its bounds.
use dwcp_abi::wire::TreeOptions;

/// What a receiver takes over, and its bounds.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// A regular file that has the size and time of an entry already stays as it is.
    pub skip_unchanged: bool,
    /// A regular file that has the content of an entry already stays, with the entry's time and mode.
    pub checksum: bool,
    /// Nothing is changed; what would be is counted and named.
    pub dry_run: bool,
    /// What the source does not have is deleted in the directories that it has sent, once everything else is there.
    pub delete: bool,
    /// What the sender may send differences to is looked for.
    pub baselines: bool,
    /// So does one that was put in place after this time, in seconds and nanoseconds since 1970: a former attempt of
    /// the job has put it there.
    pub placed_since: Option<(i64, i64)>,
    /// Set-user-ID and set-group-ID bits are taken over.
    pub special_bits: bool,
    /// The owner is taken over where that is permitted.
    pub owner: bool,
    /// The group is.
    pub group: bool,
    /// Hard links are made.
    pub hard_links: bool,
    /// Extended attributes of users are taken over.
    pub xattrs: bool,
    /// Access control lists are.
    pub acls: bool,
    /// Devices are made.
    pub devices: bool,
    /// Named pipes and sockets are made.
    pub specials: bool,
    /// Objects open at once; more are refused.
    pub objects_max: usize,
    /// Directories kept open.
    pub directories_max: usize,
    /// Bytes kept for directories' final metadata.
    pub finals_bytes_max: u32,
    /// Names that can be told from those to delete; with more, nothing is deleted.
    pub names_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            skip_unchanged: false,
            checksum: false,
            dry_run: false,
            delete: false,
            baselines: false,
            placed_since: None,
            special_bits: false,
            owner: false,
            group: false,
            hard_links: false,
            xattrs: false,
            acls: false,
            devices: false,
            specials: false,
            objects_max: 256,
            directories_max: 32,
            finals_bytes_max: 64 << 20,
            names_max: 8 << 20,
        }
    }
}

impl Options {
    /// What a job asks for.
    #[must_use]
    pub fn of(tree: TreeOptions) -> Self {
        Self {
            // Whoever wants contents compared does not trust times.
            skip_unchanged: tree.has(TreeOptions::SKIP_UNCHANGED) && !tree.has(TreeOptions::CHECKSUM),
            checksum: tree.has(TreeOptions::CHECKSUM),
            dry_run: tree.has(TreeOptions::DRY_RUN),
            delete: tree.has(TreeOptions::DELETE),
            // With another owner they would let a program run as somebody whom nobody meant.
            special_bits: tree.has(TreeOptions::OWNER),
            owner: tree.has(TreeOptions::OWNER),
            group: tree.has(TreeOptions::GROUP),
            hard_links: tree.has(TreeOptions::HARD_LINKS),
            xattrs: tree.has(TreeOptions::XATTRS),
            acls: tree.has(TreeOptions::ACLS),
            devices: tree.has(TreeOptions::DEVICES),
            specials: tree.has(TreeOptions::SPECIALS),
            ..Self::default()
        }
    }

    /// Without what a peer may only decide in a privileged export.
    #[must_use]
    pub fn unprivileged(self) -> Self {
        Self { special_bits: false, owner: false, group: false, devices: false, ..self }
    }

    /// Whether [`Options::unprivileged`] takes anything away.
    #[must_use]
    pub fn needs_privilege(&self) -> bool {
        self.special_bits || self.owner || self.group || self.devices
    }
}
