//! The three checksums that the AWS SDK asks of the crate of this name.
//!
//! The original knows a hundred kinds of CRC and carries the tables of all of them, 650 kB that hardly compress: a tenth of what is
//! deployed. The SDK uses three, and hubferry's clients one, CRC-32. `[patch.crates-io]` in the workspace's `Cargo.toml` puts this in its
//! place; docs/decisions/0017-what-the-artefact-carries.md says why.

/// A kind of CRC, by the names of the crate that this stands in for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CrcAlgorithm {
    /// CRC-32 as in gzip: what hubferry's uploads carry.
    Crc32IsoHdlc,
    /// CRC-32C.
    Crc32Iscsi,
    /// CRC-64/NVME.
    Crc64Nvme,
}

/// Polynomials, reflected: these kinds take the lowest bit first.
const CRC32C: u64 = 0x82f6_3b78;
const CRC64_NVME: u64 = 0x9a6c_9329_ac4b_c9b5;

static CRC32C_TABLE: [u64; 256] = table(CRC32C);
static CRC64_NVME_TABLE: [u64; 256] = table(CRC64_NVME);

/// What each byte adds.
#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler, which would refuse")]
const fn table(polynomial: u64) -> [u64; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut value = byte as u64;
        let mut bit = 0;
        while bit < 8 {
            value = if value & 1 == 1 { (value >> 1) ^ polynomial } else { value >> 1 };
            bit += 1;
        }
        table[byte] = value;
        byte += 1;
    }
    table
}

/// A checksum in the making.
#[derive(Debug, Clone)]
pub struct Digest(State);

#[derive(Debug, Clone)]
enum State {
    /// With the processor's help, where it has some.
    Crc32(crc32fast::Hasher),
    /// Byte by byte: not what the SDK chooses by itself.
    Table { table: &'static [u64; 256], value: u64, ones: u64 },
}

impl Digest {
    /// Of no bytes yet.
    pub fn new(algorithm: CrcAlgorithm) -> Self {
        let begun = |table, ones| State::Table { table, value: ones, ones };
        Self(match algorithm {
            CrcAlgorithm::Crc32IsoHdlc => State::Crc32(crc32fast::Hasher::new()),
            CrcAlgorithm::Crc32Iscsi => begun(&CRC32C_TABLE, u32::MAX.into()),
            CrcAlgorithm::Crc64Nvme => begun(&CRC64_NVME_TABLE, u64::MAX),
        })
    }

    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            State::Crc32(hasher) => hasher.update(bytes),
            State::Table { table, value, .. } => {
                for byte in bytes {
                    let at = usize::from(value.to_le_bytes()[0] ^ byte);
                    *value = (*value >> 8) ^ table.get(at).copied().unwrap_or_default();
                }
            }
        }
    }

    /// The checksum; one of 32 bits in the lower half.
    pub fn finalize(self) -> u64 {
        match self.0 {
            State::Crc32(hasher) => hasher.finalize().into(),
            State::Table { value, ones, .. } => value ^ ones,
        }
    }
}

/// The checksum of these bytes.
pub fn checksum(algorithm: CrcAlgorithm, bytes: &[u8]) -> u64 {
    let mut digest = Digest::new(algorithm);
    digest.update(bytes);
    digest.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_the_check_value_of_the_catalogue_however_the_bytes_come() {
        for (algorithm, check) in [
            (CrcAlgorithm::Crc32IsoHdlc, 0xcbf4_3926),
            (CrcAlgorithm::Crc32Iscsi, 0xe306_9283),
            (CrcAlgorithm::Crc64Nvme, 0xae8b_1486_0a79_9888),
        ] {
            assert_eq!(checksum(algorithm, b"123456789"), check, "{algorithm:?}");
            let mut digest = Digest::new(algorithm);
            for byte in b"123456789" {
                digest.update(&[*byte]);
            }
            assert_eq!(digest.finalize(), check, "{algorithm:?} byte by byte");
            assert_eq!(checksum(algorithm, b""), 0, "{algorithm:?} of nothing");
        }
    }
}
