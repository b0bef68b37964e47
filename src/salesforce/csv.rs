//! CSV as Bulk jobs take and give it: UTF-8, commas, LF, quotes, no trimming. Pure.

/// Appends a row.
pub(super) fn write<'a>(out: &mut Vec<u8>, cells: impl IntoIterator<Item = &'a str>) {
    for (at, cell) in cells.into_iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        // An unquoted empty cell means "leave it"; everything else is quoted, so that nothing is trimmed.
        if !cell.is_empty() {
            out.push(b'"');
            out.extend_from_slice(cell.replace('"', "\"\"").as_bytes());
            out.push(b'"');
        }
    }
    out.push(b'\n');
}

/// Reads all rows; the first is the header. `None` if a quote is never closed. NUL bytes, which results may hold, are dropped.
pub(super) fn read(bytes: &[u8]) -> Option<Vec<Vec<String>>> {
    let text = String::from_utf8_lossy(bytes);
    let mut letters = text.chars().filter(|letter| *letter != '\0').peekable();
    let mut rows = Vec::new();
    let mut row: Vec<String> = Vec::new();
    let mut cell = String::new();
    let mut any = false;
    while let Some(letter) = letters.next() {
        any = true;
        match letter {
            '"' if cell.is_empty() => loop {
                match letters.next()? {
                    '"' if letters.peek() == Some(&'"') => {
                        letters.next();
                        cell.push('"');
                    }
                    '"' => break,
                    other => cell.push(other),
                }
            },
            ',' => row.push(std::mem::take(&mut cell)),
            '\r' if letters.peek() == Some(&'\n') => {}
            '\n' => {
                row.push(std::mem::take(&mut cell));
                rows.push(std::mem::take(&mut row));
                any = false;
            }
            other => cell.push(other),
        }
    }
    if any {
        row.push(cell);
        rows.push(row);
    }
    Some(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again_and_nuls_are_dropped() {
        let rows = [["a", "b,\"c\"\n"], ["", " x "]];
        let mut out = Vec::new();
        for row in rows {
            write(&mut out, row);
        }
        assert_eq!(read(&out).unwrap(), rows);
        assert_eq!(read(b"a\0b,\"c\r\nd\"\r\n").unwrap(), [["ab", "c\r\nd"]]);
        assert_eq!(read(b"\"a"), None);
        assert_eq!(read(b"").unwrap(), Vec::<Vec<String>>::new());
    }
}
