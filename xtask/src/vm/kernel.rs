//! Kernels of other releases, from Debian's packages: found, fetched once, kept in the user's cache.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::command::{self, has, output};

/// The kernel's image; fetched if no kernel of this series is in the cache.
pub(super) fn image(series: &str) -> Result<PathBuf> {
    let cache = cache()?;
    if let Some(image) = cached(&cache, series) {
        return Ok(image);
    }
    let package = find(series)?;
    println!("vm: fetching {package}");
    fetch(&cache, &package).with_context(|| format!("cannot fetch {package}"))?;
    cached(&cache, series).with_context(|| format!("{package} holds no kernel"))
}

/// Whether kernels can be had here at all.
pub(super) fn can_be_had(series: &str) -> bool {
    has("apt-get") || cache().is_ok_and(|cache| cached(&cache, series).is_some())
}

fn cache() -> Result<PathBuf> {
    let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache"));
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(home);
    Ok(cache.context("HOME is not set")?.join("remora/kernels"))
}

/// The newest image of a series in the cache.
fn cached(cache: &Path, series: &str) -> Option<PathBuf> {
    let names = std::fs::read_dir(cache).ok()?.flatten();
    let names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let newest = newest(names, series)?;
    Some(cache.join(newest)).filter(|image| image.is_file())
}

/// The smallest of Debian's kernels of this series: for virtual machines, not signed.
fn find(series: &str) -> Result<String> {
    let search = || {
        let mut search = Command::new("apt-cache");
        let text = output(search.args(["search", "--names-only", "^linux-image-.*-cloud-amd64"]));
        let text = text.unwrap_or_default();
        let names = text.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned);
        newest(names, series)
    };
    if let Some(package) = search() {
        return Ok(package);
    }
    // The lists may be old or missing.
    crate::setup::apt_update()?;
    search().with_context(|| format!("apt knows no kernel {series} for virtual machines"))
}

/// The newest package of a series among these names.
fn newest(names: impl Iterator<Item = String>, series: &str) -> Option<String> {
    let prefix = format!("linux-image-{series}.");
    let mine = names.filter(|name| name.starts_with(&prefix) && name.ends_with("-unsigned"));
    mine.max_by_key(|name| {
        let numbers = name.split(|letter: char| !letter.is_ascii_digit());
        numbers.filter_map(|number| number.parse::<u64>().ok()).collect::<Vec<_>>()
    })
}

/// Puts the image of a package into the cache, under the package's name.
fn fetch(cache: &Path, package: &str) -> Result<()> {
    let scratch = cache.join(format!(".fetch-{}", std::process::id()));
    std::fs::create_dir_all(&scratch)
        .with_context(|| format!("cannot create {}", scratch.display()))?;
    let result = unpack(&scratch, package).and_then(|image| {
        std::fs::rename(&image, cache.join(package)).context("cannot put it into the cache")
    });
    std::fs::remove_dir_all(&scratch)
        .with_context(|| format!("cannot remove {}", scratch.display()))?;
    result
}

fn unpack(scratch: &Path, package: &str) -> Result<PathBuf> {
    let mut download = Command::new("apt-get");
    download.args(["-qq", "download", package]).current_dir(scratch);
    // That it does so as root is no news.
    command::run(download.stderr(Stdio::null()))?;
    let archive = std::fs::read_dir(scratch)?.flatten().map(|entry| entry.path()).next();
    let archive = archive.context("apt-get has downloaded nothing")?;
    let mut files = Command::new("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(&archive)
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run dpkg-deb")?;
    let stream = files.stdout.take().context("it is a pipe")?;
    let image = scratch.join("image");
    let mut pick = Command::new("tar");
    pick.args(["-x", "-O", "--wildcards", "./boot/vmlinuz-*"]).stdin(stream);
    pick.stdout(std::fs::File::create(&image).context("cannot create a file in the cache")?);
    command::run(&mut pick)?;
    if !files.wait()?.success() {
        bail!("dpkg-deb cannot read {}", archive.display());
    }
    Ok(image)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_of_a_series_is_taken() {
        let names = [
            "linux-image-6.1.0-9-cloud-amd64-unsigned",
            "linux-image-6.1.0-56-cloud-amd64-unsigned",
            "linux-image-6.1.0-60-cloud-amd64",
            "linux-image-6.12.9+deb12-cloud-amd64-unsigned",
            "linux-image-6.12.117+deb12-cloud-amd64-unsigned",
            "linux-image-6.12.117+deb12-cloud-amd64-dbg",
        ];
        let newest = |series| newest(names.iter().map(|name| (*name).to_owned()), series);
        assert_eq!(newest("6.1").as_deref(), Some(names[1]));
        assert_eq!(newest("6.12").as_deref(), Some(names[4]));
        assert_eq!(newest("5.10"), None);
    }
}
