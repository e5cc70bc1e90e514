//! What is in an ELF file: the programs and maps of an eBPF object, and
//! whether an executable needs anything from the machine it runs on.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use object::{
    Endianness, FileKind, Object as _, ObjectSection as _, ObjectSymbol as _, SectionKind, SymbolKind,
    elf::{FileHeader64, PT_INTERP},
    read::elf::{ElfFile64, FileHeader as _, ProgramHeader as _},
};

/// An entry of an eBPF object: a program or a map.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Entry {
    pub(crate) section: String,
    pub(crate) name: String,
}

/// The programs and maps of an eBPF object, sorted.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    pub(crate) programs: Vec<Entry>,
    pub(crate) maps: Vec<Entry>,
}

/// Lists what the loader will find in the object at `path`.
pub(crate) fn list(path: &Path) -> Result<Listing> {
    let bytes = read(path)?;
    let file = parse(&bytes, path)?;
    let mut listing = Listing::default();
    for symbol in file.symbols() {
        let Some(section) = symbol.section_index().and_then(|index| file.section_by_index(index).ok()) else {
            continue;
        };
        let entry = Entry { section: section.name()?.to_owned(), name: symbol.name()?.to_owned() };
        let is_map = matches!(entry.section.as_str(), "maps" | ".maps");
        // Functions in .text are called by programs and cannot be attached.
        let is_program = section.kind() == SectionKind::Text && entry.section != ".text";
        match symbol.kind() {
            SymbolKind::Data if is_map => listing.maps.push(entry),
            SymbolKind::Text if is_program && symbol.is_global() => listing.programs.push(entry),
            _ => {}
        }
    }
    listing.programs.sort();
    listing.maps.sort();
    Ok(listing)
}

/// Whether the executable at `path` starts without a dynamic loader.
pub(crate) fn is_static(path: &Path) -> Result<bool> {
    let bytes = read(path)?;
    let file = parse(&bytes, path)?;
    let endian = file.endian();
    let headers = file.elf_header().program_headers(endian, bytes.as_slice())?;
    Ok(headers.iter().all(|header| header.p_type(endian) != PT_INTERP))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

fn parse<'a>(bytes: &'a [u8], path: &Path) -> Result<ElfFile64<'a, Endianness>> {
    let kind = FileKind::parse(bytes).with_context(|| format!("{} is not an ELF file", path.display()))?;
    anyhow::ensure!(kind == FileKind::Elf64, "{} is not a 64-bit ELF file", path.display());
    object::read::elf::ElfFile::<FileHeader64<Endianness>>::parse(bytes)
        .with_context(|| format!("{} is a damaged ELF file", path.display()))
}

#[cfg(test)]
mod tests {
    use std::env;

    use super::*;

    #[test]
    fn programs_and_maps_of_the_built_object_are_listed() {
        let Some(object) = env::var_os("SPIDERPOOL_BPF_OBJECT") else {
            assert!(env::var("CI").as_deref() != Ok("true"), "SPIDERPOOL_BPF_OBJECT is not set");
            eprintln!("skipped: SPIDERPOOL_BPF_OBJECT is not set, `cargo xtask test` does it");
            return;
        };
        let Listing { programs, maps } = list(object.as_ref()).unwrap();
        assert!(programs.iter().all(|program| program.section != ".text"), "{programs:?}");
        assert!(programs.iter().any(|program| program.section.starts_with("classifier")), "{programs:?}");
        assert!(maps.iter().any(|map| map.name == "nics"), "{maps:?}");
    }

    #[test]
    fn test_program_itself_is_dynamic() {
        let own = env::current_exe().unwrap();
        assert!(!is_static(&own).unwrap(), "the test program is linked to the C library");
    }

    #[test]
    fn other_file_is_refused_by_name() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
        let error = list(&path).unwrap_err().to_string();
        assert!(error.ends_with("Cargo.toml is not an ELF file"), "{error}");
    }
}
