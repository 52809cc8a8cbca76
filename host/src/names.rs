//! Names of the component's functions, for whoever reads what a trap says: the component itself has
//! none.
//!
//! ```text
//! edge_sync.names   the SHA-256 of the component, then a line for each function, by its index
//! ```

use std::path::PathBuf;

use wasmtime::{FrameInfo, WasmBacktrace};

/// Where the names of one component are.
#[derive(Debug)]
pub(crate) struct Names {
    file: Option<PathBuf>,
    /// SHA-256 of the component, as hexadecimal digits.
    component: String,
}

impl Names {
    pub(crate) fn new(file: Option<PathBuf>, component: String) -> Names {
        Names { file, component }
    }

    /// The frames of a backtrace, the innermost first, a line for each. Reads the file.
    pub(crate) fn of(&self, backtrace: &WasmBacktrace) -> String {
        let text = self.read();
        let lines: Vec<&str> = text
            .as_deref()
            .map_or(Vec::new(), |it| it.lines().collect());
        let named = |frame: &FrameInfo| {
            let name = frame.func_name().filter(|name| !name.is_empty());
            let index = frame.func_index() as usize;
            // The first line is not a function's.
            let line = lines
                .get(index + 1)
                .copied()
                .filter(|line| !line.is_empty());
            match name.or(line.filter(|_| is_main(frame))) {
                Some(name) => name.to_owned(),
                None => format!("function {index}"),
            }
        };
        let frames = backtrace.frames().iter().enumerate();
        frames
            .map(|(number, frame)| format!("\n{number:4}: {}", named(frame)))
            .collect()
    }

    fn read(&self) -> Option<String> {
        let file = self.file.as_ref()?;
        match std::fs::read_to_string(file) {
            Ok(text) if text.lines().next() == Some(&self.component) => Some(text),
            Ok(_) => {
                tracing::debug!(file = %file.display(), "names of another component");
                None
            }
            Err(error) => {
                tracing::debug!(file = %file.display(), "no names: {error}");
                None
            }
        }
    }
}

/// Whether a frame is of the module with the code, which alone exports a memory.
fn is_main(frame: &FrameInfo) -> bool {
    let mut exports = frame.module().exports();
    exports.any(|export| export.ty().memory().is_some())
}
