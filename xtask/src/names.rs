//! The names of the component's functions, apart from the component: they are an eighth of it, and of
//! use to whoever reads what a trap says alone.

use anyhow::{Context, Result};
use wasm_encoder::{Component, RawSection};
use wasmparser::{KnownCustom, Name, Parser, Payload};

/// Number of the section for a core module in a component.
const CORE_MODULE: u8 = 1;

/// Number of a custom section in a module.
const CUSTOM: u8 = 0;

/// A component without names, and the names.
pub struct Split {
    /// The component, which computes the same.
    pub component: Vec<u8>,
    /// By its index, a line for each function of the module that exports the memory.
    pub names: String,
}

/// Takes the names out of a component's modules.
///
/// # Errors
/// Where it is no component.
pub fn split(component: &[u8]) -> Result<Split> {
    let mut stripped = Component::new();
    let mut names = String::new();
    for section in sections(component)? {
        if section.id != CORE_MODULE {
            stripped.section(&section);
            continue;
        }
        let module = without_names(section.data)?;
        if has_memory(section.data)? {
            names = names_of(section.data)?;
        }
        stripped.section(&RawSection {
            id: CORE_MODULE,
            data: &module,
        });
    }
    Ok(Split {
        component: stripped.finish(),
        names,
    })
}

/// The sections of a component or of a module, whatever is in them.
fn sections(bytes: &[u8]) -> Result<Vec<RawSection<'_>>> {
    const PREAMBLE: usize = 8;
    let mut sections = Vec::new();
    let mut rest = bytes.get(PREAMBLE..).context("it is too short")?;
    while let [id, after @ ..] = rest {
        let mut reader = wasmparser::BinaryReader::new(after, 0);
        let length = reader.read_var_u32().context("a section's length")? as usize;
        let start = reader.current_position();
        let data = after
            .get(start..start + length)
            .context("a section is cut")?;
        sections.push(RawSection { id: *id, data });
        rest = after.get(start + length..).unwrap_or_default();
    }
    Ok(sections)
}

fn without_names(module: &[u8]) -> Result<Vec<u8>> {
    let mut stripped = wasm_encoder::Module::new();
    for section in sections(module)? {
        let is_names = section.id == CUSTOM
            && wasmparser::BinaryReader::new(section.data, 0).read_string()? == "name";
        if !is_names {
            stripped.section(&section);
        }
    }
    Ok(stripped.finish())
}

/// Whether a module exports a memory: one alone does, with all the code in it.
fn has_memory(module: &[u8]) -> Result<bool> {
    for payload in Parser::new(0).parse_all(module) {
        if let Payload::ExportSection(exports) = payload? {
            for export in exports {
                if export?.kind == wasmparser::ExternalKind::Memory {
                    return Ok(true);
                }
            }
        }
    }
    Ok(false)
}

fn names_of(module: &[u8]) -> Result<String> {
    let mut lines: Vec<String> = Vec::new();
    for payload in Parser::new(0).parse_all(module) {
        let Payload::CustomSection(section) = payload? else {
            continue;
        };
        let KnownCustom::Name(names) = section.as_known() else {
            continue;
        };
        for part in names {
            let Name::Function(functions) = part? else {
                continue;
            };
            for function in functions {
                let function = function?;
                let index = function.index as usize;
                if lines.len() <= index {
                    lines.resize(index + 1, String::new());
                }
                // Without the hash.
                lines[index] = format!("{:#}", rustc_demangle::demangle(function.name));
            }
        }
    }
    let mut text = lines.join("\n");
    text.push('\n');
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn component(with_names: bool) -> Vec<u8> {
        use wasm_encoder::{
            CodeSection, CustomSection, ExportKind, ExportSection, Function, FunctionSection,
            MemorySection, MemoryType, Module, ModuleSection, NameMap, NameSection, TypeSection,
        };
        let mut module = Module::new();
        let mut types = TypeSection::new();
        types.ty().function([], []);
        let mut functions = FunctionSection::new();
        functions.function(0);
        functions.function(0);
        let mut memories = MemorySection::new();
        memories.memory(MemoryType {
            minimum: 1,
            maximum: None,
            memory64: false,
            shared: false,
            page_size_log2: None,
        });
        let mut exports = ExportSection::new();
        exports.export("memory", ExportKind::Memory, 0);
        let mut code = CodeSection::new();
        for _ in 0..2 {
            let mut function = Function::new([]);
            function.instructions().end();
            code.function(&function);
        }
        module.section(&types);
        module.section(&functions);
        module.section(&memories);
        module.section(&exports);
        module.section(&code);
        if with_names {
            let mut names = NameSection::new();
            let mut map = NameMap::new();
            map.append(1, "_RNvCs1234_4edge6search");
            names.functions(&map);
            module.section(&names);
        }
        module.section(&CustomSection {
            name: "producers".into(),
            data: (&[0][..]).into(),
        });
        let mut component = Component::new();
        component.section(&ModuleSection(&module));
        component.section(&CustomSection {
            name: "name".into(),
            data: (&[][..]).into(),
        });
        component.finish()
    }

    #[test]
    fn names_are_taken_out_and_nothing_else() {
        let split = split(&component(true)).unwrap();
        assert_eq!(split.names, "\nedge::search\n");
        assert_eq!(split.component, component(false));
        let again = super::split(&split.component).unwrap();
        assert_eq!(again.component, split.component);
        assert_eq!(again.names, "\n");
    }

    #[test]
    fn what_is_cut_is_refused() {
        let whole = component(true);
        assert!(split(&whole[..whole.len() - 1]).is_err());
        assert!(split(b"").is_err());
    }
}
