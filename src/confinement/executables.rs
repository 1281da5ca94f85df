//! `exec:` of the policy: patterns of paths become the files and folders that they mean now.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::anyhow;
use egret_confine::ExecList;
use globset::{GlobBuilder, GlobMatcher};

/// The most entries that are looked at for the patterns of one list.
const MOST_ENTRIES: usize = 100_000;

/// The list that these patterns mean.
///
/// # Errors
/// A pattern would have more looked at than egret is willing to.
pub(crate) fn list(patterns: &[String], enforce: bool) -> anyhow::Result<ExecList> {
    let mut paths = Vec::new();
    let mut left = MOST_ENTRIES;
    for pattern in patterns {
        expand(pattern, &mut paths, &mut left)?;
    }
    Ok(ExecList { enforce, paths })
}

/// A path alone is itself, and so is a folder with `/**` behind it: it holds what is put there later too. Anything else is what
/// matches it now and can be executed.
fn expand(pattern: &str, paths: &mut Vec<PathBuf>, left: &mut usize) -> anyhow::Result<()> {
    let folder = pattern.strip_suffix("/**").unwrap_or(pattern);
    if !is_pattern(folder) {
        paths.push(if folder.is_empty() { PathBuf::from("/") } else { PathBuf::from(folder) });
        return Ok(());
    }
    let glob = GlobBuilder::new(pattern).literal_separator(true).build()?.compile_matcher();
    let plain = pattern.split('/').take_while(|part| !is_pattern(part)).collect::<Vec<_>>().join("/");
    let start = if plain.is_empty() { Path::new("/") } else { Path::new(&plain) };
    collect(start, &glob, paths, left).ok_or_else(|| {
        anyhow!(
            "`exec:`: {pattern} would have more than {MOST_ENTRIES} files looked at: write the folder, as {}/**",
            start.display()
        )
    })
}

fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?', '[', '{', '\\'])
}

/// What of this folder and those below it matches. `None` if that is too much; what can't be read has nothing in it.
fn collect(folder: &Path, glob: &GlobMatcher, paths: &mut Vec<PathBuf>, left: &mut usize) -> Option<()> {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        *left = left.checked_sub(1)?;
        let (path, is_folder) = (entry.path(), entry.file_type().is_ok_and(|kind| kind.is_dir()));
        if is_folder {
            collect(&path, glob, paths, left)?;
        } else if glob.is_match(&path) && is_executable(&path) {
            paths.push(path);
        }
    }
    Some(())
}

fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_become_what_they_mean_now() {
        let home = tempfile::TempDir::new().unwrap();
        let root = home.path().to_str().unwrap();
        for (name, mode) in [("bin/a1", 0o755), ("bin/a2", 0o644), ("bin/b1", 0o755), ("bin/deep/a3", 0o700)] {
            let path = home.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        }
        let expanded = |patterns: &[&str]| {
            let patterns: Vec<String> = patterns.iter().map(|pattern| format!("{root}/{pattern}")).collect();
            let mut found = list(&patterns, true).unwrap().paths;
            found.sort();
            let short = |path: PathBuf| path.strip_prefix(root).unwrap().display().to_string();
            found.into_iter().map(short).collect::<Vec<_>>()
        };
        assert_eq!(expanded(&["bin/**", "other/tool"]), ["bin", "other/tool"]);
        assert_eq!(expanded(&["bin/a*"]), ["bin/a1"], "what can be executed, in that folder");
        assert_eq!(expanded(&["bin/**/a*"]), ["bin/a1", "bin/deep/a3"]);
        assert_eq!(expanded(&["none/*"]), [""; 0]);
    }

    #[test]
    fn a_list_that_would_look_at_everything_is_refused() {
        let home = tempfile::TempDir::new().unwrap();
        fs::write(home.path().join("a"), "").unwrap();
        fs::write(home.path().join("b"), "").unwrap();
        let pattern = format!("{}/*", home.path().display());
        assert!(expand(&pattern, &mut Vec::new(), &mut 1).unwrap_err().to_string().contains("write the folder"));
        assert!(expand(&pattern, &mut Vec::new(), &mut 2).is_ok());
    }
}
