//! Reads zip archives of `torch.save`, NumPy and others by the central directory at the end of the file.
//!
//! Sizes and offsets are checked against the file before anything is read. Writers fill in local headers differently, so
//! only the start of an entry's bytes is read from them.

use crate::error::{Error, Result};
use std::borrow::Cow;
use std::collections::HashMap;
use std::io::Read;

const LOCAL: u32 = 0x0403_4b50;
const CENTRAL: u32 = 0x0201_4b50;
const END: u32 = 0x0605_4b50;
const LOCATOR_64: u32 = 0x0706_4b50;
const END_64: u32 = 0x0606_4b50;
/// Length of the end record without its comment, and the longest comment.
const END_LENGTH: usize = 22;
const LONGEST_COMMENT: usize = 0xffff;
/// Bit of an entry's flags: it is encrypted.
const ENCRYPTED: u16 = 1;
/// Tag of the extra field that holds 64-bit sizes.
const SIZES_64: u16 = 1;
/// The placeholder of a number that is in the extra field.
const IN_EXTRA: u64 = 0xffff_ffff;

/// An archive in memory.
pub struct Archive<'f> {
    file: &'f [u8],
    entries: HashMap<String, Entry>,
}

/// An entry of the directory.
struct Entry {
    flags: u16,
    method: u16,
    crc: u32,
    packed: u64,
    size: u64,
    header: u64,
}

impl<'f> Archive<'f> {
    /// Reads the directory of a zip archive, given as all its bytes.
    pub fn open(file: &'f [u8]) -> Result<Archive<'f>> {
        let (count, start, length) = directory(file).ok_or_else(|| broken("its directory at the end is missing or cut off"))?;
        let mut rest = part(file, start, length).ok_or_else(|| broken("its directory lies outside of the file"))?;
        let mut entries = HashMap::new();
        for _ in 0..count {
            let (name, entry) = central(&mut rest).ok_or_else(|| broken("its directory is cut off"))?;
            if entries.insert(name.clone(), entry).is_some() {
                return Err(broken(format!("{name:?} is in it twice")));
            }
        }
        Ok(Archive { file, entries })
    }

    /// The names of all entries.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// The bytes of an entry, if there is one of this name.
    pub fn read(&self, name: &str) -> Result<Option<Cow<'f, [u8]>>> {
        let Some(entry) = self.entries.get(name) else { return Ok(None) };
        let bytes = self.bytes(entry).map_err(|e| e.at(format!("entry {name:?}")))?;
        // Some writers leave 0 to save the time.
        let mut crc = flate2::Crc::new();
        if entry.crc != 0 {
            crc.update(&bytes);
            if crc.sum() != entry.crc {
                return Err(broken(format!("entry {name:?}: its bytes are not those that were written (CRC-32)")));
            }
        }
        Ok(Some(bytes))
    }

    fn bytes(&self, entry: &Entry) -> Result<Cow<'f, [u8]>> {
        if entry.flags & ENCRYPTED != 0 {
            return Err(Error::unsupported("is encrypted"));
        }
        let outside = || broken("lies outside of the file");
        let header = part(self.file, entry.header, 30).ok_or_else(outside)?;
        if u32_at(header, 0) != Some(LOCAL) {
            return Err(broken("has no header where the directory says"));
        }
        let skip = [26, 28].iter().filter_map(|&at| u16_at(header, at)).map(u64::from).sum::<u64>();
        let start = entry.header.checked_add(30 + skip).ok_or_else(outside)?;
        let packed = part(self.file, start, entry.packed).ok_or_else(outside)?;
        match entry.method {
            0 if entry.packed == entry.size => Ok(Cow::Borrowed(packed)),
            0 => Err(broken("is stored in another length than it has")),
            8 => inflate(packed, entry.size).map(Cow::Owned),
            method => Err(Error::unsupported(format!("is compressed by method {method}; stored and deflated entries are read"))),
        }
    }
}

/// The largest size of an unpacked entry. A small hostile file could unpack to any size.
const LARGEST: u64 = 4 << 30;

fn inflate(packed: &[u8], size: u64) -> Result<Vec<u8>> {
    if size > LARGEST {
        return Err(Error::unsupported(format!("unpacks to {size} bytes, more than {LARGEST}")));
    }
    let mut bytes = Vec::new();
    let read = flate2::read::DeflateDecoder::new(packed).take(size.saturating_add(1)).read_to_end(&mut bytes);
    match read {
        Ok(count) if count as u64 == size => Ok(bytes),
        Ok(_) => Err(broken("has another length than the directory says")),
        Err(e) => Err(broken(format!("cannot be decompressed: {e}"))),
    }
}

fn broken(what: impl std::fmt::Display) -> Error {
    Error::format(format!("a broken zip archive: {what}"))
}

/// Number of entries, offset and length of the central directory.
fn directory(file: &[u8]) -> Option<(u64, u64, u64)> {
    let last = file.len().checked_sub(END_LENGTH)?;
    let first = last.saturating_sub(LONGEST_COMMENT);
    let end = (first..=last).rev().find(|&at| {
        u32_at(file, at) == Some(END)
            && u16_at(file, at + 20).is_some_and(|comment| at + END_LENGTH + usize::from(comment) <= file.len())
    })?;
    if let Some(locator) = end.checked_sub(20).filter(|&at| u32_at(file, at) == Some(LOCATOR_64)) {
        let at = usize::try_from(u64_at(file, locator + 8)?).ok()?;
        if u32_at(file, at)? != END_64 {
            return None;
        }
        return Some((u64_at(file, at + 32)?, u64_at(file, at + 48)?, u64_at(file, at + 40)?));
    }
    Some((u16_at(file, end + 10)?.into(), u32_at(file, end + 16)?.into(), u32_at(file, end + 12)?.into()))
}

/// Takes the next entry off the directory.
fn central(rest: &mut &[u8]) -> Option<(String, Entry)> {
    let bytes = *rest;
    if u32_at(bytes, 0)? != CENTRAL {
        return None;
    }
    let lengths = [28, 30, 32].map(|at| u16_at(bytes, at).map(usize::from));
    let [Some(name), Some(extra), Some(comment)] = lengths else { return None };
    let (name_end, extra_end) = (46 + name, 46 + name + extra);
    let text = String::from_utf8_lossy(bytes.get(46..name_end)?).into_owned();
    let mut large = large_numbers(bytes.get(name_end..extra_end)?);
    // Numbers of more than 32 bits are in the extra field, in this order.
    let mut number = |at: usize| match u64::from(u32_at(bytes, at)?) {
        IN_EXTRA => large.next(),
        number => Some(number),
    };
    let (size, packed, header) = (number(24)?, number(20)?, number(42)?);
    *rest = bytes.get(extra_end + comment..)?;
    Some((text, Entry { flags: u16_at(bytes, 8)?, method: u16_at(bytes, 10)?, crc: u32_at(bytes, 16)?, packed, size, header }))
}

/// The 64-bit numbers of an extra field.
fn large_numbers(mut extra: &[u8]) -> impl Iterator<Item = u64> {
    let mut found: &[u8] = &[];
    while let (Some(tag), Some(length)) = (u16_at(extra, 0), u16_at(extra, 2)) {
        let Some(field) = extra.get(4..4 + usize::from(length)) else { break };
        if tag == SIZES_64 {
            found = field;
            break;
        }
        extra = &extra[4 + field.len()..];
    }
    found.as_chunks::<8>().0.iter().map(|&bytes| u64::from_le_bytes(bytes))
}

fn part(file: &[u8], start: u64, length: u64) -> Option<&[u8]> {
    let end = start.checked_add(length)?;
    file.get(usize::try_from(start).ok()?..usize::try_from(end).ok()?)
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    array(bytes, at).map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    array(bytes, at).map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    array(bytes, at).map(u64::from_le_bytes)
}
