//! Arguments of `backup` and `restore`.
use std::path::PathBuf;

use clap::Subcommand;

/// What to do with copies of the state.
#[derive(Debug, Subcommand)]
pub(crate) enum Backup {
    /// Write a consistent copy while the node works; an SQLite file
    State {
        /// Where to; `-` = standard output
        #[arg(long, value_name = "FILE")]
        output: PathBuf,
        /// Seal it: only who has the passphrase in this file can read the copy
        #[arg(long, value_name = "FILE")]
        passphrase_file: Option<PathBuf>,
    },
    /// Check that a copy is whole and fits the daemon's version
    Verify {
        /// The copy
        file: PathBuf,
        /// The passphrase of a sealed copy
        #[arg(long, value_name = "FILE")]
        passphrase_file: Option<PathBuf>,
    },
    /// List the copies in a directory, newest first
    List {
        /// The directory
        directory: PathBuf,
    },
}

/// What to restore.
#[derive(Debug, Subcommand)]
pub(crate) enum Restore {
    /// Transfers and their history; the node must be drained
    State {
        /// The copy
        #[arg(long, value_name = "FILE")]
        input: PathBuf,
        /// The passphrase of a sealed copy
        #[arg(long, value_name = "FILE")]
        passphrase_file: Option<PathBuf>,
        /// Only check it
        #[arg(long)]
        dry_run: bool,
    },
}
