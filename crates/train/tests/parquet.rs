//! Text out of Parquet files, as data sets are published: pages of every compression that is read, rows without text,
//! and files that are damaged.

mod common;

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use common::{Site, stories};
use parquet::basic::{Compression, GzipLevel};
use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use train::data::Data;

/// Writes rows of a number and a text or none, in groups of 100.
fn written(path: &Path, texts: &[Option<&str>], compression: Compression) {
    let schema = parse_message_type("message rows { REQUIRED INT64 id; OPTIONAL BYTE_ARRAY text (UTF8); }").unwrap();
    let properties = WriterProperties::builder().set_compression(compression).set_data_page_row_count_limit(30).build();
    let file = File::create(path).unwrap();
    let mut writer = SerializedFileWriter::new(file, Arc::new(schema), Arc::new(properties)).unwrap();
    for group in texts.chunks(100) {
        let mut rows = writer.next_row_group().unwrap();
        let mut column = rows.next_column().unwrap().unwrap();
        let ids: Vec<i64> = (0..group.len() as i64).collect();
        column.typed::<Int64Type>().write_batch(&ids, None, None).unwrap();
        column.close().unwrap();
        let mut column = rows.next_column().unwrap().unwrap();
        let values: Vec<ByteArray> = group.iter().flatten().map(|text| ByteArray::from(*text)).collect();
        let levels: Vec<i16> = group.iter().map(|text| i16::from(text.is_some())).collect();
        column.typed::<ByteArrayType>().write_batch(&values, Some(&levels), None).unwrap();
        column.close().unwrap();
        rows.close().unwrap();
    }
    writer.close().unwrap();
}

/// The data of a recipe that reads the column `field` of `files`.
fn data(site: &Site, files: &str, field: &str, more: &str) -> Result<Data, String> {
    let source = format!("parquet = [{files}]\nfield = \"{field}\"");
    let recipe = site.recipe(&[
        ("text = [\"stories.txt\"]\nsplit_at_blank_lines = true", &source),
        ("tokens = 4000", "tokens = 1000000"),
        ("held_out_one_in = 10", &format!("held_out_one_in = 10{more}")),
    ]);
    site.try_data(&recipe).map_err(|error| error.to_string())
}

#[test]
fn every_row_is_a_document_whatever_the_compression() {
    let site = Site::new();
    let (all, half) = (stories(300, 1), 150);
    let texts: Vec<Option<&str>> = all.split("\n\n").filter(|text| !text.is_empty()).map(Some).collect();
    let plain = data(&site, "\"a.parquet\"", "text", "").err().unwrap();
    assert!(plain.contains("a.parquet: cannot be read"), "{plain}");
    let reference = site.data(&site.recipe(&[("tokens = 4000", "tokens = 1000000")])).manifest.sources[0].clone();
    for (name, compression) in [
        ("none", Compression::UNCOMPRESSED),
        ("snappy", Compression::SNAPPY),
        ("gzip", Compression::GZIP(GzipLevel::default())),
    ] {
        let (first, second) = (format!("{name}-1.parquet"), format!("{name}-2.parquet"));
        written(&site.path(&first), &texts[..half], compression);
        written(&site.path(&second), &texts[half..], compression);
        let found = data(&site, &format!("\"{first}\", \"{second}\""), "text", "").unwrap();
        let entry = &found.manifest.sources[0];
        assert_eq!((entry.documents, entry.tokens, entry.broken), (reference.documents, reference.tokens, 0), "{name}");
        assert_eq!(entry.text_sha256, reference.text_sha256, "{name}: the same documents in the same order");
        assert_eq!(entry.files.len(), 2);
    }
}

#[test]
fn rows_without_text_are_counted_and_a_file_of_something_else_is_refused() {
    let site = Site::new();
    let all = stories(300, 1);
    let mut texts: Vec<Option<&str>> = all.split("\n\n").filter(|text| !text.is_empty()).map(Some).collect();
    (texts[7], texts[120]) = (None, None);
    written(&site.path("a.parquet"), &texts, Compression::SNAPPY);
    let refused = data(&site, "\"a.parquet\"", "text", "").err().unwrap();
    assert!(refused.contains("2 of ") && refused.contains("a.parquet, row 8: no text"), "{refused}");
    let found = data(&site, "\"a.parquet\"", "text", "\nbroken_share_max = 0.02").unwrap();
    let entry = &found.manifest.sources[0];
    assert_eq!((entry.broken, entry.documents + entry.held_out_documents), (2, 298));

    let refused = data(&site, "\"a.parquet\"", "content", "").err().unwrap();
    assert!(refused.contains("there is no column \"content\"; its columns are: id, text"), "{refused}");
    let refused = data(&site, "\"a.parquet\"", "id", "").err().unwrap();
    assert!(refused.contains("the column holds no text"), "{refused}");
}

#[test]
fn damaged_files_are_errors_and_nothing_else() {
    let site = Site::new();
    let all = stories(300, 1);
    let texts: Vec<Option<&str>> = all.split("\n\n").filter(|text| !text.is_empty()).map(Some).collect();
    written(&site.path("whole.parquet"), &texts, Compression::SNAPPY);
    let bytes = std::fs::read(site.path("whole.parquet")).unwrap();
    let (mut refused, tries) = (0, 60);
    for i in 0..tries {
        let mut damaged = bytes.clone();
        match i % 3 {
            0 => damaged.truncate(bytes.len() * i / tries),
            // The footer is what counts and lengths are read from.
            1 => damaged[bytes.len() - 9 - i * 5] ^= 1 << (i % 8),
            _ => damaged[bytes.len() * i / tries] ^= 0xff,
        }
        std::fs::write(site.path("b.parquet"), damaged).unwrap();
        match data(&site, "\"b.parquet\"", "text", "") {
            Err(error) => {
                assert!(error.contains("b.parquet") || error.contains("sequences"), "{error}");
                refused += 1;
            }
            Ok(found) => assert!(found.manifest.sources[0].documents <= 300),
        }
        // What one try prepared is not the next one's.
        let _ = std::fs::remove_dir_all(site.path("data"));
    }
    assert!(refused > tries / 2, "{refused}");
}
