//! What it is compared with.
use std::process::Command;
use std::{env, fs};

use anyhow::{Result, anyhow, ensure};
use dwcp_benches::measure::{children, thread_cpu_s};
use zstd_safe::{CCtx, CParameter, DCtx, DParameter};

use crate::Row;
use dwcp_benches::data::Pair;

/// `zstd -LEVEL --patch-from`, with the parameters that the command sets (`FIO_adjustParamsForPatchFromMode` in
/// programs/fileio.c, zstd 1.5.7).
pub(crate) fn patch_from(pair: &Pair, level: i32) -> Result<Row> {
    let error = |code| anyhow!("zstd: {}", zstd_safe::get_error_name(code));
    let length = pair.target.len().max(pair.baseline.len());
    let window_log = (usize::BITS - length.leading_zeros()).clamp(10, 31);
    let mut blocks = vec![0; zstd_safe::compress_bound(pair.target.len())];
    let start = thread_cpu_s()?;
    let mut context = CCtx::create();
    context.set_parameter(CParameter::CompressionLevel(level)).map_err(error)?;
    context.set_parameter(CParameter::WindowLog(window_log)).map_err(error)?;
    context.set_parameter(CParameter::EnableLongDistanceMatching(true)).map_err(error)?;
    context.set_parameter(CParameter::ChecksumFlag(true)).map_err(error)?;
    context.ref_prefix(&pair.baseline).map_err(error)?;
    let bytes = context.compress2(&mut blocks[..], &pair.target).map_err(error)?;
    let encode_s = thread_cpu_s()? - start;
    let mut plain = vec![1; pair.target.len()];
    let start = thread_cpu_s()?;
    let mut context = DCtx::create();
    context.set_parameter(DParameter::WindowLogMax(31)).map_err(error)?;
    context.ref_prefix(&pair.baseline).map_err(error)?;
    let length = context.decompress(&mut plain[..], &blocks[..bytes]).map_err(error)?;
    let decode_s = thread_cpu_s()? - start;
    ensure!(length == pair.target.len() && plain == pair.target, "{} came back wrong", pair.name);
    Ok(Row { bytes, encode_s, index_s: 0.0, decode_s })
}

/// `xdelta3 -9`; none where it is not installed.
pub(crate) fn xdelta(pair: &Pair) -> Result<Option<Row>> {
    if Command::new("xdelta3").arg("-V").output().is_err() {
        return Ok(None);
    }
    let folder = env::temp_dir().join(format!("dwcp-bench-delta-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    let [target, baseline, delta] = ["target", "baseline", "delta"].map(|name| folder.join(name));
    fs::write(&target, &pair.target)?;
    fs::write(&baseline, &pair.baseline)?;
    let cost = children(pair.target.len() as u64, || {
        let window = format!("{}", pair.baseline.len().next_power_of_two().max(1 << 20));
        let mut command = Command::new("xdelta3");
        command.args(["-9", "-f", "-e", "-B"]).arg(window).arg("-s");
        ensure!(command.args([&baseline, &target, &delta]).status()?.success(), "xdelta3 fails");
        Ok(())
    })?;
    let bytes = fs::metadata(&delta)?.len() as usize;
    fs::remove_dir_all(&folder)?;
    Ok(Some(Row { bytes, encode_s: cost.cpu_s, index_s: 0.0, decode_s: 0.0 }))
}
