//! The contract of `Objects`.

use bytes::Bytes;
use hubferry::{
    ErrorKind, codes,
    objects::{Location, Objects, folder::Folder, memory::MemoryObjects},
};

/// Runs the whole suite on an empty bucket that keeps no versions.
pub(crate) async fn objects_contract(objects: &dyn Objects, bucket: &str) {
    an_object_is_written_read_and_removed(objects, bucket).await;
    ranges_are_exact_and_short_only_at_the_end(objects, bucket).await;
    a_read_never_mixes_versions(objects, bucket).await;
    an_upload_is_seen_when_it_is_finished(objects, bucket).await;
    listings_are_by_prefix_and_in_order(objects, bucket).await;
}

async fn an_object_is_written_read_and_removed(objects: &dyn Objects, bucket: &str) {
    let before = objects.requests();
    let at = Location::new(bucket, "in/año + 1%.csv");
    assert_eq!(objects.get(&at).await.unwrap(), None);
    let error = objects.head(&at, None).await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::NotFound, codes::SOURCE_GONE));

    objects.put(&at, Bytes::from_static(b"a,b\n"), "text/csv").await.unwrap();
    let object = objects.head(&at, None).await.unwrap();
    assert_eq!((&object.location, object.size), (&at, 4));
    assert!(!object.etag.is_empty() && !object.etag.contains('"'), "{}", object.etag);
    assert_eq!(objects.get(&at).await.unwrap(), Some((Bytes::from_static(b"a,b\n"), object.etag)));

    assert!(!objects.put_new(&at, Bytes::from_static(b"late"), "text/csv").await.unwrap());
    assert_eq!(objects.head(&at, None).await.unwrap().size, 4, "what is there stays");
    objects.put(&at, Bytes::new(), "text/csv").await.unwrap();
    assert_eq!(objects.head(&at, None).await.unwrap().size, 0, "replaced whole");
    objects.delete(&at).await.unwrap();
    assert_eq!(objects.get(&at).await.unwrap(), None);
    objects.delete(&at).await.unwrap();
    assert!(
        objects.put_new(&at, Bytes::from_static(b"new"), "text/csv").await.unwrap(),
        "after a delete there is none"
    );
    assert_eq!(objects.get(&at).await.unwrap().unwrap().0, "new");
    objects.delete(&at).await.unwrap();
    assert!(objects.requests() >= before + 8);
}

async fn ranges_are_exact_and_short_only_at_the_end(objects: &dyn Objects, bucket: &str) {
    let at = Location::new(bucket, "range");
    objects.put(&at, Bytes::from_static(b"0123456789"), "text/plain").await.unwrap();
    let object = objects.head(&at, None).await.unwrap();
    for (range, expected) in
        [(0..10, "0123456789"), (0..1, "0"), (3..7, "3456"), (9..10, "9"), (8..99, "89"), (0..u64::MAX, "0123456789")]
    {
        assert_eq!(objects.read(&object, range.clone()).await.unwrap(), expected, "{range:?}");
    }
}

async fn a_read_never_mixes_versions(objects: &dyn Objects, bucket: &str) {
    let at = Location::new(bucket, "pinned");
    objects.put(&at, Bytes::from_static(b"first"), "text/plain").await.unwrap();
    let object = objects.head(&at, None).await.unwrap();
    objects.put(&at, Bytes::from_static(b"other"), "text/plain").await.unwrap();
    let error = objects.read(&object, 0..5).await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::Conflict, codes::SOURCE_CHANGED));
    objects.delete(&at).await.unwrap();
    let error = objects.read(&object, 0..5).await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::NotFound, codes::SOURCE_GONE));
}

async fn an_upload_is_seen_when_it_is_finished(objects: &dyn Objects, bucket: &str) {
    // Nothing, a little, exactly one part, and several parts with a rest.
    for size in [0, 5, 8 << 20, (17 << 20) + 3] {
        let at = Location::new(bucket, format!("upload/{size}"));
        let content: Vec<u8> = (0..size).map(|at: usize| u8::try_from(at % 251).unwrap()).collect();
        let mut upload = objects.upload(&at, "application/octet-stream").await.unwrap();
        for bytes in content.chunks(3_000_000) {
            upload.write(bytes).await.unwrap();
        }
        assert_eq!(objects.get(&at).await.unwrap(), None, "not before");
        upload.finish().await.unwrap();
        let (stored, _) = objects.get(&at).await.unwrap().unwrap();
        assert!(stored == content, "{size} bytes");
    }
    let at = Location::new(bucket, "upload/dropped");
    let mut upload = objects.upload(&at, "text/plain").await.unwrap();
    upload.write(b"half").await.unwrap();
    drop(upload);
    assert_eq!(objects.get(&at).await.unwrap(), None);
}

async fn listings_are_by_prefix_and_in_order(objects: &dyn Objects, bucket: &str) {
    for key in ["list/b", "list/a/2", "list/a/10", "list/a.csv", "list2/x", "list/é"] {
        objects.put(&Location::new(bucket, key), Bytes::from_static(b"x"), "text/plain").await.unwrap();
    }
    let list = async |prefix: &str| -> Vec<String> {
        let found = objects.list(&Location::new(bucket, prefix)).await.unwrap();
        found.into_iter().map(|location| location.key).collect()
    };
    assert_eq!(list("list/").await, ["list/a.csv", "list/a/10", "list/a/2", "list/b", "list/é"]);
    assert_eq!(list("list/a").await, ["list/a.csv", "list/a/10", "list/a/2"], "a prefix is no folder");
    assert_eq!(list("list/a/").await, ["list/a/10", "list/a/2"]);
    assert!(list("none/").await.is_empty());
}

#[tokio::test]
async fn memory_keeps_the_contract_of_objects() {
    objects_contract(&MemoryObjects::new(), "data").await;
}

#[tokio::test]
async fn a_folder_keeps_the_contract_of_objects() {
    let root = tempfile::tempdir().unwrap();
    objects_contract(&Folder::new(root.path()), "data").await;
    let elsewhere = tempfile::tempdir().unwrap();
    objects_contract(&Folder::new(root.path()).with_bucket("local", elsewhere.path()), "local").await;
}

#[tokio::test]
async fn a_kept_version_is_read_after_it_was_overwritten_and_deleted() {
    let objects = MemoryObjects::versioned();
    let at = Location::new("data", "a.csv");
    objects.insert(&at, "first");
    let first = objects.head(&at, None).await.unwrap();
    objects.insert(&at, "second");
    objects.delete(&at).await.unwrap();
    assert_eq!(objects.read(&first, 0..5).await.unwrap(), "first");
    assert_eq!(objects.head(&at, first.version_id.as_deref()).await.unwrap(), first);
    assert_eq!(objects.head(&at, None).await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn memory_fails_as_it_is_told() {
    let objects = MemoryObjects::new();
    let at = Location::new("data", "a.csv");
    objects.insert(&at, "a");
    let object = objects.head(&at, None).await.unwrap();
    let unavailable = ErrorKind::Unavailable { retry_after: None };
    objects.fail_reads_for(&at, 2, unavailable, codes::OBJECTS_UNAVAILABLE);
    for _ in 0..2 {
        assert_eq!(objects.read(&object, 0..1).await.unwrap_err().kind(), unavailable);
    }
    assert_eq!(objects.read(&object, 0..1).await.unwrap(), "a");
}
