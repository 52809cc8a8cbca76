//! What the compiler says, without what it says of sources that are not ours.
//!
//! The patched sources are path dependencies, whose warnings cargo shows at every build, thousands
//! of lines of them. Nobody here can do anything about them.

use std::path::PathBuf;

use cargo_metadata::{Message, diagnostic::DiagnosticLevel};

/// For cargo commands that compile: makes them write messages for [`shown`] to stdout.
pub const AS_MESSAGES: &str = "--message-format=json";

/// The folder of the patched sources in a clone.
const PORTS: &str = "/.ports/";

/// What is to be shown of a line of stdout: a message of the compiler as it renders it, nothing of
/// cargo's other messages, and whatever else is printed as it is.
pub fn shown(line: &str) -> Option<String> {
    if !line.starts_with("{\"reason\":") {
        return Some(line.to_owned());
    }
    match serde_json::from_str(line) {
        Ok(Message::CompilerMessage(said)) => {
            let theirs = said.target.src_path.as_str().contains(PORTS);
            let wrong = matches!(
                said.message.level,
                DiagnosticLevel::Error | DiagnosticLevel::Ice
            );
            let text = said.message.rendered?;
            (wrong || !theirs).then(|| text.trim_end().to_owned())
        }
        Ok(_) => None,
        Err(_) => Some(line.to_owned()),
    }
}

/// The file that a line of stdout says cargo has linked, if it says so.
pub fn executable(line: &str) -> Option<PathBuf> {
    match serde_json::from_str(line) {
        Ok(Message::CompilerArtifact(artifact)) => artifact.executable.map(Into::into),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(path: &str, level: &str) -> String {
        format!(
            r#"{{"reason":"compiler-message","package_id":"a","manifest_path":"{path}/Cargo.toml","target":{{"kind":["lib"],"crate_types":["lib"],"name":"a","src_path":"{path}/src/lib.rs","edition":"2021","doc":true,"doctest":true,"test":true}},"message":{{"rendered":"{level}: look\n","children":[],"code":null,"level":"{level}","message":"look","spans":[]}}}}"#
        )
    }

    #[test]
    fn only_errors_are_shown_of_patched_sources() {
        let (ours, theirs) = ("/clone/engine", "/clone/.ports/tar");
        let look = |level: &str| Some(format!("{level}: look"));
        assert_eq!(shown(&message(ours, "warning")), look("warning"));
        assert_eq!(shown(&message(ours, "error")), look("error"));
        assert_eq!(shown(&message(theirs, "warning")), None);
        assert_eq!(shown(&message(theirs, "error")), look("error"));
    }

    #[test]
    fn linked_files_are_found() {
        let artifact = |executable: &str| {
            format!(
                r#"{{"reason":"compiler-artifact","package_id":"a","manifest_path":"/a/Cargo.toml","target":{{"kind":["test"],"crate_types":["bin"],"name":"a","src_path":"/a/tests/a.rs","edition":"2024","doc":false,"doctest":false,"test":true}},"profile":{{"opt_level":"3","debuginfo":0,"debug_assertions":false,"overflow_checks":false,"test":true}},"features":[],"filenames":["/a.wasm"],"executable":{executable},"fresh":false}}"#
            )
        };
        let file = executable(&artifact(r#""/a.wasm""#));
        assert_eq!(file, Some(PathBuf::from("/a.wasm")));
        assert_eq!(executable(&artifact("null")), None);
        assert_eq!(executable("running 3 tests"), None);
    }

    #[test]
    fn what_is_no_message_is_shown_as_it_is() {
        let finished = r#"{"reason":"build-finished","success":true}"#;
        assert_eq!(shown(finished), None);
        for line in ["running 3 tests", r#"{"a": 1}"#, r#"{"reason":"#] {
            assert_eq!(shown(line).as_deref(), Some(line));
        }
    }
}
