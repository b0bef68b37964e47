//! Parquet without some of its rows: the columns of a capture's file are read, and written again as they are.

use std::sync::Arc;

use bytes::Bytes;
use hubferry::{
    Error, ErrorKind, codes,
    erase::{Filtered, Keep, Tables},
};
use parquet::{
    basic::Compression,
    column::reader::{ColumnReader, ColumnReaderImpl},
    data_type::{BoolType, ByteArray, ByteArrayType, DataType, DoubleType, FloatType, Int32Type, Int64Type},
    errors::ParquetError,
    file::{
        properties::WriterProperties,
        reader::{FileReader as _, RowGroupReader, SerializedFileReader},
        writer::{SerializedColumnWriter, SerializedFileWriter},
    },
};

/// Reads what a capture wrote: flat columns, each of which has a value or none.
pub(crate) struct ParquetTables;

impl Tables for ParquetTables {
    fn filter(&self, file: &Bytes, write: bool, keep: &mut Keep<'_>) -> hubferry::Result<Filtered> {
        filter(file, write, keep).map_err(|_| {
            // Its own words might quote a value.
            let message = "it is not a Parquet file as a capture writes it";
            Error::new(ErrorKind::Corrupt, codes::OUTPUT_FAILED, message)
        })
    }
}

fn filter(file: &Bytes, write: bool, keep: &mut Keep<'_>) -> Result<Filtered, ParquetError> {
    let reader = SerializedFileReader::new(file.clone())?;
    let mut filtered = Filtered::default();
    let mut kept = Vec::new();
    for group in 0..reader.num_row_groups() {
        let rows = judge(&*reader.get_row_group(group)?, keep)?;
        filtered.rows += rows.len() as u64;
        filtered.dropped += rows.iter().filter(|kept| !**kept).count() as u64;
        kept.push(rows);
    }
    if write && filtered.dropped > 0 {
        filtered.file = Some(rewrite(&reader, &kept)?);
    }
    Ok(filtered)
}

/// Which rows of a group are kept, by their cells that are text.
fn judge(group: &dyn RowGroupReader, keep: &mut Keep<'_>) -> Result<Vec<bool>, ParquetError> {
    let count = rows_of(group)?;
    let mut rows: Vec<Vec<(String, String)>> = vec![Vec::new(); count];
    for at in 0..group.num_columns() {
        let name = group.metadata().column(at).column_path().string();
        if let ColumnReader::ByteArrayColumnReader(mut column) = group.get_column_reader(at)? {
            let (values, present) = read::<ByteArrayType>(&mut column, count)?;
            let mut values = values.into_iter();
            for (row, present) in rows.iter_mut().zip(present) {
                if present && let Some(value) = values.next() {
                    row.push((name.clone(), text(&value)));
                }
            }
        }
    }
    Ok(rows.iter().map(|row| keep(row)).collect())
}

fn text(value: &ByteArray) -> String {
    String::from_utf8_lossy(value.data()).into_owned()
}

fn rows_of(group: &dyn RowGroupReader) -> Result<usize, ParquetError> {
    usize::try_from(group.metadata().num_rows()).map_err(|_| ParquetError::General("rows".to_owned()))
}

/// The values of a column, and for each row whether it has one.
fn read<T: DataType>(column: &mut ColumnReaderImpl<T>, rows: usize) -> Result<(Vec<T::T>, Vec<bool>), ParquetError> {
    let (mut values, mut levels) = (Vec::new(), Vec::new());
    let mut done = 0;
    while done < rows {
        let (read, ..) = column.read_records(rows - done, Some(&mut levels), None, &mut values)?;
        if read == 0 {
            return Err(ParquetError::EOF("a column is short".to_owned()));
        }
        done += read;
    }
    // A column that always has values has no levels.
    let present = if levels.is_empty() { vec![true; rows] } else { levels.iter().map(|level| *level > 0).collect() };
    Ok((values, present))
}

/// Copies the rows of a column that are kept.
fn copy<T: DataType>(
    mut from: ColumnReaderImpl<T>,
    to: &mut SerializedColumnWriter<'_>,
    kept: &[bool],
    optional: bool,
) -> Result<(), ParquetError> {
    let (values, present) = read::<T>(&mut from, kept.len())?;
    let mut values = values.into_iter();
    let (mut out, mut levels) = (Vec::new(), Vec::new());
    for (kept, present) in kept.iter().zip(present) {
        let value = if present { values.next() } else { None };
        if *kept {
            levels.push(i16::from(present));
            out.extend(value);
        }
    }
    to.typed::<T>().write_batch(&out, optional.then_some(&levels[..]), None)?;
    Ok(())
}

/// The same file without the rows that are not kept: schema, metadata and compression stay.
fn rewrite(reader: &SerializedFileReader<Bytes>, kept: &[Vec<bool>]) -> Result<Bytes, ParquetError> {
    let metadata = reader.metadata();
    let schema = metadata.file_metadata().schema_descr();
    let flat = |at: usize| schema.column(at).max_def_level() <= 1 && schema.column(at).max_rep_level() == 0;
    if !(0..schema.num_columns()).all(flat) {
        return Err(ParquetError::NYI("nested columns".to_owned()));
    }
    let compression = metadata
        .row_groups()
        .first()
        .and_then(|group| group.columns().first())
        .map_or(Compression::UNCOMPRESSED, |column| column.compression());
    let properties = WriterProperties::builder()
        .set_compression(compression)
        .set_dictionary_enabled(false)
        .set_key_value_metadata(metadata.file_metadata().key_value_metadata().cloned())
        .build();
    let root = schema.root_schema_ptr();
    let mut writer = SerializedFileWriter::new(Vec::new(), root, Arc::new(properties))?;
    for (at, kept) in kept.iter().enumerate() {
        let group = reader.get_row_group(at)?;
        let mut to = writer.next_row_group()?;
        for column in 0..group.num_columns() {
            let optional = schema.column(column).max_def_level() > 0;
            let Some(mut target) = to.next_column()? else {
                return Err(ParquetError::General("a column too many".to_owned()));
            };
            match group.get_column_reader(column)? {
                ColumnReader::BoolColumnReader(from) => copy::<BoolType>(from, &mut target, kept, optional),
                ColumnReader::Int32ColumnReader(from) => copy::<Int32Type>(from, &mut target, kept, optional),
                ColumnReader::Int64ColumnReader(from) => copy::<Int64Type>(from, &mut target, kept, optional),
                ColumnReader::FloatColumnReader(from) => copy::<FloatType>(from, &mut target, kept, optional),
                ColumnReader::DoubleColumnReader(from) => copy::<DoubleType>(from, &mut target, kept, optional),
                ColumnReader::ByteArrayColumnReader(from) => copy::<ByteArrayType>(from, &mut target, kept, optional),
                _ => Err(ParquetError::NYI("a type that no capture writes".to_owned())),
            }?;
            target.close()?;
        }
        to.close()?;
    }
    Ok(writer.into_inner()?.into())
}
