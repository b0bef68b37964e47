use std::io::Write;

use super::*;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut writer = flate2::GzBuilder::new()
        .filename("a.csv")
        .comment("c")
        .extra(vec![1, 2, 3])
        .write(Vec::new(), flate2::Compression::fast());
    writer.write_all(bytes).unwrap();
    writer.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::stream::encode_all(bytes, 3).unwrap()
}

fn inflate(bytes: &[u8], piece: usize, out_max: usize) -> Result<Vec<u8>> {
    let mut decompressor = Decompressor::new(detect(bytes))?;
    let mut out = Vec::new();
    for piece in bytes.chunks(piece) {
        let mut input = piece;
        loop {
            let before = out.len();
            decompressor.step(&mut input, &mut out, out_max)?;
            assert!(out.len() - before <= out_max);
            if input.is_empty() && out.len() - before < out_max {
                break;
            }
        }
    }
    decompressor.finish()?;
    Ok(out)
}

fn text() -> Vec<u8> {
    (0..5_000).flat_map(|row| format!("{row},row {row}\n").into_bytes()).collect()
}

#[test]
fn members_and_frames_one_after_the_other_are_one_file() {
    let (text, more) = (text(), b"more\n");
    let whole = [&text[..], more].concat();
    for compressed in [[gzip(&text), gzip(more)].concat(), [zstd(&text), zstd(more)].concat(), whole.clone()] {
        for (piece, out_max) in [(1, 7), (4096, 64), (usize::MAX, 1 << 20)] {
            assert!(inflate(&compressed, piece, out_max).unwrap() == whole);
        }
    }
}

#[test]
fn padding_and_garbage_after_gzip_are_ignored() {
    let text = text();
    for tail in [&b"\0\0\0"[..], b"garbage", b"\0\0\x1fx", b"\x1f"] {
        assert!(inflate(&[gzip(&text), tail.to_vec()].concat(), 5, 1000).unwrap() == text);
    }
}

#[test]
fn cut_and_damaged_files_say_where() {
    for compressed in [gzip(&text()), zstd(&text())] {
        for len in [8, compressed.len() / 2, compressed.len() - 1] {
            let error = inflate(&compressed[..len], 100, 1000).unwrap_err();
            assert_eq!(error.code(), codes::SOURCE_DAMAGED);
            assert!(error.message().contains(&format!("byte {len}: the data end too early")), "{error}");
        }
    }
    let mut damaged = gzip(&text());
    let checksum = damaged.len() - 8;
    damaged[checksum] ^= 1;
    assert!(inflate(&damaged, 100, 1000).unwrap_err().message().contains("the checksum differs"));
    let mut damaged = zstd(&text());
    damaged.truncate(200);
    damaged.extend([0xff; 400]);
    assert_eq!(inflate(&damaged, 100, 1000).unwrap_err().code(), codes::SOURCE_DAMAGED);
}

#[test]
fn a_window_that_would_not_fit_in_memory_is_refused_with_advice() {
    let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
    encoder.set_parameter(zstd::zstd_safe::CParameter::WindowLog(27)).unwrap();
    encoder.write_all(&vec![7; 1 << 20]).unwrap();
    let error = inflate(&encoder.finish().unwrap(), 4096, 1 << 16).unwrap_err();
    assert!(error.message().contains("window of more than 8 MiB"), "{error}");
    assert!(error.hint().contains("without --long"));
}

#[test]
fn a_bomb_comes_out_in_steps() {
    let zeros = vec![0; 1 << 24];
    for bomb in [gzip(&zeros), zstd(&zeros)] {
        let mut decompressor = Decompressor::new(detect(&bomb)).unwrap();
        let (mut input, mut out, mut total) = (&bomb[..], Vec::new(), 0);
        loop {
            out.clear();
            decompressor.step(&mut input, &mut out, 1 << 16).unwrap();
            assert!(out.capacity() <= 1 << 17);
            total += out.len();
            if input.is_empty() && out.len() < 1 << 16 {
                break;
            }
        }
        decompressor.finish().unwrap();
        assert_eq!(total, zeros.len());
    }
}

#[test]
fn no_bytes_at_all_are_an_empty_file() {
    assert!(inflate(b"", 1, 1).unwrap().is_empty());
}
