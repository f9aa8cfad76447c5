//! A directory in memory, gone with its owner, and the data that benches move.
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

/// A directory on tmpfs.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// A new, empty one.
    ///
    /// # Errors
    /// `/dev/shm` cannot be written.
    pub fn new() -> Result<Self> {
        let path = PathBuf::from(format!("/dev/shm/dwcp-bench-{}", std::process::id()));
        fs::create_dir(&path).with_context(|| path.display().to_string())?;
        Ok(Self(path))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Removes what a run left in a sub-directory, and makes it anew.
    ///
    /// # Errors
    /// As the file system says.
    pub fn fresh(&self, name: &str) -> Result<PathBuf> {
        let path = self.0.join(name);
        if path.exists() {
            fs::remove_dir_all(&path)?;
        }
        fs::create_dir_all(&path)?;
        Ok(path)
    }

    /// A file of bytes that no codec shortens.
    ///
    /// # Errors
    /// The memory does not suffice.
    pub fn file(&self, name: &str, bytes: u64) -> Result<PathBuf> {
        let path = self.0.join(name);
        let mut file = File::create(&path)?;
        let mut noise = Noise(0x9E37_79B9_7F4A_7C15);
        let mut left = bytes;
        while left > 0 {
            let block = noise.bytes(left.min(1 << 20) as usize);
            file.write_all(&block)?;
            left -= block.len() as u64;
        }
        Ok(path)
    }

    /// A tree of small files, a hundred to a directory; returns their bytes. Sizes are as skewed as those of real trees:
    /// half of them are below an eighth of the largest.
    ///
    /// # Errors
    /// The memory does not suffice.
    pub fn tree(&self, name: &str, files: u64, bytes_mean: u64) -> Result<(PathBuf, u64)> {
        let root = self.fresh(name)?;
        let mut noise = Noise(0xD1B5_4A32_D192_ED03);
        let mut total = 0;
        for index in 0..files {
            let directory = root.join(format!("{:03}", index / 100));
            if index % 100 == 0 {
                fs::create_dir(&directory)?;
            }
            let share = noise.next() as f64 / u64::MAX as f64;
            let size = (4.0 * bytes_mean as f64 * share.powi(3)) as usize;
            fs::write(directory.join(format!("{index:05}")), noise.bytes(size))?;
            total += size as u64;
        }
        Ok((root, total))
    }

    /// A tree of files of one size, a hundred to a directory.
    ///
    /// # Errors
    /// The memory does not suffice.
    pub fn equal_files(&self, name: &str, files: u64, bytes: u64) -> Result<PathBuf> {
        let root = self.fresh(name)?;
        let mut noise = Noise(0xA076_1D64_78BD_642F);
        for index in 0..files {
            let directory = root.join(format!("{:03}", index / 100));
            if index % 100 == 0 {
                fs::create_dir(&directory)?;
            }
            fs::write(directory.join(format!("{index:05}")), noise.bytes(bytes as usize))?;
        }
        Ok(root)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Nothing can be done about what cannot be removed.
        drop(fs::remove_dir_all(&self.0));
    }
}

/// Checks that a copy has the bytes of its source.
///
/// # Errors
/// It has not.
pub fn same(source: &Path, copy: &Path) -> Result<()> {
    let digest = |path: &Path| -> Result<blake3::Hash> {
        let mut hasher = blake3::Hasher::new();
        std::io::copy(&mut File::open(path).with_context(|| path.display().to_string())?, &mut hasher)?;
        Ok(hasher.finalize())
    };
    ensure!(digest(source)? == digest(copy)?, "{} is not {}", copy.display(), source.display());
    Ok(())
}

struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length + 8);
        while bytes.len() < length {
            bytes.extend(self.next().to_le_bytes());
        }
        bytes.truncate(length);
        bytes
    }
}
