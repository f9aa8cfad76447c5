//! Finds the programs of the two halves: beside the command, in its prefix's `libexec`, where packages put them, in the
//! search path.
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::exit::Failure;

/// The first executable file called `name`.
pub(super) fn program(name: &str, ourselves: &Path) -> Result<PathBuf, Failure> {
    let search_path = std::env::var_os("PATH").unwrap_or_default();
    let places = places(ourselves, std::env::split_paths(&search_path));
    let found = places.iter().map(|place| place.join(name)).find(|path| is_executable(path));
    found.ok_or_else(|| {
        let beside = ourselves.parent().unwrap_or(Path::new("/")).display();
        Failure::general(format!("cannot find {name}")).with_hint(format!(
            "it was looked for in {beside}, {beside}/../libexec/dwcp, {PACKAGED} and PATH"
        ))
    })
}

fn places(ourselves: &Path, search_path: impl Iterator<Item = PathBuf>) -> Vec<PathBuf> {
    let beside = ourselves.parent().map(Path::to_owned);
    // Relative entries would make it a matter of the working directory which program runs with privileges.
    let absolute = search_path.filter(|directory| directory.is_absolute());
    // `cargo xtask install --prefix` puts the command into PREFIX/bin and the halves there.
    let prefix = ourselves.parent().and_then(Path::parent).map(|prefix| prefix.join("libexec/dwcp"));
    beside.into_iter().chain(prefix).chain([PathBuf::from(PACKAGED)]).chain(absolute).collect()
}

fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

const PACKAGED: &str = "/usr/libexec/dwcp";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beside_then_of_the_prefix_then_packaged_then_absolute_search_path() {
        let search_path = ["/usr/bin", "", "bin"].map(PathBuf::from);
        let found = places(Path::new("/opt/dwcp/bin/dwcp"), search_path.into_iter());
        let expected = ["/opt/dwcp/bin", "/opt/dwcp/libexec/dwcp", "/usr/libexec/dwcp", "/usr/bin"];
        assert_eq!(found, expected.map(PathBuf::from));
    }
}
