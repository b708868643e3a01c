//! Objects of a source as files of the node.

use std::fs::{self, DirEntry, File, FileType};
use std::io;
use std::path::{Component, Path, PathBuf};

use super::format::{ObjectFormat, is_hidden};
use super::listing::ObjectList;
use super::pin::{Pin, changed};
use crate::{Listing, SourceAccess, SourceError, Split};

/// Maximum number of files and directories below a directory, including those that do not belong to the source.
const MAX_EXAMINED: usize = 1_000_000;

/// Files of one format below a directory. All calls are blocking.
#[derive(Debug, Clone)]
pub(super) struct LocalObjects {
    /// Permissions of sources on this node.
    pub(super) access: SourceAccess,
    /// The directory.
    pub(super) directory: PathBuf,
    /// Format of the files.
    pub(super) format: ObjectFormat,
}

impl LocalObjects {
    /// Lists the files of all directories below. Symbolic links are not followed: one that could have rows is
    /// an error, because rows that a listing leaves out would be deleted from the table.
    pub(super) fn list(&self) -> Result<Listing, SourceError> {
        let root = self.access.directory(&self.directory)?;
        let mut list = ObjectList::new(self.directory.display().to_string(), MAX_EXAMINED);
        let mut pending = vec![(root, String::new())];
        while let Some((directory, prefix)) = pending.pop() {
            let entries = match fs::read_dir(&directory) {
                Ok(entries) => entries,
                // Removed since its parent was listed.
                Err(error) if is_missing(&error) && !prefix.is_empty() => continue,
                Err(error) => return Err(unreadable(&directory, &error)),
            };
            for entry in entries {
                list.examine()?;
                let entry = entry.map_err(|error| unreadable(&directory, &error))?;
                let file_type =
                    entry.file_type().map_err(|error| unreadable(&entry.path(), &error))?;
                let Some(name) = self.name(&prefix, &entry, file_type)? else { continue };
                if file_type.is_dir() {
                    pending.push((entry.path(), format!("{name}/")));
                    continue;
                }
                // Not through a symbolic link, also if the file has become one.
                match entry.metadata() {
                    Ok(metadata) => list.add(Pin::of_file(&name, &metadata))?,
                    Err(error) if is_missing(&error) => {}
                    Err(error) => return Err(unreadable(&entry.path(), &error)),
                }
            }
        }
        list.finish()
    }

    /// Returns the name of a directory or a file of the source below the prefix; `None` if it does not
    /// belong to the source.
    fn name(
        &self,
        prefix: &str,
        entry: &DirEntry,
        file_type: FileType,
    ) -> Result<Option<String>, SourceError> {
        let file_name = entry.file_name();
        let lossy = file_name.to_string_lossy();
        let name = format!("{prefix}{lossy}");
        // A link to a directory may lead to files of the source.
        let belongs = !is_hidden(&lossy)
            && (file_type.is_dir()
                || self.format.includes(&name)
                || (file_type.is_symlink() && entry.path().is_dir()));
        if !belongs {
            return Ok(None);
        }
        let path = entry.path();
        if file_name.to_str().is_none() {
            let reason = "has a name that is not UTF-8: rename it";
            return Err(SourceError::Unreadable(format!("{} {reason}", path.display())));
        }
        if !file_type.is_dir() && !file_type.is_file() {
            return Err(SourceError::NotPermitted(format!(
                "{} is not a regular file: replace it with one, or begin its name with a dot",
                path.display()
            )));
        }
        Ok(Some(name))
    }

    /// Opens the file of a split, if it is as it was listed.
    pub(super) fn open(&self, split: &Split) -> Result<File, SourceError> {
        let pin = Pin::of_split(split)?;
        let is_plain = |part: Component<'_>| matches!(part, Component::Normal(_));
        if !Path::new(&pin.object).components().all(is_plain) {
            return Err(SourceError::NotPermitted(format!(
                "{} is outside of {}: list the source again",
                pin.object,
                self.directory.display()
            )));
        }
        // A node without the directory cannot know what became of its files.
        let root = self.access.directory(&self.directory)?;
        let file = self.access.open(&root.join(&pin.object))?;
        self.check(&file, split)?;
        Ok(file)
    }

    /// Checks that an opened file is as it was listed.
    pub(super) fn check(&self, file: &File, split: &Split) -> Result<(), SourceError> {
        let pin = Pin::of_split(split)?;
        let metadata = file.metadata().map_err(|error| unreadable(&self.directory, &error))?;
        if pin.is_content_of(&Pin::of_file(&pin.object, &metadata)) {
            Ok(())
        } else {
            Err(changed(&split.name, "has changed"))
        }
    }
}

fn is_missing(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

fn unreadable(path: &Path, error: &io::Error) -> SourceError {
    SourceError::Unreadable(format!("{} cannot be read: {error}", path.display()))
}
