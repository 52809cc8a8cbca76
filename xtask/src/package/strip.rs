//! A WebAssembly binary without the names of its functions, which only messages about traps need.

use anyhow::{Context, Result, bail, ensure};

/// Begins every binary; a version and a layer follow.
const MAGIC: &[u8] = b"\0asm";
const PREAMBLE: usize = 8;

/// Layers: modules and components.
const COMPONENT_LAYER: [u8; 2] = [1, 0];

const CUSTOM: u8 = 0;
/// Sections of a component that hold a whole binary.
const CORE_MODULE: u8 = 1;
const COMPONENT: u8 = 4;

/// The sections that go.
const NAMES: [&[u8]; 2] = [b"name", b"component-name"];

/// The same binary without names, and without those of the binaries in it.
///
/// # Errors
/// Where it is none.
pub fn names(binary: &[u8]) -> Result<Vec<u8>> {
    ensure!(binary.starts_with(MAGIC), "no WebAssembly binary");
    let (preamble, mut rest) = binary
        .split_at_checked(PREAMBLE)
        .context("a binary that ends too early")?;
    let is_component = preamble[6..] == COMPONENT_LAYER;
    let mut stripped = preamble.to_vec();
    while let Some((&id, after)) = rest.split_first() {
        let (length, after) = number(after)?;
        let (content, after) = after
            .split_at_checked(length)
            .context("a section that ends too early")?;
        rest = after;
        if id == CUSTOM {
            let (length, name) = number(content)?;
            if name.get(..length).is_some_and(|name| NAMES.contains(&name)) {
                continue;
            }
        }
        let inner = match id {
            CORE_MODULE | COMPONENT if is_component => names(content)?,
            _ => content.to_vec(),
        };
        stripped.push(id);
        push_number(&mut stripped, inner.len());
        stripped.extend(inner);
    }
    Ok(stripped)
}

/// An unsigned number in LEB128, and what follows it.
fn number(bytes: &[u8]) -> Result<(usize, &[u8])> {
    let mut value = 0;
    for (at, &byte) in bytes.iter().enumerate().take(5) {
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            let value = usize::try_from(value).context("a length")?;
            return Ok((value, &bytes[at + 1..]));
        }
    }
    bail!("a length that does not end")
}

fn push_number(bytes: &mut Vec<u8>, mut value: usize) {
    loop {
        let low = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 {
            bytes.push(low);
            return;
        }
        bytes.push(low | 0x80);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODULE: [u8; 8] = *b"\0asm\x01\0\0\0";

    fn section(id: u8, content: &[u8]) -> Vec<u8> {
        let mut section = vec![id];
        push_number(&mut section, content.len());
        section.extend(content);
        section
    }

    fn custom(name: &str, content: &[u8]) -> Vec<u8> {
        let mut bytes = vec![name.len() as u8];
        bytes.extend(name.bytes());
        bytes.extend(content);
        section(CUSTOM, &bytes)
    }

    #[test]
    fn names_go_at_every_depth_and_nothing_else() {
        // Longer than one byte of a length tells.
        let code = section(10, &[7; 300]);
        let module = |with: &[u8]| [&MODULE[..], &code, &custom("producers", b"x"), with].concat();
        let component = |with: &[u8], module: Vec<u8>| {
            let preamble = *b"\0asm\x0d\0\x01\0";
            let nested = section(
                COMPONENT,
                &[&preamble[..], &section(CORE_MODULE, &module)].concat(),
            );
            [&preamble[..], &section(CORE_MODULE, &module), &nested, with].concat()
        };
        let whole = component(
            &custom("component-name", b"y"),
            module(&custom("name", b"z")),
        );
        assert_eq!(
            names(&whole).expect("a component"),
            component(&[], module(&[]))
        );
        // In a module, the numbers mean other sections.
        let types = [&MODULE[..], &section(1, b"types"), &section(4, b"table")].concat();
        assert_eq!(names(&types).expect("a module"), types);
    }

    #[test]
    fn what_is_cut_off_is_refused() {
        assert!(names(b"text").is_err());
        assert!(names(&MODULE[..6]).is_err());
        let whole = [&MODULE[..], &section(10, &[7; 300])].concat();
        for length in PREAMBLE + 1..whole.len() {
            assert!(names(&whole[..length]).is_err(), "{length}");
        }
    }
}
