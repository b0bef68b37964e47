//! As much of Thrift's compact protocol as the metadata of a Parquet file take: it is written, never read.

/// A struct being written; fields go in by ascending number.
pub(super) struct Struct<'a> {
    out: &'a mut Vec<u8>,
    last: u8,
}

// The compact protocol's types.
const TRUE: u8 = 1;
const FALSE: u8 = 2;
const I32: u8 = 5;
const I64: u8 = 6;
const BINARY: u8 = 8;
const LIST: u8 = 9;
const STRUCT: u8 = 12;

/// Writes a struct that stands for itself.
pub(super) fn write_struct(out: &mut Vec<u8>, fields: impl FnOnce(&mut Struct<'_>)) {
    let mut this = Struct { out, last: 0 };
    fields(&mut this);
    this.out.push(0);
}

impl Struct<'_> {
    fn field(&mut self, number: u8, kind: u8) {
        debug_assert!(number > self.last && number - self.last < 16, "fields ascend in short steps");
        self.out.push((number - self.last) << 4 | kind);
        self.last = number;
    }

    pub(super) fn boolean(&mut self, number: u8, value: bool) {
        self.field(number, if value { TRUE } else { FALSE });
    }

    pub(super) fn i32(&mut self, number: u8, value: i32) {
        self.field(number, I32);
        write_signed(self.out, value.into());
    }

    pub(super) fn i64(&mut self, number: u8, value: i64) {
        self.field(number, I64);
        write_signed(self.out, value);
    }

    pub(super) fn binary(&mut self, number: u8, value: &[u8]) {
        self.field(number, BINARY);
        write_binary(self.out, value);
    }

    pub(super) fn inner(&mut self, number: u8, fields: impl FnOnce(&mut Struct<'_>)) {
        self.field(number, STRUCT);
        write_struct(self.out, fields);
    }

    pub(super) fn structs<T>(
        &mut self,
        number: u8,
        items: impl ExactSizeIterator<Item = T>,
        fields: impl Fn(&mut Struct<'_>, T),
    ) {
        self.list(number, items.len(), STRUCT);
        for item in items {
            write_struct(self.out, |this| fields(this, item));
        }
    }

    pub(super) fn i32s(&mut self, number: u8, items: &[i32]) {
        self.list(number, items.len(), I32);
        for &item in items {
            write_signed(self.out, item.into());
        }
    }

    pub(super) fn binaries(&mut self, number: u8, items: &[&[u8]]) {
        self.list(number, items.len(), BINARY);
        for item in items {
            write_binary(self.out, item);
        }
    }

    fn list(&mut self, number: u8, len: usize, kind: u8) {
        self.field(number, LIST);
        match u8::try_from(len) {
            Ok(short @ 0..15) => self.out.push(short << 4 | kind),
            _ => {
                self.out.push(0xf0 | kind);
                write_unsigned(self.out, len as u64);
            }
        }
    }
}

/// A number in as many bytes as it needs, seven bits in each, low ones first.
pub(super) fn write_unsigned(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn write_signed(out: &mut Vec<u8>, value: i64) {
    // Zigzag: small numbers of either sign are short.
    write_unsigned(out, ((value << 1) ^ (value >> 63)) as u64);
}

fn write_binary(out: &mut Vec<u8>, value: &[u8]) {
    write_unsigned(out, value.len() as u64);
    out.extend_from_slice(value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_fields_stand_as_the_compact_protocol_has_them() {
        let mut out = Vec::new();
        write_struct(&mut out, |this| {
            this.i32(1, -1);
            this.i64(3, 150);
            this.boolean(4, true);
            this.binary(5, b"ab");
            this.i32s(6, &[1; 16]);
            this.inner(8, |_| {});
        });
        let mut expected = vec![0x15, 1, 0x26, 0xac, 0x02, 0x11, 0x18, 2, b'a', b'b', 0x19, 0xf5, 16];
        expected.extend([2; 16]);
        expected.extend([0x2c, 0, 0]);
        assert_eq!(out, expected);
    }
}
