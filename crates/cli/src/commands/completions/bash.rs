//! Completion in Bash, which splits words at `:` and `=`: `--meta 127.0.0.1:7400` arrives as four words.

use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::path::Path;

use clap::Command;
use clap_complete::engine::complete;
use clap_complete::env::{Bash, EnvCompleter};

/// Adapter of Bash that joins the split words in front of the current word.
pub(super) struct JoinedBash;

impl EnvCompleter for JoinedBash {
    fn name(&self) -> &'static str {
        Bash.name()
    }

    fn is(&self, name: &str) -> bool {
        Bash.is(name)
    }

    fn write_registration(
        &self,
        variable: &str,
        name: &str,
        binary: &str,
        completer: &str,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        Bash.write_registration(variable, name, binary, completer, out)
    }

    fn write_complete(
        &self,
        tree: &mut Command,
        words: Vec<OsString>,
        directory: Option<&Path>,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        let setting = |name: &str| std::env::var(name).ok();
        let current = setting("_CLAP_COMPLETE_INDEX").and_then(|index| index.parse().ok());
        let (words, current) = join(&words, current.unwrap_or(0));
        let separator = setting("_CLAP_IFS").unwrap_or_else(|| "\n".to_owned());
        let candidates = complete(tree, words, current, directory)?;
        let values: Vec<_> =
            candidates.iter().map(|candidate| candidate.get_value().to_string_lossy()).collect();
        write!(out, "{}", values.join(&separator))
    }
}

/// Joins words that Bash has split, in front of the word with the index `current`; returns the words and
/// the new index. The current word stays as it is: Bash replaces only its last part.
pub(super) fn join(words: &[OsString], current: usize) -> (Vec<OsString>, usize) {
    let is_separator = |word: &OsStr| {
        let bytes = word.as_encoded_bytes();
        !bytes.is_empty() && bytes.iter().all(|byte| matches!(byte, b':' | b'='))
    };
    let before = &words[..current.min(words.len())];
    let mut joined: Vec<OsString> = Vec::new();
    let mut follows_separator = false;
    for word in before {
        let separates = is_separator(word);
        match joined.last_mut() {
            Some(last) if separates || follows_separator => last.push(word),
            _ => joined.push(word.clone()),
        }
        follows_separator = separates;
    }
    // The value of an option in the form `--option=value`.
    if follows_separator
        && joined.last().is_some_and(|last| last.as_encoded_bytes().ends_with(b"="))
    {
        let option =
            joined.last().map(|last| last.to_string_lossy().trim_end_matches('=').to_owned());
        if let (Some(option), Some(last)) = (option, joined.last_mut()) {
            *last = option.into();
        }
    }
    let index = joined.len();
    joined.extend(words[before.len()..].iter().cloned());
    (joined, index)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(words: &[&str], current: usize) -> (String, usize) {
        let words: Vec<OsString> = words.iter().map(OsString::from).collect();
        let (words, index) = join(&words, current);
        let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
        (words.join(" "), index)
    }

    #[test]
    fn split_words_are_joined_before_the_current_word() {
        let cases: [(&[&str], usize, &str, usize); 5] = [
            (&["tidewater", "scan", "fl"], 2, "tidewater scan fl", 2),
            (
                &["tidewater", "scan", "--meta", "h", ":", "1,k", ":", "2", "fl"],
                8,
                "tidewater scan --meta h:1,k:2 fl",
                4,
            ),
            (&["tidewater", "--meta", "=", "h", ":", "1", "fl"], 6, "tidewater --meta=h:1 fl", 2),
            // The current word is the value of an option.
            (&["tidewater", "scan", "--table", "=", "fl"], 4, "tidewater scan --table fl", 3),
            (&["tidewater", "scan", "h", ":", "1"], 2, "tidewater scan h : 1", 2),
        ];
        for (words, current, expected, index) in cases {
            assert_eq!(joined(words, current), (expected.to_owned(), index), "{words:?}");
        }
    }
}
