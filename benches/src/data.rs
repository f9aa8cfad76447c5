//! The data set of `../shared/data/hde`: version pairs and single objects, unpacked once into the build folder. Used by the
//! benches of `hde`; `DWCP_BENCH_DATA` names another folder with a manifest of the same form.
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

/// A target and the baseline that the other end has.
#[derive(Debug)]
pub struct Pair {
    /// As in the manifest.
    pub name: String,
    /// What is sent.
    pub target: Vec<u8>,
    /// What is there; of several baselines one after the other.
    pub baseline: Vec<u8>,
}

/// Pairs whose name contains `only`; none where there are no data.
///
/// # Errors
/// The data do not unpack, or a file is missing.
pub fn pairs(only: &str) -> Result<Option<Vec<Pair>>> {
    let Some(set) = Set::open()? else { return Ok(None) };
    let mut pairs = Vec::new();
    for (name, baselines) in set.named(only, "target") {
        let mut baseline = Vec::new();
        for part in baselines.split(',') {
            baseline.extend(set.read(part)?);
        }
        pairs.push(Pair { target: set.read(&name)?, name, baseline });
    }
    Ok(Some(pairs))
}

/// A name and its bytes.
pub type Object = (String, Vec<u8>);

/// Everything that is sent, by name: targets and objects without a baseline; none where there are no data.
///
/// # Errors
/// As [`pairs`].
pub fn objects(only: &str) -> Result<Option<Vec<Object>>> {
    let Some(set) = Set::open()? else { return Ok(None) };
    let names = [set.named(only, "target"), set.named(only, "plain")].concat();
    let objects: Result<_> =
        names.into_iter().map(|(name, _)| Ok((name.clone(), set.read(&name)?))).collect();
    Ok(Some(objects?))
}

struct Set {
    unpacked: PathBuf,
    manifest: String,
}

impl Set {
    fn open() -> Result<Option<Self>> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let given = std::env::var_os("DWCP_BENCH_DATA").map(PathBuf::from);
        let packed = given.unwrap_or_else(|| root.join("../shared/data/hde"));
        if !packed.join("MANIFEST.tsv").is_file() {
            return Ok(None);
        }
        let unpacked = root.join("target/bench-data");
        unpack(&packed, &unpacked)?;
        Ok(Some(Self { unpacked, manifest: fs::read_to_string(packed.join("MANIFEST.tsv"))? }))
    }

    /// Names and baselines of the files with a role.
    fn named(&self, only: &str, role: &str) -> Vec<(String, String)> {
        let fields = self.manifest.lines().skip(1).map(|line| line.split('\t').collect::<Vec<_>>());
        let wanted = fields.filter_map(|fields| match fields[..] {
            [name, _, its_role, baselines, ..] if its_role == role && name.contains(only) => {
                Some((name.to_owned(), baselines.to_owned()))
            }
            _ => None,
        });
        wanted.collect()
    }

    fn read(&self, name: &str) -> Result<Vec<u8>> {
        fs::read(self.unpacked.join(name)).with_context(|| format!("{name} is missing"))
    }
}

fn unpack(packed: &Path, unpacked: &Path) -> Result<()> {
    let done = unpacked.join("done");
    if done.is_file() {
        return Ok(());
    }
    fs::create_dir_all(unpacked)?;
    for entry in fs::read_dir(packed)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "zst") {
            let mut tar = Command::new("tar");
            tar.arg("-I").arg("zstd -d --long=31").arg("-C").arg(unpacked).arg("-xf").arg(&path);
            ensure!(tar.status()?.success(), "{} does not unpack", path.display());
        }
    }
    fs::write(done, "")?;
    Ok(())
}
