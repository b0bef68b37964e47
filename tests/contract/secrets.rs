//! The contract of `Secrets`.

use hubferry::{
    ErrorKind, codes,
    secrets::{MemorySecrets, Redacted, Secrets},
};

/// Runs the whole suite on a store in which `id` has the value `first` and nothing else is.
pub(crate) async fn secrets_contract(secrets: &dyn Secrets, id: &str) {
    let value = secrets.get(id).await.unwrap();
    assert_eq!(value.expose(), "first");
    assert!(!format!("{value:?}").contains("first"), "a secret shows itself");

    let new = Redacted::new("{\"refresh_token\":\"ü\"}");
    for _ in 0..2 {
        secrets.put(id, &new, "01ARZ3NDEKTSV4RRFFQ69G5FAV").await.unwrap();
    }
    assert_eq!(secrets.get(id).await.unwrap(), new);
    let error = secrets.put(id, &Redacted::new("other"), "01ARZ3NDEKTSV4RRFFQ69G5FAV").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "the token belongs to another value");
    assert_eq!(secrets.get(id).await.unwrap(), new);

    for error in [
        secrets.get("hubferry/none").await.unwrap_err(),
        secrets.put("hubferry/none", &new, "01ARZ3NDEKTSV4RRFFQ69G5FAX").await.unwrap_err(),
    ] {
        assert_eq!((error.kind(), error.code()), (ErrorKind::Invalid, codes::SECRET_MISSING));
        assert!(error.message().contains("hubferry/none"), "{}", error.message());
    }
}

#[tokio::test]
async fn memory_keeps_the_contract_of_secrets() {
    let secrets = MemorySecrets::new();
    secrets.insert("crm", "first");
    secrets_contract(&secrets, "crm").await;
}
