//! Patterns of paths that are left out, as people write them. A pattern with `/` or `/**` at its end is a folder with all
//! that it holds; any other is of files. One without a `/` before its end is a name at any depth, one that begins with `/`
//! is absolute, others begin below the watched path.

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

/// Patterns for one or more trees.
pub(crate) struct Ignored {
    files: GlobSetBuilder,
    folders: GlobSetBuilder,
}

impl Ignored {
    pub(crate) fn new() -> Self {
        Self { files: GlobSetBuilder::new(), folders: GlobSetBuilder::new() }
    }

    /// Adds a pattern for this tree, an absolute path.
    ///
    /// # Errors
    /// It is no pattern: why.
    pub(crate) fn add(&mut self, pattern: &str, tree: &str) -> Result<(), globset::Error> {
        let folder = pattern.strip_suffix("/**").or_else(|| pattern.strip_suffix('/'));
        let text = folder.unwrap_or(pattern);
        let below = || format!("{}/", globset::escape(tree.trim_end_matches('/')));
        let absolute = match text.find('/') {
            Some(0) => text.to_owned(),
            Some(_) => below() + text,
            None => below() + "**/" + text,
        };
        let glob = GlobBuilder::new(&absolute).literal_separator(true).build()?;
        if folder.is_some() {
            self.folders.add(glob)
        } else {
            self.files.add(glob)
        };
        Ok(())
    }

    /// The patterns of files, and those of folders.
    pub(crate) fn build(self) -> Result<(GlobSet, GlobSet), globset::Error> {
        Ok((self.files.build()?, self.folders.build()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_of_files_or_of_folders_and_begins_where_it_says() {
        let mut ignored = Ignored::new();
        for pattern in ["*.log", "cache/", "var/run/**", "/app/x", "sub/*.tmp"] {
            ignored.add(pattern, "/app[1]/").unwrap();
        }
        let (files, folders) = ignored.build().unwrap();
        assert!(files.is_match("/app[1]/a/b.log") && files.is_match("/app[1]/b.log") && !folders.is_match("/app[1]/b.log"));
        assert!(folders.is_match("/app[1]/a/cache") && folders.is_match("/app[1]/cache") && !files.is_match("/app[1]/cache"));
        assert!(folders.is_match("/app[1]/var/run") && !folders.is_match("/app[1]/a/var/run"));
        assert!(files.is_match("/app/x") && files.is_match("/app[1]/sub/a.tmp") && !files.is_match("/app[1]/sub/a/b.tmp"));
        assert!(!files.is_match("/app1/b.log"), "a path is no pattern");
        assert!(Ignored::new().add("[", "/").is_err());
    }
}
