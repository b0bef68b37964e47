//! CSV as Bulk API 2.0 takes and gives it: quotes, one delimiter, one kind of line end, no trimming.

/// A row whose quotes are wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BadRow;

/// Reads all rows; the first is the header.
pub(crate) fn read(text: &str, delimiter: char) -> Result<Vec<Vec<String>>, BadRow> {
    let mut rows = Vec::new();
    let mut row = Vec::new();
    let mut cell = String::new();
    let mut letters = text.chars().peekable();
    let mut any = false;
    while let Some(letter) = letters.next() {
        any = true;
        if letter == '"' && cell.is_empty() {
            loop {
                match letters.next() {
                    Some('"') if letters.peek() == Some(&'"') => {
                        letters.next();
                        cell.push('"');
                    }
                    Some('"') => break,
                    Some(other) => cell.push(other),
                    None => return Err(BadRow),
                }
            }
            // Nothing may stand between the closing quote and what ends the cell.
            if letters.peek().is_some_and(|next| *next != delimiter && *next != '\n' && *next != '\r') {
                return Err(BadRow);
            }
        } else if letter == delimiter {
            row.push(std::mem::take(&mut cell));
        } else if letter == '\n' || (letter == '\r' && letters.peek() == Some(&'\n')) {
            if letter == '\r' {
                letters.next();
            }
            row.push(std::mem::take(&mut cell));
            rows.push(std::mem::take(&mut row));
            any = false;
        } else {
            cell.push(letter);
        }
    }
    if any {
        row.push(cell);
        rows.push(row);
    }
    rows.retain(|row| row.len() > 1 || row.first().is_some_and(|cell| !cell.is_empty()));
    Ok(rows)
}

/// Appends a row.
pub(crate) fn write<'a>(out: &mut String, cells: impl IntoIterator<Item = &'a str>, delimiter: char, line_end: &str) {
    for (at, cell) in cells.into_iter().enumerate() {
        if at > 0 {
            out.push(delimiter);
        }
        out.push('"');
        out.push_str(&cell.replace('"', "\"\""));
        out.push('"');
    }
    out.push_str(line_end);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let rows = [["a", "b,\"c\""], ["", "two\nlines"]];
        let mut text = String::new();
        for row in rows {
            write(&mut text, row, ',', "\n");
        }
        assert_eq!(read(&text, ',').unwrap(), rows);
        assert_eq!(read("a,b\r\n1,\r\n", ',').unwrap(), [["a", "b"], ["1", ""]]);
        assert_eq!(read("a,\"b\" ,c\n", ','), Err(BadRow), "a space outside of quotes");
    }
}
